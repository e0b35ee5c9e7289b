"""The experiment files that are shipped: each is valid, and shares the runs that its head comment says.

Tests: sft.planning.presentation
"""

from pathlib import Path

import pytest

from sft.config.reader import load
from sft.planning.planner import make_plan

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "config/experiments").glob("*.yaml"))


def runs(file: str) -> dict[str, str]:
    """experiment/cell/seed -> run id."""
    plan = make_plan(load([ROOT / "config" / file]))
    return {f"{run.experiment}/{run.cell}/{run.seed}": run.train.id for of in plan.runs.values() for run in of}


@pytest.mark.parametrize("file", FILES, ids=[file.stem for file in FILES])
def test_a_shipped_file_is_valid_and_says_what_it_needs(file: Path):
    assert runs(f"experiments/{file.name}")
    text = file.read_text()
    assert "# Hardware: " in text
    assert f"--configfile config/experiments/{file.name}" in text


def test_the_grid_contains_the_run_of_the_default():
    grid = runs("experiments/digits_learning_rate.yaml")
    shared = grid["digits_learning_rate/learning_rate-0.002_global_batch_size-64/0"]
    assert shared == runs("config.yaml")["digits/full/0"]
    assert len(set(grid.values())) == 6


def test_the_learning_rates_of_the_comparison_are_among_those_that_were_compared_on_validation_rows():
    study = load([ROOT / "config/experiments/wordnet_learning_rate.yaml"])
    (compared,) = study.experiments.values()
    assert {cell.content.evaluation.split for cell in compared.cells.values()} == {"validation"}
    tried, used = runs("experiments/wordnet_learning_rate.yaml"), runs("experiments/wordnet_supersense.yaml")
    assert tried["wordnet_learning_rate/full-1e-4/0"] == used["wordnet_supersense/full/0"]
    assert tried["wordnet_learning_rate/lora-3e-3/0"] == used["wordnet_supersense/lora/0"]
    assert len(set(tried.values())) == 6


def test_240_rows_are_the_run_of_the_comparison():
    rows = runs("experiments/wordnet_rows.yaml")
    assert rows["wordnet_rows/rows-240/0"] == runs("experiments/wordnet_supersense.yaml")["wordnet_supersense/lora/0"]
    assert len(set(rows.values())) == 4
