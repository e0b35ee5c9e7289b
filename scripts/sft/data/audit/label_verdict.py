"""Judges what labels.json counts: which of the thresholds of `labels:` a tokenised data set passes."""

from collections.abc import Mapping
from typing import Any

from sft.config.label_audit_settings import LabelAudit


def judged(labels: Mapping[str, Any], limits: LabelAudit) -> list[dict[str, Any]]:
    """One row for each split and threshold: what was found, what is allowed, whether it passes, and what to do.

    `labels`: the content of labels.json.
    """
    found = []
    for split, facts in labels["splits"].items():
        rows, kept = facts["rows"], facts["rows_kept"]
        if not rows:
            continue
        cut, masked = facts["rows_answer_truncated"], facts["rows_fully_masked"]
        ended = facts["end_of_turn_supervised"]
        found += [
            _row(
                split,
                "maximum_truncated_answers",
                cut / rows,
                limits,
                cut / rows <= limits.maximum_truncated_answers,
                f"{cut} of {rows} answers are cut at max_length",
                facts.get("ids_answer_truncated", []),
                "Raise training.max_length, or set training.on_too_long to drop",
            ),
            _row(
                split,
                "maximum_fully_masked",
                masked,
                limits,
                masked <= limits.maximum_fully_masked,
                f"{masked} of {rows} rows have no token to learn",
                facts.get("ids_fully_masked", []),
                "Raise training.max_length, or set training.on_too_long to drop",
            ),
            _row(
                split,
                "minimum_end_of_turn",
                ended,
                limits,
                ended is not None and ended >= limits.minimum_end_of_turn,
                f"the end of the turn is learned in {round((ended or 0) * kept)} of {kept} rows, so that a model would "
                f"{'often ' if ended else ''}not learn to stop",
                facts.get("ids_without_end_of_turn", []),
                "Raise training.max_length, or give a chat template that closes assistant's turn with a special token",
            ),
            _row(
                split,
                "maximum_double_bos",
                facts["rows_with_two_bos"],
                limits,
                facts["rows_with_two_bos"] <= limits.maximum_double_bos,
                f"{facts['rows_with_two_bos']} of {rows} rows begin with two beginning-of-text tokens",
                [],
                "The chat template writes what the text already has: mend the one or the other",
            ),
        ]
    return found


def counts(labels: Mapping[str, Any]) -> dict[str, dict[str, tuple[int, int]]]:
    """By split, what the ledger says of labels.json: (numerator, denominator) of each."""
    made = {}
    for split, facts in labels["splits"].items():
        rows, kept = facts["rows"], facts["rows_kept"]
        made[split] = {
            "learned": (facts["supervised_tokens"], facts["tokens"]),
            "answers_cut": (facts["rows_answer_truncated"], rows),
            "nothing_learned": (facts["rows_fully_masked"], rows),
            "left_out": (rows - kept, rows),
            "end_learned": (round((facts["end_of_turn_supervised"] or 0) * kept), kept),
        }
    return made


def complaint(found: list[dict[str, Any]]) -> str:
    """One line for each threshold that is not held: split, count, ids, and what to do."""
    lines = []
    for row in found:
        if not row["passed"]:
            ids = f" (ids {', '.join(row['ids'][:5])})" if row["ids"] else ""
            lines.append(
                f"{row['split']}: {row['what']}{ids}. {row['fix']}, or allow it with labels.{row['threshold']}"
            )
    return "\n  ".join(lines)


def _row(
    split: str,
    threshold: str,
    value: float | None,
    limits: LabelAudit,
    passed: bool,
    what: str,
    ids: list[str],
    fix: str,
) -> dict[str, Any]:
    return {
        "split": split,
        "threshold": threshold,
        "found": value,
        "allowed": getattr(limits, threshold),
        "passed": passed,
        "what": what,
        "ids": ids,
        "fix": fix,
    }
