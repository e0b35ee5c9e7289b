"""Time that jobs ask for where the configuration does not say."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from small_studies import DIGITS

from sft.config.reader import load
from sft.estimates.job_memory import job_mib
from sft.estimates.job_time import LEAST_MINUTES, LONGEST_TRAINING_MINUTES, job_minutes, job_seconds
from sft.estimates.run_estimates import of_run, shape_of
from sft.planning.node import Node
from sft.planning.plan import Plan
from sft.planning.planner import make_plan
from whole_manifest import output, whole

LARGE = {"initialise": "llama", "hidden_size": 2048, "num_layers": 16}
TRAINING = {"learning_rate": 1e-3, "global_batch_size": 8, "max_steps": 3000, "max_length": 512}
RULES = ("train_model", "convert_checkpoint", "predict")
ROWS, TOKENS = 1000, 200_000


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def plan_of(source: dict[str, Any] = LARGE, method: str = "full", **changes: Any) -> Plan:
    training, execution = changes.pop("training", {}), {"device": "cpu"} | changes.pop("execution", {})
    experiment = {"dataset": "d", "model": "m", "method": method, "training": TRAINING | training}
    experiment |= {"execution": execution} | changes
    study = {"datasets": {"d": DIGITS}, "models": {"m": {"source": source}}, "experiments": {"e": experiment}}
    Path("study.yaml").write_text(yaml.safe_dump(study))
    return make_plan(load([Path("study.yaml")]))


def one(plan: Plan, rule: str) -> Node:
    [node] = plan.of_rule(rule)
    return node


def with_rows(plan: Plan, packs: int | None = None) -> Plan:
    """Its data made: 1000 training rows of 200 tokens each, 100 validation rows, 500 test rows."""
    splits = {
        "train": {"rows_kept": ROWS, "tokens": TOKENS},
        "validation": {"rows_kept": 100, "tokens": 20_000},
    }
    for node in plan.of_rule("tokenize_dataset"):
        Path(node.directory).mkdir(parents=True, exist_ok=True)
        labels = {"splits": splits, "packed": {"packs": packs} if packs else None}
        Path(node.directory, "labels.json").write_text(json.dumps(labels))
    for node in plan.of_rule("split_dataset"):
        Path(node.directory).mkdir(parents=True, exist_ok=True)
        made = whole(facts={"rows": {"test": 500}}, outputs={"test.parquet": output(bytes=500 * 300)})
        Path(node.directory, "manifest.json").write_text(json.dumps(made))
    return plan


def test_what_is_written_counts_for_trainings_and_predictions() -> None:
    plan = with_rows(plan_of(execution={"runtime_minutes": 7}))
    assert [job_minutes(one(plan, rule)) for rule in ("train_model", "predict")] == [7, 7]
    assert job_minutes(one(plan, "convert_checkpoint")) >= LEAST_MINUTES


def test_before_rows_or_model_are_there() -> None:
    """An hour is asked for, but for a training whose steps are known: its rows are at most so long."""
    unknown = {"wheel": "a-model==1.0", "sha256": "0" * 64, "gguf": "*.gguf"}
    epochs = {"max_steps": None, "num_train_epochs": 2}
    early = plan_of(training={"max_steps": 100})
    assert [job_minutes(one(early, rule)) for rule in RULES[1:]] == [LEAST_MINUTES] * 2
    at_most = job_seconds(one(early, "train_model"))
    then = job_seconds(one(with_rows(early), "train_model"))
    fixed = 100 * 0.2 + 12 * shape_of(one(early, "train_model")).parameters / 200e6
    assert at_most - fixed == pytest.approx((then - fixed) * 512 / 200)
    for plan in (plan_of(training=epochs | {"max_length": 500}), with_rows(plan_of(unknown))):
        assert [job_minutes(one(plan, rule)) for rule in RULES[:2]] == [LEAST_MINUTES] * 2


def test_damaged_files_are_unknown_ones() -> None:
    """They are told and made again by those who check them; the question for resources must not end before that."""
    plan = with_rows(plan_of({"initialise": "llama", "hidden_size": 64, "num_layers": 2}))
    train, model = one(plan, "train_model"), one(plan, "download_model")
    known = job_mib(train)
    [tokens] = plan.of_rule("tokenize_dataset")
    labels, config = Path(tokens.directory, "labels.json"), Path(model.directory, "model/config.json")
    assert job_seconds(train) is not None
    texts = ("{", "[]", '{"splits": {"tr', '{"splits": {"train": {}}}', '{"splits": 3}', '{"hidden_size": "x"}')
    for file in (labels, config):  # the model's last, without which nothing is asked of the rows
        file.parent.mkdir(parents=True, exist_ok=True)
        for age, damaged in enumerate(texts):
            file.write_text(damaged)
            os.utime(file, ns=(age, age))
            assert job_minutes(one(plan, "predict")) == LEAST_MINUTES
            assert job_minutes(train) == LEAST_MINUTES
            assert job_mib(train) == known
    assert of_run(train) is None


def test_small_work_takes_an_hour_at_most() -> None:
    plan = with_rows(plan_of({"initialise": "llama", "hidden_size": 64, "num_layers": 2}, training={"max_steps": 10}))
    assert [job_minutes(one(plan, rule)) for rule in RULES] == [LEAST_MINUTES] * 3


def test_training_by_its_arithmetic() -> None:
    plan = with_rows(plan_of(execution={"threads": 4}))
    train = one(plan, "train_model")
    parameters = shape_of(train).parameters
    arithmetic = 6 * parameters * 3000 * 8 * 200 / 4e10
    assert job_seconds(train) == pytest.approx(arithmetic + 3000 * 0.2 + 12 * parameters / 200e6)
    # So much is asked for in pieces.
    assert job_seconds(train) > 24 * 3600
    assert job_minutes(train) == LONGEST_TRAINING_MINUTES


def test_a_device_is_faster_and_several_share_the_work() -> None:
    spread = {"distributed": {"strategy": "ddp", "processes": 4}}
    alone, four, float32, adapters = (
        job_seconds(
            one(
                with_rows(plan_of(LARGE, method, execution={"device": "cuda"}, training=given | {"max_steps": 30_000})),
                "train_model",
            )
        )
        - 30_000 * 0.2
        for method, given in (
            ("full", {"precision": "bfloat16"}),
            ("full", {"precision": "bfloat16"} | spread),
            ("full", {"precision": "float32"}),
            ("lora", {"precision": "bfloat16"}),
        )
    )
    assert four == pytest.approx(alone / 4, rel=0.05)
    assert float32 == pytest.approx(4 * alone, rel=0.05)
    assert adapters == pytest.approx(alone * 4 / 6, rel=0.05)


def test_epochs_packs_checkpointing_and_looks_at_validation_rows_count() -> None:
    epochs = {"max_steps": None, "num_train_epochs": 2}
    seconds = [
        job_seconds(one(with_rows(plan_of(training=epochs | more), packs), "train_model"))
        for more, packs in (
            ({}, None),
            ({"packing": "bfd_split"}, 400),
            ({"activation_checkpointing": True}, None),
            ({"eval_steps": 50}, None),
        )
    ]
    parameters = shape_of(one(plan_of(), "train_model")).parameters
    saved = 12 * parameters / 200e6
    tokens = 2 * TOKENS
    assert seconds[0] == pytest.approx(6 * parameters * tokens / 1e10 + 250 * 0.2 + saved)
    assert seconds[1] == pytest.approx(6 * parameters * tokens / 1e10 + 100 * 0.2 + saved)
    assert seconds[2] == pytest.approx(8 * parameters * tokens / 1e10 + 250 * 0.2 + saved)
    assert seconds[3] == pytest.approx(seconds[0] + 5 * 2 * parameters * 20_000 / 1e10)


def test_predictions_count_models_rows_tokens_and_what_their_process_makes() -> None:
    saved = {"save_steps": 1000}
    last, every = (
        one(with_rows(plan_of(training=saved, evaluation={"checkpoints": kept})), "predict") for kept in ("last", "all")
    )
    parameters = shape_of(last).parameters
    conversion = 3 * 8 * 4 * parameters / 200e6
    assert job_seconds(one(with_rows(plan_of(training=saved)), "convert_checkpoint")) == pytest.approx(conversion)
    a_model = 2 * parameters * 500 * (2 * 200 + 32) / 1e10 + 16 * 32 * 0.05
    assert job_seconds(last) == pytest.approx(2 * a_model + conversion)
    assert job_seconds(every) == pytest.approx(4 * a_model + conversion)
    assert job_minutes(every) > LONGEST_TRAINING_MINUTES  # nothing of it would go on in another job
    # With a device conversions have jobs of their own, which hold none.
    device = with_rows(plan_of(training=saved, execution={"device": "cuda"}))
    generated = 4 * 16 * 32 * 0.05
    assert job_seconds(one(device, "predict")) - generated == pytest.approx(4 * (a_model - generated / 4) * 1e10 / 5e12)


def test_a_published_base_is_asked_in_a_job_of_its_own_or_of_the_only_run() -> None:
    published = Path("published")
    published.mkdir()
    shape = {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32}
    (published / "config.json").write_text(json.dumps(shape | {"vocab_size": 32_000}))
    alone, many = (with_rows(plan_of({"path": "published"}, seeds=seeds)) for seeds in ([0], [0, 1]))
    parameters = shape_of(one(alone, "train_model")).parameters
    base = 2 * parameters * 500 * (2 * 300 + 32) / 1e10 + 16 * 32 * 0.05  # nobody counted tokens: bytes
    conversion = 8 * 4 * parameters / 200e6
    answers = 2 * parameters * 500 * (2 * 200 + 32) / 1e10 + 16 * 32 * 0.05
    assert job_seconds(one(many, "ask_base")) == pytest.approx(base)
    assert [job_seconds(node) for node in many.of_rule("predict")] == pytest.approx([answers + conversion] * 2)
    assert job_seconds(one(alone, "predict")) == pytest.approx(answers + conversion + base)
