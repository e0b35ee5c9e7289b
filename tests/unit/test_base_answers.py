"""A published model is asked once and moves no name; baselines, and the split that is asked, in the plan.

Tests: sft.planning.evaluation_plan
"""

import argparse
import copy
from pathlib import Path
from typing import Any

import made_up_experiment as made
import pytest
import yaml
from small_studies import DIGITS

import predict
from sft.cli import check
from sft.config.errors import ConfigError
from sft.config.reader import load
from sft.planning.plan import Plan
from sft.planning.planner import make_plan
from sft.runtime.stage import Stage, StageError

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
TRAINING = {"learning_rate": 1e-3, "global_batch_size": 64, "max_steps": 20, "max_length": 64}


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.chdir(tmp_path)
    Path("published").mkdir()
    variants = {"full": {"method": "full"}, "lora": {"method": "lora"}}
    experiment = {"dataset": "d", "model": "m", "seeds": [0, 1], "variants": variants, "training": TRAINING}
    return {
        "datasets": {"d": DIGITS, "other": {**DIGITS, "image_transform": "invert"}},
        "models": {"m": {"source": {"path": "published"}}, "made": {"source": {"initialise": "llama", "seed": 1}}},
        "experiments": {"e": experiment},
    }


def plan_of(study: dict[str, Any]) -> Plan:
    Path("study.yaml").write_text(yaml.safe_dump(study))
    return make_plan(load([Path("study.yaml")]))


def problem(study: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as error:
        plan_of(study)
    return str(error.value)


def test_a_published_model_is_asked_once_for_all_cells_and_seeds(study):
    plan = plan_of(study)
    (base,) = plan.of_rule("ask_base")
    asked = plan.of_rule("predict")
    assert len(asked) == 4
    assert all(node.inputs["base"] is base for node in asked)
    assert base.made_with is None


def test_asked_otherwise_it_is_asked_again(study):
    study["experiments"]["e"]["variants"]["lora"]["evaluation"] = {"max_new_tokens": 5}
    assert len(plan_of(study).of_rule("ask_base")) == 2
    study["experiments"]["e"]["variants"]["lora"] = {"method": "lora", "training": {"control_tokens": "neutralise"}}
    plan = plan_of(study)
    assert {node.config.get("control_tokens") for node in plan.of_rule("ask_base")} == {None, "neutralise"}
    for node in plan.of_rule("predict"):
        assert node.inputs["base"].config.get("control_tokens") == node.config.get("control_tokens")
    # Which of a run's checkpoints are asked is nothing to the base model.
    study["experiments"]["e"]["variants"]["lora"] = {"method": "lora", "evaluation": {"checkpoints": "last"}}
    assert len(plan_of(study).of_rule("ask_base")) == 1


def test_the_only_run_of_a_model_asks_it_within_its_own_job(study):
    study["experiments"]["e"] |= {"seeds": [0], "variants": {"full": {"method": "full"}}}
    plan = plan_of(study)
    (base,), (asked,) = plan.of_rule("ask_base"), plan.of_rule("predict")
    assert base.made_with is asked
    assert base in asked.first


def test_models_made_from_a_seed_are_asked_by_their_runs(study):
    study["experiments"]["e"]["model"] = "made"
    plan = plan_of(study)
    assert plan.of_rule("ask_base") == []
    assert all("base" not in node.inputs for node in plan.of_rule("predict"))


def test_a_run_that_starts_from_a_run_asks_that_run_once(study):
    study["experiments"]["further"] = {**study["experiments"]["e"], "model": {"run": "e/full"}}
    plan = plan_of(study)
    bases = {run.seed: set() for run in plan.runs["further"]}
    for run in plan.runs["further"]:
        bases[run.seed].add(run.scores.inputs["predictions"].inputs["base"].directory)
    assert [len(of_seed) for of_seed in bases.values()] == [1, 1]
    assert bases[0] != bases[1]


def test_answers_of_the_base_are_no_part_of_an_evaluations_name(study):
    node = plan_of(study).of_rule("predict")[0]
    assert "base" in node.document()["inputs"]
    assert "base" not in node.identity["from"]
    without = copy.copy(node)
    without.inputs = {name: above for name, above in node.inputs.items() if name != "base"}
    for cached in ("digest", "identity", "id", "directory"):
        without.__dict__.pop(cached, None)
    assert (without.digest, without.directory) == (node.digest, node.directory)


def test_evaluations_of_shipped_experiments_kept_their_names():
    """As they were when each run asked its base itself, and before a split could be chosen."""
    plan = make_plan(load([ROOT / "config/experiments/wordnet_supersense.yaml"]))
    names = {node.id for node in plan.of_rule("predict")}
    assert len(names) == 6
    assert "wordnet_supersenses-3bed132c" in names


def test_validation_is_asked_under_names_of_its_own(study):
    test = plan_of(study)
    study["experiments"]["e"]["evaluation"] = {"split": "validation"}
    validation = plan_of(study)
    assert [run.train.id for run in test.runs["e"]] == [run.train.id for run in validation.runs["e"]]
    for run in validation.runs["e"]:
        assert run.scores.config["split"] == "validation"
        assert run.scores.directory not in test.nodes
    assert {node.id for node in test.of_rule("ask_base")}.isdisjoint(n.id for n in validation.of_rule("ask_base"))
    ledger = validation.nodes["results/experiments/e/ledger"]
    assert ledger.config["split"] == "validation"
    assert "split" not in test.nodes["results/experiments/e/ledger"].config


def test_validation_rows_of_other_data_sets_are_audited(study):
    study["experiments"]["e"] |= {"evaluate_on": ["d", "other"], "evaluation": {"split": "validation"}}
    (audit,) = plan_of(study).of_rule("audit_splits")
    other = audit.inputs["test-1"]
    assert {name: node for name, node in audit.inputs.items() if name.startswith("validation-")} == {
        "validation-0": other
    }


def test_cells_with_the_same_rows_share_a_baseline_and_others_have_their_own(study):
    study["experiments"]["e"]["baselines"] = {"words": {"method": "bag_of_words"}}
    plan = plan_of(study)
    assert len(plan.of_rule("fit_baseline")) == 1
    ledger = plan.nodes["results/experiments/e/ledger"]
    assert ledger.config["baselines"] == [{"name": "words", "label": "words", "cells": ["full", "lora"]}]
    assert ledger.inputs["baseline-scores-0"].inputs["predictions"] is ledger.inputs["baseline-0"]
    cells = {f"rows-{n}": {"method": "full", "dataset": {"mix": {"d": n}}} for n in (100, 200)}
    study["experiments"]["e"] |= {"variants": cells}
    plan = plan_of(study)
    ledger, figure = (plan.nodes[f"results/experiments/e/{place}"] for place in ("ledger", "figures/rows"))
    assert [one["label"] for one in ledger.config["baselines"]] == ["words_rows-100", "words_rows-200"]
    assert figure.config["lines"] == [{"name": "full", "points": [[100, "rows-100"], [200, "rows-200"]]}]


def test_runs_keep_their_names_when_a_baseline_joins(study):
    before = plan_of(study)
    study["experiments"]["e"]["baselines"] = {"words": {"method": "bag_of_words"}}
    after = plan_of(study)
    assert [run.scores.directory for run in before.runs["e"]] == [run.scores.directory for run in after.runs["e"]]


def test_a_figure_over_rows_needs_cells_that_differ_in_rows_alone(study):
    assert "results/experiments/e/figures/rows" not in plan_of(study).nodes
    mixed = {f"rows-{n}": {"method": "full", "dataset": {"mix": {"d": n}}, "training.max_steps": n} for n in (5, 10)}
    study["experiments"]["e"]["variants"] = mixed
    assert "results/experiments/e/figures/rows" not in plan_of(study).nodes


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"baselines": {"full": {"method": "bag_of_words"}}}, "e.baselines.full: a cell has this name"),
        ({"baselines": {"words": {"method": "bag_of_words", "c": [1, 0]}}}, "baselines.words.c: 0 is no strength"),
        ({"baselines": {"words": {"method": "bag_of_word"}}}, "Did you mean"),
        ({"variants": {"a": {"method": "full"}, "b": {"method": "full", "evaluation.split": "validation"}}},
         "some cells are asked about test rows and some about validation rows"),
    ],
)  # fmt: skip
def test_what_cannot_be_shown_together_is_refused(study, change: dict, told: str):
    study["experiments"]["e"] |= change
    assert told in problem(study)


