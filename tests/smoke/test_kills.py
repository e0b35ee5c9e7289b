"""SIGKILL at random moments, a third of them while a checkpoint is being written: every resume works, nothing is lost.

SFT_KILLS sets the number of kills (default 6). transformers' own checkpoints were unusable after 11 of 14.
"""

import os
import random
import signal
import time
from pathlib import Path

import pytest
import training_nodes as runs

from sft.training import metrics_stream

pytestmark = [pytest.mark.thorough, pytest.mark.slow, pytest.mark.timeout(3600)]
KILLS = int(os.environ.get("SFT_KILLS", "6"))
KILLS_A_RUN = 6
STEPS = 72  # more than are trained between six kills, also on a fast machine
OPTIONS = ("--keep-optimizer", "--micro-batch-size", "4")
# A checkpoint after every step, so that writing and rotating fill much of the time. It changes no result.
SAVING = ("--checkpoint-minutes", "0")
SETTINGS = {"max_steps": STEPS, "save_steps": 24, "eval_steps": 18}


def test_killed_at_random_moments(text_nodes, tmp_path: Path) -> None:
    chance = random.Random(0)
    whole = runs.train_well(runs.write_run(tmp_path / "whole", text_nodes, **SETTINGS), *OPTIONS)
    done = while_saving = 0
    for number in range(-(-KILLS // KILLS_A_RUN)):
        run = runs.write_run(tmp_path / f"run-{number}", text_nodes, **SETTINGS)
        for _ in range(min(KILLS_A_RUN, KILLS - done)):
            saving = done % 3 == 0
            while_saving += _kill(run, chance, saving)
            done += 1
        runs.train_well(run, *OPTIONS)
        assert not list(run.glob("checkpoints/set-aside-*")), runs.log(run)
        assert "error" not in runs.log(run), runs.log(run)
        runs.assert_same(whole, run)
    assert done == KILLS
    assert while_saving >= KILLS // 3
    print(f"{done} kills, {while_saving} of them with a checkpoint half written, 0 unusable resumes")


def _kill(run: Path, chance: random.Random, saving: bool) -> bool:
    """Train `run` on and kill it; returns whether a checkpoint was being written when it died."""
    attempt = _attempts(run)
    child = runs.Child(run, *OPTIONS, *(SAVING if saving else ()))
    # Some while the model is loaded, before there is a step; the others after 1 to 5 steps of their own.
    if saving or chance.random() < 0.8:
        steps = chance.randint(1, 5)
        child.wait_until(lambda: _steps_of(run, attempt + 1) >= steps or child.poll() is not None)
    if saving:
        deadline = time.monotonic() + 60
        while child.poll() is None and time.monotonic() < deadline:
            if _half_written(run):
                time.sleep(chance.uniform(0, 0.01))
                # Held still, it stays where it is. If the save ended meanwhile, the next one is waited for.
                os.kill(child.pid, signal.SIGSTOP)
                if _half_written(run):
                    break
                os.kill(child.pid, signal.SIGCONT)
    else:
        time.sleep(chance.uniform(0, 0.1))
    assert child.kill() in (-signal.SIGKILL, 0), runs.log(run)
    return saving and _half_written(run)


def _attempts(run: Path) -> int:
    path = run / "attempts.jsonl"
    return path.read_text().count('"started"') if path.exists() else 0


def _steps_of(run: Path, attempt: int) -> int:
    lines = metrics_stream.read_lines(run / metrics_stream.NAME)
    return sum(row["split"] == "train" and row["attempt"] == attempt for row in lines)


def _half_written(run: Path) -> bool:
    try:
        return any(entry.name.startswith(".writing-") for entry in os.scandir(run / "checkpoints"))
    except FileNotFoundError:
        return False
