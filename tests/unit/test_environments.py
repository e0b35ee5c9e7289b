"""What another environment changed: found, told and drawn.

Tests: sft.packages.lock_files
"""

import copy
import json
from pathlib import Path

import made_up_experiment as made
import pandas as pd
import pytest
from test_identity import STUDY, plan_of

from sft.config.errors import ConfigError
from sft.packages.lock_files import lock_digest, lock_names
from sft.planning.plan import Plan
from sft.reporting import environments
from sft.runtime.stage import StageError

COMPARED = [[{"cell": "full", "environment": "old"}, {"cell": "lora", "environment": "new"}]]


def plan_with(directory: Path, **changes: object) -> Plan:
    study = copy.deepcopy(STUDY)
    study["experiments"]["e"] |= changes
    return plan_of(study, directory)


def test_a_lock_is_part_of_what_models_are_made_with_and_of_nothing_else(tmp_path: Path):
    plain, locked = plan_with(tmp_path), plan_with(tmp_path, environment="cpu")
    assert {node.rule for node in locked.nodes.values()} - {node.rule for node in plain.nodes.values()} == {
        "make_environment"
    }
    moved = {node.rule for directory, node in locked.nodes.items() if directory not in plain.nodes}
    train = {"download_processor", "download_model", "tokenize_dataset", "train_model", "convert_checkpoint", "predict"}
    # Scores lie below predictions; what is counted from them is presentation and keeps its directory.
    assert moved == {*train, "score", "audit_labels", "make_environment"}
    [environment] = locked.of_rule("make_environment")
    for node in locked.of_rule(*train):
        assert node.document()["environment"] == {"policy": "strict", "pins": "locks/cpu.txt"}
        assert node.execution["python"] == f"{environment.directory}/venv/bin/python"
        assert node.gates["environment"] is environment
    assert locked.runs["e"][0].audit.rule == "audit_splits"


def test_a_lock_is_its_packages_and_not_its_name_or_its_comments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "locks").mkdir()
    one, two = tmp_path / "locks/one.txt", tmp_path / "locks/two.txt"
    one.write_text("a==1.0 \\\n    --hash=sha256:00\nb==2.0 ; sys_platform == 'win32' \\\n    --hash=sha256:11\n")
    two.write_text("# the same\nb==2.0 ; sys_platform == 'win32' \\\n    --hash=sha256:11\na==1.0 \\\n")
    assert lock_digest("one") == lock_digest("two")
    two.write_text(two.read_text().replace("a==1.0", "a==1.1"))
    assert lock_digest("one") != lock_digest("two")
    assert {"one", "two", "cpu", "cuda"} <= set(lock_names())
    assert "uv" not in lock_names()


def test_an_unknown_lock_is_refused_with_those_there_are(tmp_path: Path):
    with pytest.raises(ConfigError) as error:
        plan_with(tmp_path, environment="cpuu")
    assert "there is no lock cpuu" in str(error.value)
    assert "did you mean cpu?" in str(error.value)
    assert "study.yaml" in str(error.value)


def test_cells_that_differ_in_their_packages_alone_are_compared(tmp_path: Path):
    grid = {"environment": ["cpu", "cpu-accelerate-1.14"], "training.learning_rate": [1e-3, 2e-3]}
    [figure] = plan_with(tmp_path, grid=grid).of_rule("plot_environments")
    assert [[entry["cell"] for entry in group] for group in figure.config["compared"]] == [
        ["environment-cpu_learning_rate-0.001", "environment-cpu-accelerate-1.14_learning_rate-0.001"],
        ["environment-cpu_learning_rate-0.002", "environment-cpu-accelerate-1.14_learning_rate-0.002"],
    ]
    assert not plan_with(tmp_path, grid={"training.learning_rate": [1e-3, 2e-3]}).of_rule("plot_environments")


def series(values: list[float], cell: str, metric: str = "loss", seed: int = 0) -> pd.DataFrame:
    rows = [(cell, seed, "", "train", step, metric, value) for step, value in enumerate(values, 1)]
    return pd.DataFrame(rows, columns=["cell", "seed", "dataset", "split", "step", "metric", "value"])