def test_a_bag_of_words_needs_choices(study):
    study["datasets"]["d"] = {**DIGITS, "format": "prompt_completion", "completion_key": "completion"}
    study["experiments"]["e"]["baselines"] = {"words": {"method": "bag_of_words"}}
    assert "a bag of words chooses among choices, and data set d is prompt_completion" in problem(study)


def test_answers_to_other_prompts_are_not_taken_for_a_runs_own(tmp_path: Path):
    """Without it, a base model that was asked with another template would be compared with the run's models."""
    base = made.finish_node(tmp_path / "base", "ask_base", {}, {}, facts={"prompts": {"d-1": "abc"}})
    stage = Stage(made.write_node(tmp_path / "node", "predict", {}, {"base": base}), argparse.Namespace(threads=1))
    with pytest.raises(StageError, match=r"base: the base model was asked other prompts .*Delete .*manifest.json"):
        predict._answers_of_base(stage, base, {"d-1": "abd"})


def test_check_tells_of_settings_that_are_compared_on_test_rows(study, capsys: pytest.CaptureFixture):
    rates = {f"r{n}": {"method": "full", "training": {"learning_rate": n * 1e-3}} for n in (1, 2, 3, 4)}
    study["experiments"]["e"]["variants"] = rates | {"lora": {"method": "lora"}}
    check.print_chosen_on_test(plan_of(study))
    assert capsys.readouterr().out == (
        "note: 4 cells of e (r1, r2, r3, …) differ in training: alone and are scored on test rows; "
        "to choose one of them, set evaluation.split: validation\n"
    )
    study["experiments"]["e"]["evaluation"] = {"split": "validation"}
    check.print_chosen_on_test(plan_of(study))
    assert capsys.readouterr().out == ""
