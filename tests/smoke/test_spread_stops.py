"""A run on several processes that is stopped goes on, on as many or on others."""

from pathlib import Path
from typing import Any

import pytest
import training_nodes as runs
from spread_runs import SETTINGS, assert_close, digest, run_of, stopped, train_spread

pytestmark = pytest.mark.slow

# What a stopped run has to make up for, with a checkpoint at step 2.
RESUMED = SETTINGS | {"max_steps": 4, "save_steps": 2}


@pytest.mark.parametrize(
    ("strategy", "method"), [("ddp", "lora"), ("fsdp2", "full"), ("fsdp2", "lora"), ("fsdp1", "lora")]
)
def test_one_signalled_rank_stops_all_and_resume_is_bit_equal(few_rows, tmp_path: Path, strategy, method) -> None:
    # Dropout draws random numbers in every step, so each rank's state has to come back.
    whole = train_spread(runs.write_run(tmp_path / "whole", few_rows["text"], method, **RESUMED), strategy)
    parts = stopped(runs.write_run(tmp_path / "parts", few_rows["text"], method, **RESUMED), strategy)
    train_spread(parts, strategy)
    assert runs.rows(parts) == runs.rows(whole)
    assert [digest(parts, step) for step in (2, 4)] == [digest(whole, step) for step in (2, 4)]
    assert runs.rows(parts)[-1]["tokens_seen"] == runs.rows(whole)[-1]["tokens_seen"] > 0


def test_continued_on_another_number_of_processes(few_rows, tmp_path: Path) -> None:
    """From shards to one process, to whole copies and to other shards, and from one process to shards."""
    nodes = few_rows["text"]
    whole = runs.train_well(run_of(tmp_path / "whole", nodes, "full", save_steps=2), "--keep-optimizer")
    for name, first, then in (
        ("2-to-1", "fsdp2", "none"),
        ("shards-to-copies", "fsdp1", "ddp"),
        ("shards-to-shards", "fsdp2", "fsdp1"),
    ):
        run = stopped(run_of(tmp_path / name, nodes, "full", save_steps=2), first)
        if then == "none":
            runs.train_well(run, "--keep-optimizer")
        else:
            train_spread(run, then)
        assert_close(whole, run)
    run = run_of(tmp_path / "1-to-2", nodes, "full", save_steps=2)
    assert runs.train(run, "--keep-optimizer", patch=_stop_alone) == 75, runs.log(run)
    assert_close(whole, train_spread(run, "fsdp2"))


def _stop_alone() -> None:
    from sft.training.trainer import RunTrainer

    stock = RunTrainer.end_step

    def asked(self: Any) -> bool:
        if self.state.global_step == 2:
            self.books.stop.request("asked by the test")
        return stock(self)

    RunTrainer.end_step = asked
