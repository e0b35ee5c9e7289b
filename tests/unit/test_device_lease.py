"""Leases of pretend devices, between real processes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sft.runtime import device_lease
from sft.runtime.code import SCRIPTS
from sft.runtime.device_lease import lease
from sft.runtime.stage import StageError

DEVICES = ["0", "1", "2", "3"]
JOB = f"""
import sys, time
sys.path.insert(0, {str(SCRIPTS)!r})
from pathlib import Path
from sft.runtime.device_lease import lease
print(*lease({DEVICES!r}, int(sys.argv[2]), Path(sys.argv[1]), lambda text: print(text, flush=True), 30), flush=True)
time.sleep(60)
"""


@pytest.fixture
def job(tmp_path: Path):
    started = []

    def start(count: int) -> subprocess.Popen:
        command = [sys.executable, "-c", JOB, str(tmp_path), str(count)]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def test_four_jobs_get_four_devices(job) -> None:
    assert sorted(process.stdout.readline().strip() for process in [job(1) for _ in range(4)]) == DEVICES


def test_a_killed_job_frees_its_devices(job) -> None:
    first = job(3)
    assert first.stdout.readline().split() == ["0", "1", "2"]
    second = job(2)
    assert "waiting for 2 of the devices 0, 1, 2, 3" in second.stdout.readline()
    first.send_signal(signal.SIGKILL)
    assert second.stdout.readline().split() == ["0", "1"]


def test_all_or_none(job, tmp_path: Path) -> None:
    """Who cannot have all that it needs holds none meanwhile."""
    assert job(3).stdout.readline().split() == ["0", "1", "2"]
    waiting = job(2)
    assert "waiting" in waiting.stdout.readline()
    time.sleep(0.2)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        got = device_lease._try(DEVICES, 1, tmp_path)
        if got:
            break
    assert list(got) == ["3"]
    got["3"].close()


def test_more_than_there_are_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="5 devices are needed and 4 are here"):
        lease(DEVICES, 5, tmp_path, print)


def test_patience_ends(job, tmp_path: Path) -> None:
    assert job(4).stdout.readline()
    with pytest.raises(StageError, match="did not become free"):
        lease(DEVICES, 1, tmp_path, print, patience=0.2)


def test_only_the_leased_devices_are_visible(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(device_lease, "_folder", lambda: tmp_path)
    monkeypatch.setattr(device_lease, "_held", [])
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6")
    assert device_lease.lease_cuda(2, print) == ["4", "5"]
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "4,5"
    for file in device_lease._held:
        file.close()
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    assert device_lease.lease_cuda(2, print) == []
