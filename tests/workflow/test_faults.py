"""What breaks a run, and what is left and said: killed heads, damaged inputs, two heads at once."""

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest
from checkouts import SNAKEMAKE, Checkout, new_checkout

pytestmark = pytest.mark.slow


def start(checkout: Checkout, *arguments: str) -> subprocess.Popen:
    return subprocess.Popen(
        [SNAKEMAKE, "--cores", "2", *arguments],
        cwd=checkout.path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def wait_for(condition, seconds: float = 90.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)


def running_scripts(head: int) -> list[psutil.Process]:
    """What the head `head` started of our scripts and still runs; a process may end while it is looked at."""
    scripts = []
    for process in psutil.Process(head).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if "scripts/" in " ".join(process.cmdline()):
                scripts.append(process)
    return scripts


def test_killed_head_takes_its_jobs_along_and_the_next_run_completes(tmp_path: Path, finished: Checkout) -> None:
    checkout = new_checkout(tmp_path / "killed")
    head = start(checkout, "audits")
    wait_for(lambda: any((checkout.path / "results").glob("*/*/.attempt-*")) and running_scripts(head.pid))
    jobs = running_scripts(head.pid)
    os.kill(head.pid, signal.SIGKILL)
    head.wait()
    psutil.wait_procs(jobs, timeout=10)
    assert not [p for p in jobs if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
    assert checkout.snakemake("--unlock").returncode == 0
    done = checkout.snakemake("audits")
    assert done.returncode == 0, done.stderr[-3000:]
    assert not list((checkout.path / "results").rglob(".attempt-*"))


def test_damaged_input_is_named_before_it_is_used(checkout: Checkout) -> None:
    tokens = next((checkout.path / "results/tokens").glob("*/train.parquet"))
    data = bytearray(tokens.read_bytes())
    data[len(data) // 2] ^= 1
    tokens.write_bytes(data)
    checkout.replace("config/config.yaml", "learning_rate: 2e-3", "learning_rate: 3e-3")
    done = checkout.snakemake("runs")
    assert done.returncode == 1
    log = next(
        p for p in (checkout.path / "results/runs").glob("*/train_model.log") if "is not what was" in p.read_text()
    )
    message = f"error: input tokens: {tokens.relative_to(checkout.path)} is not what was written"
    assert message in log.read_text()
    # At its end Snakemake shows which result failed, its log, and how that ends.
    place = log.relative_to(checkout.path)
    assert f"failed: {place.parent}\nlog: {place}, which ends:\n" in done.stderr
    assert f"\n    {message}" in done.stderr.partition(f"log: {place}, which ends:")[2]
    assert "Traceback" not in log.read_text()


def test_leak_stops_the_run_before_training(checkout: Checkout) -> None:
    """A test row that is also a train row, under another id."""
    checkout.edit("data/test.jsonl", lambda text: text.replace("say 41 in letters", "say 7 in letters"))
    done = checkout.snakemake("runs")
    assert done.returncode == 1
    log = next((checkout.path / "results/audits").glob("*/audit_splits.log")).read_text()
    assert "by content: 1 of" in log
    assert "train_model" not in checkout.snakemake("-n", "audits").stdout


def test_second_head_is_refused_and_harms_nothing(tmp_path: Path) -> None:
    checkout = new_checkout(tmp_path / "two")
    first = start(checkout, "audits")
    wait_for(lambda: any((checkout.path / "results").glob("*/*/.attempt-*")))
    os.killpg(first.pid, signal.SIGSTOP)  # however slow the second one is, the first is there
    try:
        second = checkout.snakemake("audits", warm=False)
        assert second.returncode == 1
        assert "LockException" in second.stdout + second.stderr
    finally:
        os.killpg(first.pid, signal.SIGCONT)
    assert first.wait(timeout=300) == 0
    assert checkout.planned("audits") == {}


def test_of_heads_that_start_at_once_each_is_refused_or_done(tmp_path: Path) -> None:
    """One that comes as another ends met the lock files as they went, and ended in a FileNotFoundError."""
    checkout = new_checkout(tmp_path / "many")
    command = [SNAKEMAKE, "--cores", "1", "downloads"]
    heads = [
        subprocess.Popen(command, cwd=checkout.path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for _ in range(3)
    ]
    ended = [(head.communicate()[0], head.returncode) for head in heads]
    assert any(code == 0 for _, code in ended)
    for said, code in ended:
        assert code == 0 or "LockException" in said, said[-3000:]
    assert checkout.planned("downloads") == {}


def test_script_by_hand_says_what_it_needs(finished: Checkout, tmp_path: Path) -> None:
    done = subprocess.run(
        ["python", "scripts/score.py", str(tmp_path)], cwd=finished.path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "config.json is missing. Snakemake writes it; by hand: sft check --write" in done.stderr
    assert done.stderr.count("\n") == 1
