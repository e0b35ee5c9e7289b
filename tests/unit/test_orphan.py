"""A stage ends with the Snakemake that started it, also with a shell between them, and with nobody else."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from sft.runtime import orphan

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
STAGE = f"""
import sys, time
sys.path.insert(0, {str(SCRIPTS)!r})
from sft.runtime import orphan
orphan.die_with_parents()
open(sys.argv[1], "w").write("ready")
time.sleep(60)
"""


def family(folder: Path, head: str, between: str) -> tuple[subprocess.Popen, psutil.Process]:
    """A program called `head`, and the stage that it started below a shell that runs `between` as well."""
    (folder / "stage.py").write_text(STAGE)
    shell = f"{sys.executable} stage.py ready {between}"
    program = folder / head
    program.write_text(f"#!{sys.executable}\nimport subprocess\nsubprocess.run(['sh', '-c', {shell!r}])\n")
    program.chmod(0o755)
    started = subprocess.Popen([program], cwd=folder, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 60
    while not (folder / "ready").exists():
        assert time.monotonic() < end, "the stage did not start"
        time.sleep(0.05)
    stages = [p for p in psutil.Process(started.pid).children(recursive=True) if "stage.py" in p.cmdline()]
    return started, stages[-1]


def ended(process: psutil.Process, seconds: float) -> bool:
    """Whether a process, whoever inherited it, is gone or a zombie within some seconds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if orphan.start_time(process.pid) is None:
            return True
        time.sleep(0.1)
    return False


@pytest.mark.parametrize("between", ["", "; true"], ids=["of the shell's own process", "below a shell"])
def test_the_stage_ends_with_its_snakemake(tmp_path: Path, between: str):
    head, stage = family(tmp_path, "snakemake", between)
    os.kill(head.pid, signal.SIGKILL)
    head.wait()
    try:
        assert ended(stage, 20)
    finally:
        if stage.is_running():
            stage.kill()


def test_a_stage_of_a_person_below_a_shell_outlives_another_program(tmp_path: Path):
    """Only the direct parent and Snakemake count: `nohup sh -c 'python scripts/…' &` goes on after a log-out."""
    head, stage = family(tmp_path, "terminal", "; true")
    os.kill(head.pid, signal.SIGKILL)
    head.wait()
    try:
        assert not ended(stage, 2)
    finally:
        stage.kill()


def test_start_time_tells_a_process_from_a_later_one_of_its_number():
    assert orphan.start_time(os.getpid()) == orphan.start_time(os.getpid())
    child = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert orphan.start_time(child.pid) is None, "a zombie does not run"
    child.wait()
    assert orphan.start_time(child.pid) is None
