"""Small runs on several processes, and what has to be equal between two of them."""

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import training_nodes as runs
from forked_ranks import fork_ranks

# 20 training rows are two and a half steps of 8: the last step of an epoch has rows for half of the micro batches.
SETTINGS = {"max_steps": 4, "save_steps": None, "eval_steps": None, "warmup_steps": 1}
# Relative to the value, float32: what is left is the order of additions, which Adam then carries on. Measured over
# all cases below: 6e-7 in the loss, 9e-7 in the gradient norm.
BOUND = 5e-6
# Where a sum that rounds the other way meets the next of FP8's 8 values between powers of two. Measured: 4e-3, 2e-2.
FP8_BOUND = 5e-2
SAME = ("samples", "tokens_seen", "supervised_tokens_seen", "epoch", "learning_rate", "loss_tokens", "correct_tokens")


def run_of(directory: Path, nodes: dict[str, Path], method: str, **changes: Any) -> Path:
    lora = {"lora": runs.LORA | {"dropout": 0.0}} if method == "lora" else {}
    return runs.write_run(directory, nodes, method, **(SETTINGS | lora | changes))


def spread_over(strategy: str, processes: int = 2, *options: str) -> tuple[str, ...]:
    return ("--keep-optimizer", "--strategy", strategy, "--processes", str(processes), *options)


def train_spread(run: Path, strategy: str, processes: int = 2, *options: str, patch=fork_ranks) -> Path:
    code = runs.train(run, *spread_over(strategy, processes, *options), patch=patch)
    assert code == 0, runs.log(run)
    return run


def assert_close(one: Path, other: Path, bound: float = BOUND) -> None:
    """Fail unless two runs saw the same rows and tokens at each step, and their series agree within `bound`."""
    pair = [runs.rows(one), runs.rows(other)]
    assert [(row["step"], row["split"]) for row in pair[0]] == [(row["step"], row["split"]) for row in pair[1]]
    for first, second in zip(*pair, strict=True):
        place = f"{first['split']} {first['step']}"
        for name in SAME:
            # A row that is predicted right by a hair may be predicted wrong by one.
            if name in first and name != "correct_tokens":
                assert first[name] == second[name], f"{name} of {place}"
        for name in ("loss", "loss_sum", "grad_norm"):
            if name in first:
                assert second[name] == pytest.approx(first[name], rel=bound), f"{name} of {place}"


def digest(run: Path, step: int = 4) -> str:
    """Of the weights in a checkpoint, put together where they are in shards."""
    return json.loads((run / f"checkpoints/checkpoint-{step}/complete.json").read_text())["weights_digest"]


def stop_at_two() -> Callable[[], None]:
    """Patch: one of the ranks, and only that one, gets a SIGTERM in the second step."""

    def patch() -> None:
        fork_ranks()
        from sft.training.trainer import RunTrainer

        stock = RunTrainer.end_step

        def signalled(self: Any) -> bool:
            if self.state.global_step == 2 and self.ranks.rank == 1:
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(0.05)
            return stock(self)

        RunTrainer.end_step = signalled

    return patch


def stopped(run: Path, strategy: str, processes: int = 2) -> Path:
    """A run that one signalled rank stopped after step 2, with a checkpoint there."""
    code = runs.train(run, *spread_over(strategy, processes), patch=stop_at_two())
    assert code == 75, runs.log(run)
    assert runs.saved_steps(run) == [2]
    assert runs.last_step(run) == 2
    assert not (run / "manifest.json").exists()
    return run
