"""Memory that jobs ask for where the configuration does not say.

Tests: sft.estimates.run_estimates
"""

from pathlib import Path
from typing import Any

import pytest
import yaml
from small_studies import DIGITS

from sft.config.reader import load
from sft.estimates.estimate import MIB
from sft.estimates.job_memory import LEAST_MIB, job_mib
from sft.estimates.run_estimates import of_run, shape_of
from sft.planning.plan import Plan
from sft.planning.planner import make_plan

LARGE = {"initialise": "llama", "hidden_size": 2048, "num_layers": 16}
TRAINING = {"learning_rate": 1e-3, "global_batch_size": 8, "max_steps": 2, "max_length": 512}
RULES = ("train_model", "convert_checkpoint", "predict", "ask_base")


def plan_of(path: Path, source: dict[str, Any], method: str = "full", execution: Any = None, **training: Any) -> Plan:
    experiment = {"dataset": "d", "model": "m", "method": method, "training": TRAINING | training}
    if "deepspeed" in training.get("distributed", {}).get("strategy", ""):
        experiment["environment"] = "deepspeed"
    experiment["execution"] = {"device": "cpu"} | (execution or {})
    study = {"datasets": {"d": DIGITS}, "models": {"m": {"source": source}}, "experiments": {"e": experiment}}
    path.write_text(yaml.safe_dump(study))
    return make_plan(load([path]))


def asked(plan: Plan) -> dict[str, int]:
    """{rule: MiB} of one node of each rule that asks."""
    return {rule: job_mib(plan.of_rule(rule)[0]) for rule in RULES if plan.of_rule(rule)}


@pytest.fixture
def study(tmp_path: Path) -> Path:
    return tmp_path / "study.yaml"


def test_what_is_written_counts(study: Path) -> None:
    assert set(asked(plan_of(study, LARGE, execution={"memory_mib": 777})).values()) == {777}


def test_small_and_unknown_models_get_the_least(study: Path) -> None:
    small = {"initialise": "llama", "hidden_size": 64, "num_layers": 2}
    unknown = {"wheel": "a-model==1.0", "sha256": "0" * 64, "gguf": "*.gguf"}
    for source in (small, unknown):
        assert set(asked(plan_of(study, source)).values()) == {LEAST_MIB}


def test_on_a_cpu_a_training_asks_for_its_estimate(study: Path) -> None:
    plan = plan_of(study, LARGE)
    [train] = plan.of_rule("train_model")
    weights = 4 * shape_of(train).parameters / MIB
    found = asked(plan)
    assert of_run(train).device_bytes / MIB < found["train_model"] < 1.1 * of_run(train).device_bytes / MIB + 100
    assert 6 * weights < found["convert_checkpoint"] < 6 * weights + 1200
    assert found["predict"] == found["convert_checkpoint"]  # which is made in its process


def test_each_process_of_a_node_counts(study: Path) -> None:
    one = asked(plan_of(study, LARGE, execution={"micro_batch_size": 2}))["train_model"]
    two, spread = (
        asked(
            plan_of(
                study,
                LARGE,
                execution={"micro_batch_size": 2},
                distributed={"strategy": "ddp", "processes": 4, "nodes": nodes},
            )
        )["train_model"]
        for nodes in (1, 2)
    )
    assert 4 * one < two
    assert spread == pytest.approx(two / 2, rel=0.1)


def test_with_a_device_the_host_holds_weights_on_their_way(study: Path) -> None:
    execution = {"device": "cuda"}
    plan = plan_of(study, LARGE, execution=execution)
    weights = 4 * shape_of(plan.of_rule("train_model")[0]).parameters / MIB
    assert asked(plan)["train_model"] == pytest.approx(3000 + 1.25 * weights, abs=100)
    assert asked(plan)["predict"] == pytest.approx(3000 + 2 * weights, abs=100)  # conversions have jobs of their own
    zero3 = {"strategy": "deepspeed_zero3", "processes": 2, "offload": True}
    offloaded = asked(
        plan_of(
            study,
            LARGE,
            execution=execution,
            distributed=zero3,
        )
    )["train_model"]
    assert offloaded == pytest.approx(2 * (3000 + 2.75 * weights) + 1000 + weights, abs=100)


@pytest.mark.parametrize(("strategy", "times"), [("fsdp2", 0), ("fsdp1", 1), ("deepspeed_zero2", 1), ("ddp", 0)])
def test_who_puts_whole_weights_together_has_room_for_them(study: Path, strategy: str, times: int) -> None:
    spread = {"strategy": strategy, "processes": 2}
    plan = plan_of(study, LARGE, execution={"device": "cuda"}, distributed=spread)
    weights = 4 * shape_of(plan.of_rule("train_model")[0]).parameters / MIB
    assert asked(plan)["train_model"] == pytest.approx(2 * (3000 + 1.25 * weights) + 1000 + times * weights, abs=100)


def test_conversions_of_quantised_bases_hold_more(study: Path) -> None:
    plain, quantised = (asked(plan_of(study, LARGE, "lora", quantization=kind)) for kind in ("none", "nf4"))
    assert quantised["convert_checkpoint"] > plain["convert_checkpoint"]
