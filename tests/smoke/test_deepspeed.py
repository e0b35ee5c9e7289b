"""ZeRO on two processes without a GPU: the rows and numbers of one process, stops that go on, a proven model.

DeepSpeed has an environment of its own, in which these tests run by themselves: make test-deepspeed.
"""

import json
from pathlib import Path

import pytest
import small_runs
import torch
import training_nodes as runs
from spread_runs import BOUND, FP8_BOUND, assert_close, digest, run_of, spread_over, stopped, train_spread

from sft.conversion.merge import ADAPTER_FILES
from sft.models.weight_files import WeightFiles
from sft_command import sft

pytest.importorskip("deepspeed", reason="DeepSpeed is in an environment of its own: make test-deepspeed")
pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("kind", "method", "strategy", "options"),
    [
        ("text", "lora", "deepspeed_zero2", ("--micro-batch-size", "1")),
        ("vision", "full", "deepspeed_zero2", ("--offload",)),
        ("text", "full", "deepspeed_zero3", ()),
        ("vision", "lora", "deepspeed_zero3", ("--micro-batch-size", "1")),
    ],
)
def test_same_run_as_on_one_process(few_rows, tmp_path: Path, kind, method, strategy, options) -> None:
    alone = runs.train_well(run_of(tmp_path / "alone", few_rows[kind], method))
    spread = train_spread(run_of(tmp_path / "spread", few_rows[kind], method), strategy, 2, *options)
    assert_close(alone, spread)
    told = json.loads((spread / "effective.json").read_text())
    assert (told["distributed"]["strategy"], told["distributed"]["world_size"]) == (strategy, 2)
    assert told["effective"]["deepspeed"]["zero_optimization"]["stage"] == int(strategy[-1])
    if strategy == "deepspeed_zero3":
        assert max(told["distributed"]["parameters_by_rank"]) < 0.6 * told["distributed"]["parameters"]


@pytest.mark.parametrize(
    ("method", "settings", "strategy", "bound"),
    [
        ("lora", {"quantization": "nf4"}, "deepspeed_zero2", BOUND),
        ("full", {"float8": "tensorwise", "float8_emulated": True}, "deepspeed_zero3", FP8_BOUND),
    ],
    ids=["nf4", "float8"],
)
def test_methods_take_the_steps_of_one_process(few_rows, tmp_path, method, settings, strategy, bound) -> None:
    nodes = few_rows["text"]
    alone = runs.train_well(run_of(tmp_path / "alone", nodes, method, **settings), "--micro-batch-size", "4")
    spread = train_spread(run_of(tmp_path / "spread", nodes, method, **settings), strategy)
    assert_close(alone, spread, bound)
    if method == "lora":
        small_runs.converted(spread, nodes, "lora", tmp_path / "float32")


@pytest.mark.parametrize("strategy", ["deepspeed_zero2", "deepspeed_zero3"])
def test_whole_copies_beside_an_adapter_are_saved_and_shipped(few_rows, tmp_path: Path, strategy: str) -> None:
    nodes, lora = few_rows["text"], runs.LORA | {"dropout": 0.0, "target_modules": ["q_proj"]}
    settings = {"lora": lora | {"modules_to_save": ["norm"]}}
    one = runs.train_well(run_of(tmp_path / "one", nodes, "lora", **settings), "--micro-batch-size", "4")
    spread = train_spread(run_of(tmp_path / "spread", nodes, "lora", **settings), strategy)
    assert_close(one, spread)
    stored = [WeightFiles(run / "checkpoints/checkpoint-4", ADAPTER_FILES[1]) for run in (one, spread)]
    assert stored[0].keys() == stored[1].keys()
    norm = "base_model.model.model.norm.weight"
    torch.testing.assert_close(stored[0][norm], stored[1][norm], rtol=1e-5, atol=1e-6)
    small_runs.converted(spread, nodes, "lora", tmp_path / "float32")


def test_precision_is_autocast_over_float32_weights(few_rows, tmp_path: Path) -> None:
    """bfloat16 has 8 bits: the loss is that of one process to a percent, and not that of float32."""
    alone = runs.train_well(run_of(tmp_path / "alone", few_rows["text"], "full", precision="bfloat16"))
    spread = train_spread(run_of(tmp_path / "s", few_rows["text"], "full", precision="bfloat16"), "deepspeed_zero2")
    exact = runs.train_well(run_of(tmp_path / "exact", few_rows["text"], "full"))
    first, same, other = ([row["loss"] for row in runs.rows(run)] for run in (alone, spread, exact))
    assert same == pytest.approx(first, rel=1e-2)
    assert same[0] != pytest.approx(other[0], rel=1e-6)


def test_stopped_run_goes_on_bit_by_bit_and_nowhere_else(few_rows, tmp_path: Path) -> None:
    nodes, strategy = few_rows["text"], "deepspeed_zero3"
    whole = train_spread(run_of(tmp_path / "whole", nodes, "full", save_steps=2), strategy)
    parts = stopped(run_of(tmp_path / "parts", nodes, "full", save_steps=2), strategy)
    assert runs.train(parts, "--keep-optimizer") == 1
    assert "fits the same strategy on as many processes only" in runs.log(parts)
    assert runs.train(parts, *spread_over("fsdp2")) == 1
    train_spread(parts, strategy)
    assert runs.rows(parts) == runs.rows(whole)
    assert digest(parts) == digest(whole)


def test_checkpoint_is_converted_through_the_gate(few_rows, tmp_path: Path) -> None:
    nodes = few_rows["vision"]
    run = train_spread(run_of(tmp_path / "run", nodes, "full"), "deepspeed_zero3")
    target = small_runs.converted(run, nodes, "full", tmp_path / "float32")
    # And by the tool for anybody's checkpoints, from DeepSpeed's own files.
    shards = next((run / "checkpoints/checkpoint-4").glob("global_step*"))
    command = ["convert", shards, "--output", tmp_path / "by-hand"]
    command += ["--base", nodes["model"] / "model"]
    done = sft(*command)
    assert done.returncode == 0, done.stderr

    files = [WeightFiles(target / "step-4"), WeightFiles(tmp_path / "by-hand")]
    assert set(files[0]) == set(files[1])
    assert all((files[0][name] == files[1][name]).all() for name in files[0])