def ledger_of(loss: list[float], norm: list[float], score: float) -> pd.DataFrame:
    first = [series([3.0, 2.0, 1.0], "full"), series([9.0, 8.0, 7.0], "full", "grad_norm")]
    second = [series(loss, "lora"), series(norm, "lora", "grad_norm")]
    scores = [(cell, 0, "d", "test", 3, "accuracy_strict", value) for cell, value in (("full", 0.9), ("lora", score))]
    return pd.concat([*first, *second, pd.DataFrame(scores, columns=first[0].columns)])


RUNS = pd.DataFrame({"cell": ["full", "lora"], "seed": [0, 0], "tokens": ["t", "t"], "prompts": ["p", "p"]})
SHOWN = made.typed(("full", "lora"), (0,), compared=COMPARED, metric="accuracy_strict")


def test_equal_series_are_equal_to_the_last_bit():
    [row] = environments.comparisons(ledger_of([3.0, 2.0, 1.0], [9.0, 8.0, 7.0], 0.9), RUNS, SHOWN)
    text, equal = environments.told(row)
    assert equal
    assert text == (
        "new against old, seed 0: tokens, prompts, loss, grad_norm, accuracy equal to the last bit (3 steps)."
    )


def test_the_first_diverging_step_is_named():
    runs = RUNS.assign(prompts=["p", "q"])
    ledger = ledger_of([3.0, 2.0, 1.0 + 1e-12], [9.0, 8.5, 7.0], 0.95)
    [row] = environments.comparisons(ledger, runs, SHOWN)
    assert (row["first_diverging_loss"], row["first_diverging_grad_norm"]) == (3, 2)
    assert row["largest_grad_norm"] == 0.5
    text, equal = environments.told(row)
    assert not equal
    assert text == (
        "new against old, seed 0: prompts differ; loss differs from step 3 on, at most by 1e-12; "
        "grad_norm differs from step 2 on, at most by 0.5; accuracy on d +5.0 points; tokens equal."
    )


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(StageError, match="loss was logged at other steps"):
        environments.comparisons(ledger_of([3.0, 2.0], [9.0, 8.0, 7.0], 0.9), RUNS, SHOWN)
    with pytest.raises(StageError, match="no digest of the tokens"):
        environments.comparisons(ledger_of([3.0, 2.0, 1.0], [9.0, 8.0, 7.0], 0.9), RUNS.assign(tokens=["", ""]), SHOWN)


@pytest.mark.parametrize("changed", [False, True])
def test_the_figure_says_what_differs(tmp_path: Path, changed: bool):
    """Two cells of the made-up experiment, drawn as if one lock had made the one and another the other."""
    cells, inputs = made.write_runs(tmp_path, ("full", "lora") if changed else ("full",), (0,))
    if not changed:
        cells.append(cells[0] | {"cell": "again"})
        inputs |= {"run-1": inputs["run-0"], "scores-1": inputs["scores-0"]}
    config = {"experiment": "digits_shift", "cells": cells, "datasets": made.IDS}
    ledger = made.make_here("collect_metrics", made.write_node(tmp_path / "ledger", "collect_metrics", config, inputs))
    # Made-up runs have no tokens and no prompts of their own.
    pd.read_csv(ledger / "runs.csv").assign(tokens="t", prompts="p").to_csv(ledger / "runs.csv", index=False)
    names = [cell["cell"] for cell in cells]
    compared = [[{"cell": names[0], "environment": "old"}, {"cell": names[1], "environment": "new"}]]
    config = made.shown(tuple(names), (0,), compared=compared)
    figure = made.make_here(
        "plot_environments", made.write_node(tmp_path / "figure", "plot_environments", config, {"ledger": ledger})
    )
    facts = json.loads((figure / "facts.json").read_text())
    assert facts["equal"] == (0 if changed else 1)
    assert ("differs from step 1 on" in facts["told"][0]) == changed
    assert {path.suffix for path in figure.glob("environments.*")} == {".pdf", ".png", ".svg", ".csv"}
