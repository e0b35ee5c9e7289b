"""What stops a training run, and what the user then reads."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import small_runs
import training_nodes as runs

pytestmark = pytest.mark.slow


def test_loss_that_is_not_finite_stops_before_the_step(text_nodes, tmp_path: Path) -> None:
    run = runs.write_run(tmp_path / "run", text_nodes, learning_rate=1e30, warmup_steps=0, save_steps=1)
    assert runs.train(run) == 1
    stopped = runs.last_step(run) + 1
    assert f"step {stopped}: the " in runs.log(run)
    assert "the optimizer did not use it. The step's samples: row-" in runs.log(run)
    assert max(runs.saved_steps(run), default=0) == stopped - 1
    assert all(math.isfinite(row["loss"]) for row in runs.rows(run))
    assert not (run / "manifest.json").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"global_batch_size": 6}, "--micro-batch-size 4 does not divide training.global_batch_size 6"),
        ({"lora": runs.LORA | {"target_modules": ["embed_tokens", "q_proj"]}}, "embed_tokens is tied"),
        ({"lora": runs.LORA | {"target_modules": ["lm_head"]}}, "lm_head cannot have an adapter"),
        ({"lora": runs.LORA | {"target_modules": ["wrong"]}}, "Check lora.target_modules"),
    ],
)
def test_refused_configurations(text_nodes, tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    run = runs.write_run(tmp_path / "run", text_nodes, "lora", **changes)
    assert runs.train(run, "--micro-batch-size", "4") == 1
    assert said in runs.log(run)
    assert "Traceback" not in runs.log(run)


def test_value_that_does_not_take_effect_is_an_error(text_nodes, tmp_path: Path) -> None:
    def ignore_the_learning_rate() -> None:
        from trl import SFTConfig

        before = SFTConfig.__post_init__

        def after(self) -> None:
            before(self)
            self.learning_rate = 1.0

        SFTConfig.__post_init__ = after

    run = runs.write_run(tmp_path / "run", text_nodes)
    assert runs.train(run, patch=ignore_the_learning_rate) == 1
    assert "learning_rate: requested 0.002, in effect 1.0" in runs.log(run)


def test_rows_that_get_lost_are_noticed(text_nodes, tmp_path: Path) -> None:
    def lose_a_row() -> None:
        from sft.training.trainer import RunTrainer

        before = RunTrainer.get_batch_samples

        def after(self, iterator, count, device):
            batches, items = before(self, iterator, count, device)
            self._step.ids.pop()
            return batches, items

        RunTrainer.get_batch_samples = after

    run = runs.write_run(tmp_path / "run", text_nodes)
    assert runs.train(run, patch=lose_a_row) == 1
    assert "after 1 epochs 35 rows were trained on instead of 40" in runs.log(run)


def test_tokens_that_are_not_those_of_the_audit_are_refused(text_nodes, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    shutil.copytree(text_nodes["tokens"], tokens)
    pq.write_table(pq.read_table(tokens / "train.parquet").slice(1), tokens / "train.parquet")
    small_runs.finish(tokens)
    run = runs.write_run(tmp_path / "run", text_nodes | {"tokens": tokens})
    assert runs.train(run) == 1
    assert "39 rows, but 40 were prepared" in runs.log(run)


def test_full_disk_is_told_with_its_place(text_nodes, tmp_path: Path) -> None:
    def fill_the_disk() -> None:
        import torch

        def fail(*_args: Any) -> None:
            raise OSError(28, "No space left on device")

        torch.save = fail

    run = runs.write_run(tmp_path / "run", text_nodes)
    assert runs.train(run, patch=fill_the_disk) == 1
    assert f"{run / 'checkpoints'}: the checkpoint of step 4 could not be written" in runs.log(run)
    assert "Traceback" not in runs.log(run)
    assert runs.saved_steps(run) == []
    runs.train_well(run)


def test_disk_that_is_full_before_training_is_told_with_its_place(text_nodes, small_disk: Path, tmp_path: Path) -> None:
    """A real one: where rows are copied to, and where the run itself is."""
    run = runs.write_run(small_disk / "run", text_nodes | {"tokens": small_disk / "tokens"})
    shutil.copytree(text_nodes["tokens"], small_disk / "tokens", ignore=shutil.ignore_patterns(".rows"))
    filler = small_disk / "filler"
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass
    for free, place in ((0, run / ".claim.json"), (16_384, small_disk / "tokens/.rows/train-")):
        os.truncate(filler, filler.stat().st_size - free)
        done = subprocess.run(runs.command(run), capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert f"error: {run if not free else place}" in done.stderr, done.stderr
        assert "No space left on device. Make room there and start again" in done.stderr
        assert "Traceback" not in done.stderr
        assert not [path for path in small_disk.rglob("*") if path.name.startswith(place.name)]
    filler.unlink()
    # The run itself needs more than this disk has: it is the rows that are there now.
    assert "steps to train" in subprocess.run(runs.command(run), capture_output=True, text=True, check=False).stderr


def test_second_trainer_on_a_run_is_refused(text_nodes, tmp_path: Path) -> None:
    run = runs.write_run(tmp_path / "run", text_nodes)
    first = runs.Child(run)
    first.wait_for(step=1)
    second = subprocess.run(runs.command(run), capture_output=True, text=True, check=False, timeout=60)
    assert second.returncode == 1
    assert f"is being written by process {first.pid}" in second.stderr
    assert first.wait() == 0, runs.log(run)


def test_trainer_ends_with_the_workflow_that_started_it(text_nodes, tmp_path: Path) -> None:
    """Snakemake, a shell, the trainer: killing the first must end the last, though its parent lives on."""
    run = runs.write_run(tmp_path / "run", text_nodes, max_steps=1000)
    snakemake = tmp_path / "snakemake"
    snakemake.write_text("import subprocess, sys\nsubprocess.run(['sh', '-c', sys.argv[1] + '; true'])\n")
    head = subprocess.Popen([sys.executable, str(snakemake), " ".join(runs.command(run))], stderr=subprocess.DEVNULL)
    events = run / "attempts.jsonl"
    for _ in range(600):
        if events.exists():
            break
        time.sleep(0.1)
    trainer = json.loads(events.read_text().splitlines()[0])["pid"]
    head.send_signal(signal.SIGKILL)
    head.wait()
    for _ in range(100):
        if not _runs(trainer):
            return
        time.sleep(0.1)
    os.kill(trainer, signal.SIGKILL)
    pytest.fail("the trainer outlived the workflow by 10 seconds")


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
