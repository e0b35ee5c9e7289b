"""The command that trains a run, what DeepSpeed is given, and whether a checkpoint fits how a run is spread.

Tests: sft.terms.strategies, sft.training.deepspeed_config
"""

import argparse
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

import train_model
from sft.config.errors import ConfigError
from sft.config.experiment import Cell
from sft.config.fields import key_fields
from sft.config.nodes import TrainSettings
from sft.config.reader import load
from sft.config.training_settings import Optimization, Training
from sft.runtime import launch
from sft.runtime.stage import StageError
from sft.training import deepspeed_config
from sft.training.gathered_state import require_same_layout

TRAINING = {"learning_rate": 1e-3, "global_batch_size": 64, "max_steps": 4, "max_length": 64, "max_grad_norm": 0.5}


@pytest.mark.parametrize("strategy", launch.STRATEGIES)
def test_trainer_understands_the_options_that_rules_give_it(strategy: str) -> None:
    asked = {"strategy": strategy, "processes": 1, "nodes": 1, "offload": False}
    if strategy != "none":
        asked |= {"processes": 8, "nodes": 2, "offload": strategy.startswith("deepspeed")}
    parser = argparse.ArgumentParser()
    train_model.add_options(parser)
    found = vars(parser.parse_args(launch.options(asked)))
    assert {name: found[name] for name in asked} == asked


def run_of(strategy: str, micro: int | None = None, precision: str = "float32", **distributed: Any) -> Any:
    cell = Cell(dataset="d", model="m", method="full", training=TRAINING | {"precision": precision})
    training = Optimization.part_of(cell.training)
    settings = TrainSettings(method="full", lora=None, seed=0, precision=precision, training=training)
    spread = {"strategy": strategy, "processes": 8, "nodes": 1, "offload": False} | distributed
    return settings, {"device": "cuda", "micro_batch_size": micro, "distributed": spread}


def test_deepspeed_is_given_what_our_keys_say() -> None:
    given = deepspeed_config.of_run(*run_of("deepspeed_zero3", micro=2, precision="bfloat16", offload=True))
    assert (given["train_micro_batch_size_per_gpu"], given["gradient_accumulation_steps"]) == (2, 4)
    assert given["gradient_clipping"] == 0.5
    assert given["torch_autocast"] == {"enabled": True, "dtype": "bfloat16"}
    assert "bf16" not in given
    zero = given["zero_optimization"]
    assert zero["stage"] == 3
    assert zero["offload_optimizer"]["device"] == zero["offload_param"]["device"] == "cpu"
    second = deepspeed_config.of_run(*run_of("deepspeed_zero2", offload=True))["zero_optimization"]
    assert second["stage"] == 2
    assert "offload_param" not in second
    assert deepspeed_config.of_run(*run_of("fsdp2")) is None


def test_a_compilation_that_was_killed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch waits for its lock for ever: the file is where torch itself looks for it."""
    from torch.utils import cpp_extension

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("TORCH_EXTENSIONS_DIR", raising=False)
    assert deepspeed_config.waits_for() is None
    for folder in (None, tmp_path / "extensions"):
        if folder:
            monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(folder))
        lock = Path(cpp_extension._get_build_directory("deepspeed_shm_comm", verbose=False)) / "lock"
        lock.touch()
        assert f"{lock} is there" in deepspeed_config.waits_for()


def test_backend_is_part_of_the_identity_and_the_default_adds_nothing() -> None:
    stock, other = (Training(**TRAINING, backend=name) for name in ("trl", "unsloth"))
    assert "backend" not in key_fields(stock)
    assert key_fields(other)["backend"] == "unsloth"


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"distributed": {"strategy": "ddp", "processes": 2}}, "one process"), ({"attention": "eager"}, "brings its own")],
)
def test_what_unsloth_does_not_share_is_refused(changes, said) -> None:
    with pytest.raises(ValidationError, match=said):
        Training(**TRAINING | changes, backend="unsloth")


def test_offloading_is_no_part_of_the_identity() -> None:
    plain, offloaded = (
        Training(**TRAINING, distributed={"strategy": "deepspeed_zero3", "processes": 8, "offload": offload})
        for offload in (False, True)
    )
    assert plain != offloaded
    assert key_fields(plain) == key_fields(offloaded)


CONFIG = """\
datasets:
  d: {source: {package: scikit-learn, name: digits}, format: multiple_choice, prompt_key: question, choice_key: choices,
      answer_key: correct_answer, split: {validation: {rows: 200}}}
models: {m: {source: {initialise: qwen2_5_vl}}}
experiments:
  e:
    dataset: d
    model: m
    method: full
    environment: ENVIRONMENT
    training: {learning_rate: 1e-3, global_batch_size: 8, max_steps: 4, max_length: 64,
               distributed: {strategy: STRATEGY, processes: 2}}
"""


@pytest.mark.parametrize(
    ("environment", "strategy", "said"),
    [
        ("null", "deepspeed_zero2", "needs DeepSpeed, which the project's own environment does not have"),
        ("cpu", "deepspeed_zero3", "needs DeepSpeed, which environment cpu does not have"),
        ("cpu-deepspeed", "deepspeed_zero3", None),
        ("null", "fsdp1", None),
    ],
)
def test_environment_has_to_have_what_a_strategy_needs(tmp_path: Path, environment, strategy, said) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(CONFIG.replace("ENVIRONMENT", environment).replace("STRATEGY", strategy))
    if said is None:
        assert load([file]).experiments["e"].cells
        return
    with pytest.raises(ConfigError, match=said):
        load([file])


@pytest.mark.parametrize(
    ("saved_by", "strategy", "processes", "fits"),
    [
        (("deepspeed_zero3", 2), "deepspeed_zero3", 2, True),
        (("deepspeed_zero3", 2), "deepspeed_zero3", 4, False),
        (("deepspeed_zero3", 2), "deepspeed_zero2", 2, False),
        (("deepspeed_zero2", 2), "none", 1, False),
        (("none", 1), "deepspeed_zero2", 2, False),
        (("fsdp1", 2), "fsdp2", 4, True),
    ],
)
def test_deepspeed_state_fits_the_same_layout_only(saved_by, strategy, processes, fits) -> None:
    if fits:
        require_same_layout(Path("checkpoint-2"), saved_by, strategy, processes)
        return
    with pytest.raises(StageError, match="fits the same strategy on as many processes only"):
        require_same_layout(Path("checkpoint-2"), saved_by, strategy, processes)


def test_adapters_that_cannot_be_saved_from_fsdp1_are_refused() -> None:
    spread = TRAINING | {"distributed": {"strategy": "fsdp1", "processes": 2}}
    with pytest.raises(ValidationError, match="PEFT does not save it"):
        Cell(dataset="d", model="m", method="lora", lora={"use_dora": True}, training=spread)
