"""What must not pass on several processes: what was not asked for, a failed rank, too little memory."""

import signal
from pathlib import Path
from typing import Any

import pytest
import training_nodes as runs
from forked_ranks import fork_ranks
from spread_runs import assert_close, run_of, spread_over, train_spread

pytestmark = pytest.mark.slow


def _without_the_hook() -> None:
    """accelerate as it is: asked for FSDP on a CPU it trains plain DDP and says nothing."""
    fork_ranks()
    from sft.training import sharding

    sharding.allow_fsdp_on_cpu = lambda: None


def _half_sharded() -> None:
    """Only the whole model is wrapped, none of its blocks."""
    fork_ranks()
    from sft.training import sharding

    stock = sharding.arguments

    def arguments(*given: Any) -> dict[str, Any]:
        asked = stock(*given)
        asked["fsdp_config"] |= {"auto_wrap_policy": "SIZE_BASED_WRAP", "min_num_params": 10**9}
        del asked["fsdp_config"]["transformer_layer_cls_to_wrap"]
        return asked

    sharding.arguments = arguments


def _other_norms() -> None:
    """Each rank clips by the norm of its own part, as trainers over FSDP 2 have."""
    fork_ranks()
    from sft.training import trainer

    trainer.whole = lambda norm: norm.to_local() * (1 + trainer.torch.distributed.get_rank())


def _one_rank_fails() -> None:
    fork_ranks()
    from sft.runtime.stage import StageError
    from sft.training.trainer import RunTrainer

    stock = RunTrainer.training_step

    def step(self, *args: Any, **kwargs: Any) -> Any:
        if self.ranks.rank == 1 and self.state.global_step == 1:
            raise StageError("rank 1 has a bad row")
        return stock(self, *args, **kwargs)

    RunTrainer.training_step = step


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (_without_the_hook, "strategy: asked fsdp2, got ddp"),
        (_half_sharded, "LlamaDecoderLayer stayed whole"),
        (_other_norms, "the gradient norm differs between ranks"),
        (_one_rank_fails, "error: rank 1 has a bad row"),
    ],
)
def test_fault_stops_all_ranks_with_its_reason(few_rows, tmp_path: Path, fault, said: str) -> None:
    run = run_of(tmp_path / "run", few_rows["text"], "full")
    assert runs.train(run, *spread_over("fsdp2"), patch=fault) == 1
    assert said in runs.log(run)
    assert not (run / "manifest.json").exists()
    assert not list(run.glob(".attempt-*"))


# What is left when an interpreter is taken apart; a rank in which that happens aborts.
LAST = """\
import os, sys
class Last:
    def __del__(self, abort=os.abort): abort()
if "RANK" in os.environ:
    sys.last_of_all = Last()
"""


def test_by_torchrun(few_rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real command, once: agent, ranks in processes of their own, a request to stop, and the end.

    The ranks end without taking their interpreters apart, in which threads of gloo may abort them.
    """
    (tmp_path / "sitecustomize.py").write_text(LAST)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    run = runs.write_run(tmp_path / "run", few_rows["text"], max_steps=400, save_steps=None, eval_steps=None)
    child = runs.Child(run, *spread_over("ddp"))
    child.wait_for(step=3)
    child.signal(signal.SIGTERM)
    assert child.wait() == 75, runs.log(run)
    assert "torch.distributed.run --nnodes 1 --nproc-per-node 2" in runs.log(run)
    assert len(runs.saved_steps(run)) == 1


def _memory_for(rows: int):
    """Patch: from the fourth step on, no process has memory for more than `rows` rows at once."""

    def patch() -> None:
        fork_ranks()
        import torch

        from sft.training.trainer import RunTrainer

        stock = RunTrainer.training_step

        def step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            if len(inputs["input_ids"]) > rows and self.state.global_step == 3:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            return stock(self, model, inputs, *args, **kwargs)

        RunTrainer.training_step = step

    return patch


@pytest.mark.parametrize(("strategy", "processes", "rows"), [("none", 1, 8), ("fsdp2", 2, 4)])
def test_out_of_memory_halves_the_micro_batch(few_rows, tmp_path: Path, strategy, processes, rows) -> None:
    nodes = few_rows["text"]
    whole = runs.train_well(run_of(tmp_path / "whole", nodes, "full", save_steps=2))
    run = run_of(tmp_path / "run", nodes, "full", save_steps=2)
    train_spread(run, strategy, processes, patch=_memory_for(rows // 2))
    assert_close(whole, run)
    assert f"out of memory with {rows} rows at once" in runs.log(run)
    assert f"going on with {rows // 2}, at the same global batch" in runs.log(run)
    # Not from the start: from the checkpoint that the attempt before had written.
    told = runs.attempts(run)
    assert [attempt["from_step"] for attempt in told] == [None, 2]
    assert (told[0]["out_of_memory"], told[1]["micro_batch_size"]) == (True, rows // 2)


def test_one_row_that_does_not_fit_is_told(few_rows, tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", few_rows["text"], "full")
    assert runs.train(run, "--micro-batch-size", "1", patch=_memory_for(0)) == 1
    assert "out of memory with one row at a time" in runs.log(run)
    assert "training.activation_checkpointing" in runs.log(run)
