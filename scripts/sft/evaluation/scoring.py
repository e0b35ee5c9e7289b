"""Scores of stored predictions: exact denominators, errors counted apart, an interval with every number.

The denominator is the declared test split, never the rows that happened to be answered: a row that failed is
wrong, and a row that is missing, doubled or undeclared stops the scoring. Nothing here needs a model.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sft.data.read.multiple_choice import LETTERS, answers_by_text
from sft.evaluation.answers import is_strictly_right, named_choice, named_letter
from sft.evaluation.statistics import ratio_interval, wilson_interval

CONFIDENCE = 0.95
SHOWN = 10  # ids that an error message names

STRICT, LENIENT, LIKELIHOOD = "accuracy_strict", "accuracy_lenient", "accuracy_likelihood"


METRICS = (STRICT, LENIENT, LIKELIHOOD)
# Of rows without choices: the share of the target's tokens that are the likeliest, given all before them.
TOKEN = "accuracy_token"


def counted(dataset: str, marked: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The scores of `marks`: one row per step and metric, steps ascending."""
    by_step: dict[int, list[Mapping[str, Any]]] = {}
    for mark in marked:
        by_step.setdefault(mark["step"], []).append(mark)
    scores = []
    for step, rows in sorted(by_step.items()):
        errors = sum(row["error"] for row in rows)
        for metric in METRICS:
            if rows[0][metric] is not None:
                right = sum(row[metric] for row in rows)
                scores.append(_score(dataset, step, metric, right, len(rows), errors))
        if rows[0]["target_tokens"] is not None:
            right, tokens = [row["target_right"] for row in rows], [row["target_tokens"] for row in rows]
            interval = ratio_interval(right, tokens, CONFIDENCE)
            made = _score(dataset, step, TOKEN, sum(right), sum(tokens), errors)
            scores.append(made | {"low": interval[0], "high": interval[1], "method": "ratio over rows"})
    return scores


