"""Paired tests: which rows only one of two models has right, and what they are held against."""

from pathlib import Path

import made_up_experiment as made
import pandas as pd
import pytest

from sft.evaluation.statistics import mcnemar_exact
from sft.reporting import paired
from sft.reporting.results_table import pair_rows


def compared(root: Path, baseline_cells: tuple[str, ...] = ("full", "lora")) -> list[dict]:
    cells, inputs = made.write_runs(root, cells=("full", "lora"), seeds=(0, 1))
    one = made.write_baseline(root, "words", {made.NEW: 150, made.OLD: 120}, baseline_cells)
    inputs |= dict(zip(("baseline-0", "baseline-scores-0"), one["inputs"], strict=True))
    rows = paired.comparisons("e", cells, [one["baseline"]], inputs, made.IDS, "test")
    paired.write(rows, root / "paired.csv")
    return rows


def one_of(rows: list[dict], **at) -> dict:
    (found,) = [row for row in rows if all(row[key] == value for key, value in at.items())]
    return found


def test_every_run_is_held_against_base_first_cell_and_baseline(tmp_path: Path):
    rows = compared(tmp_path)
    assert {(row["cell"], row["against"]) for row in rows} == {
        ("full", "base model"),
        ("full", "words"),
        ("lora", "base model"),
        ("lora", "full"),
        ("lora", "words"),
    }
    assert {row["step"] for row in rows} == {80}
    at = {"cell": "lora", "seed": 1, "dataset": made.OLD, "metric": "accuracy_likelihood"}
    # Of n right answers the first n rows are right: 119 at the end, 344 at first, 190 of full, 120 of the words.
    for against, only_cell, only_other in (("base model", 0, 225), ("full", 0, 71), ("words", 0, 1)):
        found = one_of(rows, against=against, **at)
        assert (found["only_cell"], found["only_other"], found["rows"]) == (only_cell, only_other, 360)
        assert found["p_value"] == mcnemar_exact(only_cell, only_other)


def test_a_baseline_is_held_against_the_cells_whose_rows_it_has(tmp_path: Path):
    assert {row["cell"] for row in compared(tmp_path, ("lora",)) if row["against"] == "words"} == {"lora"}


def test_what_is_written_is_read_back(tmp_path: Path):
    rows = compared(tmp_path)
    assert paired.read(tmp_path) == rows


def test_other_rows_are_no_pair(tmp_path: Path):
    cells, inputs = made.write_runs(tmp_path, cells=("full", "lora"), seeds=(0,))
    path = inputs["scores-1"] / "right.parquet"
    pd.read_parquet(path).replace({"id": {"row-007": "row-xyz"}}).to_parquet(path)
    with pytest.raises(ValueError, match="2 ids are in one result only, such as row-007, row-xyz"):
        paired.comparisons("e", cells, [], inputs, made.IDS, "test")


def test_the_table_has_the_metric_shown_by_seed(tmp_path: Path):
    rows = pair_rows(compared(tmp_path), made.typed(("full", "lora"), (0, 1)))
    assert [(row["dataset"], row["cell"], row["against"]) for row in rows][:3] == [
        (made.NEW, "full", "base model"),
        (made.NEW, "full", "words"),
        (made.NEW, "lora", "base model"),
    ]
    found = one_of(rows, cell="lora", dataset=made.NEW, against="full")
    assert [test[:2] for test in found["by_seed"]] == [(0, 6), (0, 7)]
