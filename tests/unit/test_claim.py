"""One writer for a directory: across processes, across nodes whose kernel locks do not meet, after a holder died."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sft.runtime import claim, job
from sft.runtime.claim import Claim, ClaimError

HOLD = """
import sys, time
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from sft.runtime.claim import Claim
with Claim(Path(sys.argv[1]), print):
    print("held", flush=True)
    time.sleep(60)
"""
SCRIPTS = str(Path(__file__).resolve().parents[2] / "scripts")


@pytest.fixture
def no_kernel_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """As between two nodes on a file system whose locks stay on one of them."""
    monkeypatch.setattr(claim.fcntl, "flock", lambda *_: None)


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Claims are written as by another machine: process numbers mean nothing here."""
    monkeypatch.setattr(claim, "_boot", lambda: "another machine's boot")


def hold(directory: Path) -> subprocess.Popen:
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(directory), SCRIPTS], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    return holder


def squeue(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    (folder / "squeue").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def claimed_by_job(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A claim as a job on another machine leaves it when its node dies."""
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setenv("SLURMD_NODENAME", "far")
    job._details.cache_clear()
    squeue(directory, monkeypatch, "echo 0 2000M 3:00 rule_train_model")
    with pytest.MonkeyPatch.context() as there:
        there.setattr(claim, "_boot", lambda: "another machine's boot")
        dead = Claim(directory, print)
        dead.__enter__()
        dead._ended.set()
        dead._close()
    monkeypatch.delenv("SLURM_JOB_ID")
    job._details.cache_clear()


@pytest.mark.usefixtures("no_kernel_locks")
def test_a_second_writer_is_refused_without_kernel_locks(tmp_path: Path) -> None:
    holder = hold(tmp_path)
    with pytest.raises(ClaimError, match=f"is being written by process {holder.pid} on "), Claim(tmp_path, print):
        pass
    assert claim.alive(tmp_path) is True
    holder.kill()
    holder.wait()
    assert claim.alive(tmp_path) is False
    said: list[str] = []
    with Claim(tmp_path, said.append) as ours:
        assert ours.holds()
    assert "which is gone" in said[0]
    assert not (tmp_path / claim.NAME).exists()


def test_kernel_lock_refuses_where_the_claim_is_lost(tmp_path: Path) -> None:
    holder = hold(tmp_path)
    (tmp_path / claim.NAME).unlink()
    with pytest.raises(ClaimError, match="is being written by another process"), Claim(tmp_path, print):
        pass
    holder.kill()
    holder.wait()


def test_released_when_the_block_fails(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), Claim(tmp_path, print):
        raise ZeroDivisionError
    with Claim(tmp_path, print):
        pass
    assert not list(tmp_path.glob(".claim*"))


@pytest.mark.parametrize("answer", ["echo RUNNING", "echo COMPLETING"])
def test_job_that_runs_keeps_its_claim(tmp_path, monkeypatch, answer: str) -> None:
    claimed_by_job(tmp_path, monkeypatch)
    squeue(tmp_path, monkeypatch, answer)
    with pytest.raises(ClaimError, match="SLURM job 17 on node far"), Claim(tmp_path, print):
        pass


@pytest.mark.parametrize(
    "answer",
    [
        "echo NODE_FAIL",
        "echo PENDING",  # queued again: what ran is gone
        "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1",
    ],
)
def test_job_that_is_gone_is_succeeded_at_once(tmp_path, monkeypatch, answer: str) -> None:
    claimed_by_job(tmp_path, monkeypatch)
    squeue(tmp_path, monkeypatch, answer)
    started = time.monotonic()
    with Claim(tmp_path, print) as ours:
        assert ours.holds()
    assert time.monotonic() - started < 5


def test_nobody_can_say_so_a_sign_of_life_decides(tmp_path, monkeypatch) -> None:
    """The controller is away: five minutes (here two seconds) without a touch, and the claim is free."""
    claimed_by_job(tmp_path, monkeypatch)
    squeue(tmp_path, monkeypatch, "exit 1")
    monkeypatch.setattr(claim, "STALE_SECONDS", 2.0)
    started = time.monotonic()
    with Claim(tmp_path, print) as ours:
        assert ours.holds()
    assert time.monotonic() - started >= 2


def test_touch_while_waiting_is_a_sign_of_life(tmp_path, monkeypatch) -> None:
    claimed_by_job(tmp_path, monkeypatch)
    squeue(tmp_path, monkeypatch, f"touch {tmp_path}/{claim.NAME}; exit 1")
    monkeypatch.setattr(claim, "STALE_SECONDS", 5.0)
    with pytest.raises(ClaimError, match="SLURM job 17"), Claim(tmp_path, print):
        pass


def test_job_started_again_takes_its_own_claim_back(tmp_path, monkeypatch) -> None:
    claimed_by_job(tmp_path, monkeypatch)
    squeue(
        tmp_path, monkeypatch, "echo 1 2000M 3:00 rule_train_model"
    )  # SLURM counts one restart; the claim was made before
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    started = time.monotonic()
    with Claim(tmp_path, print):
        pass
    assert time.monotonic() - started < 5


@pytest.mark.usefixtures("no_kernel_locks", "elsewhere")
def test_lost_claim_stops_the_sleeper_before_it_writes(tmp_path: Path) -> None:
    sleeper = Claim(tmp_path, print)
    with sleeper:
        taken = json.loads((tmp_path / claim.NAME).read_text()) | {"token": "somebody else's"}
        (tmp_path / "new").write_text(json.dumps(taken))
        (tmp_path / "new").rename(tmp_path / claim.NAME)
        with pytest.raises(ClaimError, match="was taken over by process"):
            sleeper.require()
    assert json.loads((tmp_path / claim.NAME).read_text())["token"] == "somebody else's"


def test_lost_claim_ends_the_process(tmp_path: Path) -> None:
    program = HOLD.replace("with Claim", "import sft.runtime.claim\nsft.runtime.claim.TOUCH_SECONDS = 0.1\nwith Claim")
    holder = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path), SCRIPTS],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout.readline() == "held\n"
    (tmp_path / claim.NAME).write_text(json.dumps({"token": "somebody else's"}))
    assert holder.wait(10) == claim.EXIT_LOST
    assert "was taken over by another process; stopping" in holder.stderr.read()


CROWD = """
import os, sys, time
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from sft.runtime import claim
claim.fcntl.flock = lambda *_: None
directory = Path(sys.argv[1])
def note(text):
    with (directory / "log").open("a") as log:
        log.write(f"{text} {os.getpid()}\\n")
try:
    with claim.Claim(directory, lambda text: None) as ours:
        note("in")
        time.sleep(0.5)
        ours.require()
        note("out")
except claim.ClaimError:
    pass
"""


def test_of_many_newcomers_one_at_a_time_succeeds_a_dead_holder(tmp_path: Path) -> None:
    """Twelve at once, kernel locks switched off, a dead claim in the way: whoever gets in is alone until it is out."""
    holder = hold(tmp_path)
    holder.kill()
    holder.wait()
    crowd = [subprocess.Popen([sys.executable, "-c", CROWD, str(tmp_path), SCRIPTS]) for _ in range(12)]
    assert {one.wait(60) for one in crowd} == {0}
    steps = [line.split() for line in (tmp_path / "log").read_text().splitlines()]
    assert steps
    for entered, left in zip(steps[::2], steps[1::2], strict=True):
        assert (entered[0], left[0]) == ("in", "out")
        assert entered[1] == left[1]