def marks(
    dataset: str, predictions: Iterable[Mapping[str, Any]], declared: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Whether each answer is right: one row per step and id, with a truth for each of `METRICS`, steps ascending.

    `predictions`: rows with step, id, raw_text, choice_log_likelihoods, error (None or why the row failed) and the
    gold answer and gold_text that the prediction was made with. `declared`: the test split's rows with id,
    prompt (None for text without roles, which has none of the metrics), completion, answer and choices (empty for free
    completions, which have the strict metric only; the others are None). Rows without choices keep the counts of
    their target's tokens.
    The order of neither changes anything. ValueError names ids that do not fit (see `require_exact_ids`).
    """
    gold = {row["id"]: row for row in declared}
    if len(gold) != len(declared):
        raise ValueError(f"{dataset}: the test split declares {_doubled(row['id'] for row in declared)}")
    if not gold:
        raise ValueError(f"{dataset}: the test split has no rows")
    with_choices = sum(bool(row["choices"]) for row in declared)
    if with_choices not in (0, len(gold)):
        raise ValueError(f"{dataset}: {with_choices} of {len(gold)} rows have choices; score them as two data sets")
    texts = sum(row["prompt"] is None for row in declared)
    if texts not in (0, len(gold)):
        raise ValueError(f"{dataset}: {texts} of {len(gold)} rows are text without roles; score them as two data sets")
    metrics = METRICS if with_choices else () if texts else (STRICT,)

    by_step: dict[int, list[Mapping[str, Any]]] = {}
    for row in predictions:
        by_step.setdefault(row["step"], []).append(row)
    marked = []
    for step, rows in sorted(by_step.items()):
        where = f"{dataset}, step {step}"
        require_exact_ids([row["id"] for row in rows], gold, where)
        for row in sorted(rows, key=lambda row: row["id"]):
            right = _right_metrics(row, gold[row["id"]], where)
            truths = {metric: metric in right if metric in metrics else None for metric in METRICS}
            failed = row["error"] is not None
            counts = {name: None if with_choices else row[name] for name in ("target_tokens", "target_right")}
            if not with_choices and not row["target_tokens"]:
                raise ValueError(f"{where}: row {row['id']} has no count of its target's tokens")
            marked.append({"dataset": dataset, "step": step, "id": row["id"], **truths, **counts, "error": failed})
    return marked


def require_exact_ids(scored: Sequence[str], declared: Mapping[str, Any], where: str) -> None:
    """ValueError unless every declared id was scored exactly once and no other was; it names the first ids."""
    seen = set(scored)
    faults = []
    if missing := sorted(declared.keys() - seen):
        faults.append(f"{len(missing)} missing ({_shown(missing)})")
    if extra := sorted(seen - declared.keys()):
        faults.append(f"{len(extra)} not declared ({_shown(extra)})")
    if len(seen) != len(scored):
        faults.append(_doubled(scored))
    if faults:
        raise ValueError(f"{where}: predictions do not match the {len(declared)} declared rows: {'; '.join(faults)}")


def likeliest(log_likelihoods: Sequence[float]) -> int | None:
    """Index of the largest log-likelihood; None for a tie at the top, NaN or no values (none is a choice made)."""
    if not log_likelihoods or any(value != value for value in log_likelihoods):
        return None
    best = max(log_likelihoods)
    winners = [index for index, value in enumerate(log_likelihoods) if value == best]
    return winners[0] if len(winners) == 1 else None


def _right_metrics(row: Mapping[str, Any], gold: Mapping[str, Any], where: str) -> list[str]:
    """The metrics by which a row is right; none for a row that failed."""
    if (row["answer"], row["gold_text"]) != (gold["answer"], gold["completion"]):
        raise ValueError(
            f"{where}: row {row['id']} was predicted for {row['gold_text']!r}, "
            f"the test split says {gold['completion']!r}"
        )
    if row["error"] is not None:
        return []
    choices = gold["choices"]
    # Answers made before it was kept what they say, and those of baselines, are their text.
    said = row["raw_text"] if row.get("said") is None else row["said"]
    right = [STRICT] if _is_right(row, said, gold) else []
    if choices:
        values = row["choice_log_likelihoods"]
        if len(values) != len(choices):
            raise ValueError(f"{where}: row {row['id']} has {len(values)} log-likelihoods for {len(choices)} choices")
        by_text = answers_by_text(gold["completion"], gold["answer"], choices)
        if (named_choice if by_text else named_letter)(said, choices) == gold["answer"]:
            right.append(LENIENT)
        best = likeliest(values)
        if best is not None and LETTERS[best] == gold["answer"]:
            right.append(LIKELIHOOD)
    return right


def _is_right(row: Mapping[str, Any], said: str, gold: Mapping[str, Any]) -> bool:
    """Whether an answer is the whole target: says it and calls the same tools, or is it as the template writes it."""
    if gold["choices"] or row.get("gold_said") is None:
        return is_strictly_right(said, gold["completion"], multiple_choice=bool(gold["choices"]))
    same = is_strictly_right(said, row["gold_said"], multiple_choice=False) and row["called"] == row["gold_called"]
    return same or bool(row["is_target"])


def _score(dataset: str, step: int, metric: str, numerator: int, denominator: int, errors: int) -> dict[str, Any]:
    low, high = wilson_interval(numerator, denominator, CONFIDENCE)
    return {
        "dataset": dataset,
        "step": step,
        "metric": metric,
        "numerator": numerator,
        "denominator": denominator,
        "value": numerator / denominator,
        "low": low,
        "high": high,
        "errors": errors,
        "confidence": CONFIDENCE,
        "method": "wilson",
    }


def _doubled(ids: Iterable[str]) -> str:
    repeated = sorted(identifier for identifier, count in Counter(ids).items() if count > 1)
    return f"{len(repeated)} more than once ({_shown(repeated)})"


def _shown(ids: Sequence[str]) -> str:
    return ", ".join(ids[:SHOWN]) + (", …" if len(ids) > SHOWN else "")
