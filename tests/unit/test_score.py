"""Scoring: what the denominator is, what an error costs, and that order does not matter.

Tests: sft.evaluation.scoring
"""

import json
import random
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sft.evaluation.scoring import counted, likeliest, marks
from sft.runtime import manifest
from sft.runtime.code import SCRIPTS
from whole_manifest import whole

CHOICES = [str(digit) for digit in range(10)]


def score_dataset(dataset: str, predictions: list[dict], declared: list[dict]) -> list[dict]:
    return counted(dataset, marks(dataset, predictions, declared))


def declared_rows(n: int) -> list[dict]:
    return [
        {"id": f"row-{i:03}", "answer": "ABCDEFGHIJ"[i % 10], "completion": f"{'ABCDEFGHIJ'[i % 10]}. {i % 10}",
         "choices": CHOICES, "prompt": "Which digit is shown?"}
        for i in range(n)
    ]  # fmt: skip


def predicted(row: dict, *, right: bool = True, step: int = 0, error: str | None = None, **changes) -> dict:
    index = CHOICES.index(row["completion"][3:])
    chosen = index if right else (index + 1) % 10
    return {
        "dataset": "digits",
        "step": step,
        "id": row["id"],
        "answer": row["answer"],
        "gold_text": row["completion"],
        "raw_text": "" if error else f"{'ABCDEFGHIJ'[chosen]}. {chosen}",
        "parsed": "",
        "choice_log_likelihoods": [] if error else [-1.0 if i == chosen else -5.0 for i in range(10)],
        "prompt_tokens": 40,
        "target_tokens": None,
        "target_right": None,
        "target_log_likelihood": None,
        "error": error,
    } | changes


def values(scores: list[dict], step: int = 0) -> dict[str, float]:
    return {score["metric"]: score["value"] for score in scores if score["step"] == step}


def test_errors_stay_in_the_denominator():
    rows = declared_rows(100)
    predictions = [predicted(row) for row in rows[:80]]
    predictions += [predicted(row, right=False) for row in rows[80:90]]
    predictions += [predicted(row, error="the picture cannot be decoded") for row in rows[90:]]
    scores = score_dataset("digits", predictions, rows)
    assert values(scores) == {"accuracy_strict": 0.8, "accuracy_lenient": 0.8, "accuracy_likelihood": 0.8}
    assert {(s["numerator"], s["denominator"], s["errors"]) for s in scores} == {(80, 100, 10)}
    assert (scores[0]["low"], scores[0]["high"]) == pytest.approx((0.7112, 0.8666), abs=5e-5)


def test_order_changes_nothing():
    rows = declared_rows(60)
    predictions = [predicted(row, right=i % 3 > 0, step=step) for step in (0, 30) for i, row in enumerate(rows)]
    expected = score_dataset("digits", predictions, rows)
    shuffled = random.Random(0)
    for _ in range(3):
        shuffled.shuffle(predictions)
        shuffled.shuffle(rows)
        assert score_dataset("digits", predictions, rows) == expected


def test_a_letter_alone_is_lenient_only():
    rows = declared_rows(4)
    scores = score_dataset("digits", [predicted(row, raw_text=row["answer"]) for row in rows], rows)
    assert values(scores) == {"accuracy_strict": 0.0, "accuracy_lenient": 1.0, "accuracy_likelihood": 1.0}


def test_an_unreadable_answer_is_not_the_first_choice():
    rows = declared_rows(10)
    scores = score_dataset("digits", [predicted(row, raw_text="???") for row in rows], rows)
    assert values(scores)["accuracy_lenient"] == 0.0


def test_a_tie_is_wrong():
    assert likeliest([-1.0, -2.0]) == 0
    assert likeliest([-1.0, -1.0, -2.0]) is None
    assert likeliest([float("nan"), -1.0]) is None
    assert likeliest([]) is None
    rows = declared_rows(2)
    scores = score_dataset("digits", [predicted(row, choice_log_likelihoods=[-1.0] * 10) for row in rows], rows)
    assert values(scores)["accuracy_likelihood"] == 0.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[:-2], r"step 0: .* the 20 declared rows: 2 missing \(row-018, row-019\)"),
        (lambda rows: [*rows, rows[3]], r"1 more than once \(row-003\)"),
        (lambda rows: [*rows, rows[0] | {"id": "row-900"}], r"1 not declared \(row-900\)"),
        (lambda rows: rows[12:], r"12 missing \(row-000, .*, row-009, …\)"),
    ],
)
def test_rows_that_do_not_fit_are_named(change, message):
    rows = declared_rows(20)
    with pytest.raises(ValueError, match=message):
        score_dataset("digits", change([predicted(row) for row in rows]), rows)


