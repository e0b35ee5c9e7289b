"""What the trainer is asked for, and what is refused before it is started.

Tests: sft.config.trainer_extra, sft.terms.trainer_keys
"""

import json
from typing import Any

import pytest

from sft.config.nodes import TrainSettings
from sft.config.trainer_extra import ELSEWHERE, EXTRA, FIELDS, extra_faults
from sft.config.training_settings import Optimization
from sft.runtime.stage import StageError
from sft.training.training_arguments import kept_steps, micro_batch, requested_arguments, total_steps
from yaml_comments import field_at


def training(**changes: Any) -> Optimization:
    return Optimization(
        **{"learning_rate": 1e-3, "global_batch_size": 64, "max_steps": 120, "save_steps": 30} | changes
    )


def settings(**changes: Any) -> TrainSettings:
    return TrainSettings(method="full", lora=None, seed=3, precision="float32", training=training(**changes))


def test_global_batch_is_kept_whatever_the_micro_batch() -> None:
    for micro in (0, 64, 16, 1):
        made = requested_arguments(settings(), "cpu", micro, "out")
        assert made["per_device_train_batch_size"] * made["gradient_accumulation_steps"] == 64


@pytest.mark.parametrize("micro", [48, 128, -1])
def test_indivisible_micro_batch_is_refused(micro: int) -> None:
    with pytest.raises(StageError, match=r"does not divide training.global_batch_size 64. Use one of: 1, 2, 4"):
        micro_batch(64, micro)


def test_every_requested_name_is_a_field_of_the_trainer() -> None:
    fields = json.loads(FIELDS.read_text())["fields"]
    assert set(requested_arguments(settings(), "cuda", 0, "out")) <= set(fields)
    assert set(EXTRA) <= set(fields)


def test_defaults_that_hide_or_change_results_are_overridden() -> None:
    made = requested_arguments(settings(), "cpu", 0, "out")
    expected = {
        "seed": 3,
        "data_seed": 3,
        "max_length": None,
        "packing": False,
        "activation_checkpointing": False,
        "bf16": False,
        "use_cpu": True,
        "logging_nan_inf_filter": False,
        "remove_unused_columns": False,
        "report_to": "none",
        "dataloader_num_workers": 0,
    }
    assert {name: made[name] for name in expected} == expected


def test_extra_is_passed_on() -> None:
    made = requested_arguments(settings(extra={"neftune_noise_alpha": 5.0}), "cpu", 0, "out")
    assert made["neftune_noise_alpha"] == 5.0


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ({"neftune_alpha": 5.0}, "Did you mean neftune_noise_alpha?"),
        ({"learning_rate": 1.0}, "is set by training.learning_rate"),
        ({"gradient_accumulation_steps": 2}, "training.global_batch_size and execution.micro_batch_size"),
        ({"save_total_limit": 2}, "is fixed by this workflow"),
        ({"padding_free": True}, "is fixed by this workflow"),
        ({"packing": True}, "is set by training.packing"),
        ({"label_smoothing_factor": "0.1"}, "'0.1' is a str. It must be float"),
        ({"dataloader_persistent_workers": 1}, "1 is a int. It must be bool"),
        ({"activation_offloading": True}, "is set by training.activation_offloading"),
        ({"torch_compile": True}, "is set by training.compile"),
        ({"train_sampling_strategy": "group_by_length"}, "cannot be resumed in the same order"),
    ],
)
def test_wrong_extra_is_refused_in_words(extra: dict[str, Any], said: str) -> None:
    faults = extra_faults(extra)
    assert len(faults) == 1
    key, problem, fix = faults[0]
    assert key == next(iter(extra))
    assert said in f"{problem}. {fix}"


def test_all_faults_of_extra_are_told() -> None:
    assert [key for key, _, _ in extra_faults({"max_length": 512, "loss_type": "nll", "bf16": True, "x": 1})] == [
        "max_length",
        "bf16",
        "x",
    ]


@pytest.mark.parametrize("name", ELSEWHERE)
def test_a_field_with_a_key_of_its_own_is_told_a_key_that_exists(name: str) -> None:
    assert name in json.loads(FIELDS.read_text())["fields"], "the trainer has no such field"
    for key in ELSEWHERE[name].split(" and "):
        assert field_at(("experiments", "x", *key.split("."))), f"no key {key}"
    assert not field_at(("experiments", "x", "tokenize", "max_length")), "the test would not see a key that is none"


def test_right_extra_is_accepted() -> None:
    assert extra_faults({"label_smoothing_factor": 0.1, "lr_scheduler_kwargs": {"num_cycles": 1}}) == []
    assert extra_faults({"optim_args": None, "dataloader_num_workers": 2}) == []


@pytest.mark.parametrize(
    ("changes", "rows", "steps"),
    [
        ({}, 1237, 120),
        ({"max_steps": None, "num_train_epochs": 1.0}, 128, 2),
        ({"max_steps": None, "num_train_epochs": 3.0}, 129, 9),
        ({"max_steps": None, "num_train_epochs": 0.5}, 129, 2),
    ],
)
def test_total_steps(changes: dict[str, Any], rows: int, steps: int) -> None:
    assert total_steps(training(**changes), rows) == steps


def test_kept_steps_always_hold_the_last() -> None:
    assert kept_steps(training(), 120) == [30, 60, 90, 120]
    assert kept_steps(training(), 100) == [30, 60, 90, 100]
    assert kept_steps(training(save_steps=None), 100) == [100]


@pytest.mark.slow
def test_field_list_is_that_of_the_installed_trl() -> None:
    from make_trainer_fields import trainer_fields

    assert json.loads(FIELDS.read_text()) == trainer_fields(), "run python tools/make_trainer_fields.py"
