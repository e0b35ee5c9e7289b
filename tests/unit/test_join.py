"""Which small results are made by another one's job."""

from collections import Counter
from pathlib import Path

import pytest
import yaml
from small_studies import DIGITS

from sft.config.reader import load
from sft.planning.plan import Plan
from sft.planning.planner import make_plan
from sft.workflow import Attached

ROOT = Path(__file__).resolve().parents[2]


def joined(plan: Plan) -> Counter[tuple[str, str]]:
    return Counter((node.rule, node.made_with.rule) for node in plan.nodes.values() if node.made_with)


@pytest.fixture
def default() -> dict:
    return yaml.safe_load((ROOT / "config/config.yaml").read_text())


def plan_of(study: dict, directory: Path) -> Plan:
    (directory / "study.yaml").write_text(yaml.safe_dump(study))
    return make_plan(load([directory / "study.yaml"]))


def test_what_one_job_needs_joins_it(default, tmp_path):
    """The first experiment's conversions start the second's runs, so they are jobs of their own."""
    plan = plan_of(default, tmp_path)
    assert joined(plan) == {("convert_checkpoint", "predict"): 9, ("download_model", "train_model"): 3}
    for node in plan.nodes.values():
        assert all(first.made_with is node for first in node.first)
        assert node.document().get("first", []) == [first.directory for first in node.first]


def test_a_job_that_holds_a_gpu_makes_nothing_besides(default, tmp_path):
    default["execution"]["device"] = "cuda"
    assert joined(plan_of(default, tmp_path)) == {}


def test_a_hundred_experiments_prepare_and_tokenise_once(tmp_path):
    """One node for each content key, however many runs ask for it; what changes the tokens asks for others."""
    split = {"train": "*", "test": {"fraction": 0.1}, "validation": {"fraction": 0.1}}
    words = {"source": {"package": "scikit-learn", "name": "digits"}, "format": "multiple_choice", "split": split}
    words |= {"prompt_key": "question", "choice_key": "choices", "answer_key": "answer"}
    training = {"global_batch_size": 8, "max_steps": 2, "max_length": 64}
    experiments = {
        f"e{n}": {"dataset": "d", "model": "m", "method": "full", "training": training | {"learning_rate": n * 1e-5}}
        for n in range(1, 101)
    }
    study = {"datasets": {"d": words}, "models": {"m": {"source": {"initialise": "llama"}}}, "experiments": experiments}
    plan = plan_of(study, tmp_path)
    once = ("download_dataset", "prepare_dataset", "split_dataset", "download_processor", "tokenize_dataset")
    count = Counter(node.rule for node in plan.nodes.values())
    assert {rule: count[rule] for rule in (*once, "train_model")} == dict.fromkeys(once, 1) | {"train_model": 100}
    experiments["e7"]["training"] = experiments["e7"]["training"] | {"max_length": 65}
    assert Counter(node.rule for node in plan_of(study, tmp_path).nodes.values())["tokenize_dataset"] == 2


def test_weights_that_several_runs_start_from_are_a_job(default, tmp_path):
    default["models"]["tiny_qwen2_5_vl"]["source"]["seed"] = 7
    assert joined(plan_of(default, tmp_path)) == {("convert_checkpoint", "predict"): 9}


def test_jobs_wait_for_the_job_that_makes_what_they_need(default, tmp_path):
    plan = plan_of(default, tmp_path)
    attached = Attached(plan, {})
    attached.fresh = lambda directory: True
    without_job = {node.manifest for node in plan.nodes.values() if node.made_with}
    for node in plan.nodes.values():
        needed = attached.needs(node.directory)
        assert not without_job & set(needed)
        assert node.manifest not in needed
        jobs = [above.made_with or above for above in node.inputs.values()]
        assert {job.manifest for job in jobs if job is not node} <= set(needed)


def test_a_hundred_experiments_on_the_same_rows_tokenise_them_once(tmp_path: Path) -> None:
    """What a run does with tokens (learning rate, method, seed, batch) is no part of how they are made."""
    training = {"global_batch_size": 8, "max_steps": 2, "max_length": 64}
    study = {
        "datasets": {"d": DIGITS},
        "models": {"m": {"source": {"initialise": "llama"}}},
        "experiments": {
            f"e{i}": {
                "dataset": "d",
                "model": "m",
                "method": ("full", "lora")[i % 2],
                "seeds": [i, i + 1],
                "training": training | {"learning_rate": 1e-4 * (i + 1), "global_batch_size": 4 << (i % 3)},
            }
            for i in range(100)
        },
    }
    plan = plan_of(study, tmp_path)
    assert len(plan.of_rule("train_model")) == 200
    shared = (
        "download_dataset",
        "prepare_dataset",
        "split_dataset",
        "tokenize_dataset",
        "audit_splits",
        "audit_labels",
    )
    assert {rule: len(plan.of_rule(rule)) for rule in shared} == dict.fromkeys(shared, 1)