def test_another_gold_answer_is_refused():
    rows = declared_rows(3)
    with pytest.raises(ValueError, match=r"row row-000 was predicted for 'B\. 1', the test split says 'A\. 0'"):
        score_dataset("digits", [predicted(row, gold_text="B. 1") for row in rows], rows)


def test_missing_log_likelihoods_are_refused():
    rows = declared_rows(3)
    with pytest.raises(ValueError, match="has 2 log-likelihoods for 10 choices"):
        score_dataset("digits", [predicted(row, choice_log_likelihoods=[-1.0, -2.0]) for row in rows], rows)


def free(identifier: str, right: int, tokens: int, prompt: str | None = "?", text: str = "food") -> tuple[dict, dict]:
    """A declared row without choices, and an answer to it."""
    declared = {"id": identifier, "answer": "", "prompt": prompt, "completion": "food", "choices": []}
    made = {"step": 0, "id": identifier, "answer": "", "gold_text": "food", "raw_text": text, "error": None}
    counts = {"target_tokens": tokens, "target_right": right, "choice_log_likelihoods": []}
    return declared, made | counts


def test_free_completions_have_the_strict_metric_and_that_of_their_tokens():
    rows, made = zip(free("a", 3, 4, text=" food\n"), free("b", 1, 8, text="foot"), strict=True)
    scores = score_dataset("wordnet", made, rows)
    assert values(scores) == {"accuracy_strict": 0.5, "accuracy_token": 4 / 12}
    assert [(score["numerator"], score["denominator"], score["method"]) for score in scores] == [
        (1, 2, "wilson"),
        (4, 12, "ratio over rows"),
    ]


def test_text_without_roles_has_the_metric_of_tokens_alone():
    rows, made = zip(free("a", 3, 4, None, ""), free("b", 1, 8, None, ""), strict=True)
    assert values(score_dataset("docs", made, rows)) == {"accuracy_token": 4 / 12}
    with pytest.raises(ValueError, match="1 of 2 rows are text without roles"):
        score_dataset("docs", made, [rows[0], rows[1] | {"prompt": "?"}])
    with pytest.raises(ValueError, match="row b has no count of its target's tokens"):
        score_dataset("docs", [made[0], made[1] | {"target_tokens": None}], rows)


def finished(directory, config: dict, **tables: pa.Table) -> None:
    """A finished node made by hand: files, then the manifest that vouches for them."""
    directory.mkdir(parents=True)
    for name, table in tables.items():
        pq.write_table(table, directory / f"{name}.parquet")
    record = whole(config=config, outputs=manifest.describe_files(directory))
    manifest.write(directory, record)


def run_score(tmp_path, predictions: list[dict], rows: list[dict]) -> subprocess.CompletedProcess:
    finished(tmp_path / "split", {}, test=pa.Table.from_pylist(rows))
    finished(tmp_path / "predictions", {"datasets": ["digits"]}, predictions=pa.Table.from_pylist(predictions))
    node = {
        "rule": "score",
        "id": "by-hand",
        "config": {"datasets": ["digits"]},
        "identity": {},
        "inputs": {"predictions": str(tmp_path / "predictions"), "test-0": str(tmp_path / "split")},
    }
    (tmp_path / "scores").mkdir()
    (tmp_path / "scores" / "config.json").write_text(json.dumps(node))
    command = [sys.executable, str(SCRIPTS / "score.py"), str(tmp_path / "scores")]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_script_writes_a_tidy_table(tmp_path):
    rows = declared_rows(10)
    done = run_score(tmp_path, [predicted(row, step=step, right=step > 0) for step in (0, 30) for row in rows], rows)
    assert done.returncode == 0, done.stderr
    assert "score by-hand: step 30: digits strict 100.0% (10/10)" in done.stdout
    table = pq.read_table(tmp_path / "scores" / "scores.parquet").to_pylist()
    assert [(row["step"], row["metric"], row["numerator"]) for row in table] == [
        (0, "accuracy_strict", 0),
        (0, "accuracy_lenient", 0),
        (0, "accuracy_likelihood", 0),
        (30, "accuracy_strict", 10),
        (30, "accuracy_lenient", 10),
        (30, "accuracy_likelihood", 10),
    ]
    # Scoring must stay possible where no model environment is, and pandas takes longer to import than to score.
    assert not {"torch", "pandas"} & manifest.read(tmp_path / "scores")["versions"].keys()


def test_the_script_stops_on_a_missing_row(tmp_path):
    rows = declared_rows(10)
    done = run_score(tmp_path, [predicted(row) for row in rows[1:]], rows)
    assert done.returncode == 1
    assert "error: digits, step 0: predictions do not match the 10 declared rows: 1 missing (row-000)" in done.stderr
    assert not (tmp_path / "scores" / "scores.parquet").exists()
