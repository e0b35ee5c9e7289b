"""Quantised bases, FP8 and compiled blocks on two processes: the series of one, stops that go on, a proven model.

One process takes the same micro batches as the two: FP8's scale is that of a micro batch, and so are the columns that
LLM.int8 leaves out.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import small_runs
import training_nodes as runs
from spread_runs import BOUND, FP8_BOUND, assert_close, digest, run_of, stopped, train_spread

pytestmark = pytest.mark.slow
NF4 = {"quantization": "nf4"}
FP8 = {"float8": "tensorwise", "float8_emulated": True}


def alone(directory: Path, nodes: dict[str, Path], method: str, settings: dict[str, Any]) -> Path:
    return runs.train_well(run_of(directory, nodes, method, **settings), "--micro-batch-size", "4")


@pytest.mark.parametrize(
    ("kind", "method", "settings"),
    [
        ("vision", "lora", NF4 | {"precision": "bfloat16", "double_quantization": False}),
        ("text", "lora", {"quantization": "int8"}),
        ("text", "full", FP8 | {"precision": "bfloat16"}),
        ("text", "full", {"compile": "default"}),
    ],
    ids=["nf4", "int8", "float8", "compile"],
)
def test_copies_take_the_steps_of_one_process(few_rows, tmp_path: Path, kind: str, method: str, settings) -> None:
    """Two parts of a sum are added in one order only, so nothing is left to differ: measured 0."""
    one = alone(tmp_path / "alone", few_rows[kind], method, settings)
    spread = train_spread(run_of(tmp_path / "spread", few_rows[kind], method, **settings), "ddp")
    assert_close(one, spread, BOUND)
    told = [json.loads((run / "effective.json").read_text())["methods"] for run in (one, spread)]
    assert told[0] == told[1]


@pytest.mark.parametrize(
    ("kind", "method", "settings", "strategy", "bound"),
    [
        ("vision", "lora", NF4, "fsdp2", BOUND),
        ("text", "full", FP8, "fsdp2", FP8_BOUND),
        ("text", "full", FP8, "fsdp1", FP8_BOUND),
    ],
    ids=["nf4", "float8", "float8-fsdp1"],
)
def test_shards_take_the_steps_of_one_process(
    few_rows, tmp_path: Path, kind: str, method: str, settings, strategy: str, bound: float
) -> None:
    one = alone(tmp_path / "alone", few_rows[kind], method, settings)
    spread = train_spread(run_of(tmp_path / "spread", few_rows[kind], method, **settings), strategy)
    assert_close(one, spread, bound)
    first = [next(row["loss"] for row in runs.rows(run) if row["split"] == "train") for run in (one, spread)]
    assert first[0] == pytest.approx(first[1], rel=BOUND)
    told = json.loads((spread / "effective.json").read_text())["distributed"]
    assert told["sharded_parameters"] == told["parameters"]
    assert max(told["parameters_by_rank"]) < 0.6 * told["parameters"]


@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_four_bit_stops_goes_on_and_is_shipped_as_trained(few_rows, tmp_path: Path, strategy: str) -> None:
    nodes, settings = few_rows["text"], NF4 | {"precision": "bfloat16"}
    whole = train_spread(run_of(tmp_path / "whole", nodes, "lora", **settings), strategy)
    parts = stopped(run_of(tmp_path / "parts", nodes, "lora", **settings), strategy)
    train_spread(parts, strategy)
    assert runs.rows(parts) == runs.rows(whole)
    assert digest(parts) == digest(whole)
    target = small_runs.converted(parts, nodes, "lora", tmp_path / "float32")
    report = json.loads((target / "parity.json").read_text())["steps"]["4"]
    assert report["logits"]["checkpoint_against_trained"]["prompts"]["max_difference"] == 0.0
    assert report["quantised"]["shipped_against_trained"]["prompts"]["relative"] < 0.1
