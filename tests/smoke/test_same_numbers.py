"""The same run on one process and on several: the same rows, the same numbers within a bound.

Tests: sft.training.rank, sft.training.rank_shares, sft.training.ranks, sft.training.spread
"""

import json
from pathlib import Path

import pytest
import training_nodes as runs
from spread_runs import assert_close, digest, run_of, train_spread

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("kind", ["text", "vision"])
def test_same_run_on_one_and_two_processes(few_rows, tmp_path: Path, kind: str, method: str) -> None:
    """Also with four times the accumulation. The gradient norm is the one of all parameters in every case.

    The strategies average the same gradients, so their weights have the same bits, unless gradients are clipped: the
    norm of shards is added up in another order, its last digit differs, and with it all that it scales.
    """
    clipped = method == "full"
    changes = {} if clipped else {"max_grad_norm": 1e3}
    nodes = few_rows[kind]
    alone = runs.train_well(run_of(tmp_path / "alone", nodes, method, **changes))
    accumulated = run_of(tmp_path / "x4", nodes, method, **changes)
    assert_close(alone, runs.train_well(accumulated, "--micro-batch-size", "2"))
    digests = set()
    for strategy in ("ddp", "fsdp2", "fsdp1"):
        at_once = train_spread(run_of(tmp_path / strategy, nodes, method, **changes), strategy)
        assert_close(alone, at_once)
        digests.add(digest(at_once))
        if strategy != "fsdp1":
            in_parts = run_of(tmp_path / f"{strategy}-x4", nodes, method, **changes)
            assert_close(alone, train_spread(in_parts, strategy, 2, "--micro-batch-size", "1"))
        told = json.loads((at_once / "effective.json").read_text())["distributed"]
        assert (told["strategy"], told["world_size"], told["backend"]) == (strategy, 2, "gloo")
        if strategy != "ddp":
            assert told["sharded_parameters"] == told["parameters"]
            assert max(told["parameters_by_rank"]) < 0.6 * told["parameters"]
            assert any(name.endswith("DecoderLayer") for name in told["wrapped_classes"])
    if not clipped:
        assert len(digests) == 1
