"""What SLURM's commands answer, also when they do not: `None` is never taken for "the job is gone".

Tests: sft.runtime.job
"""

import os
from pathlib import Path

import pytest

from sft.runtime import job
from sft.runtime import job_queue as queue


@pytest.fixture
def answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A function that puts a command of SLURM on PATH, as a shell script."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")

    def put(name: str, script: str) -> None:
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)

    return put


def test_without_slurm_nothing_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))  # this machine may have SLURM
    assert not queue.available()
    assert queue.run("squeue") is None
    assert queue.state("1") is None
    assert queue.jobs_of(".") is None
    assert queue.nodes("1") is None


@pytest.mark.parametrize(
    ("script", "state"),
    [
        ("echo RUNNING", "RUNNING"),
        ("exit 0", ""),
        ("echo slurm_load_jobs error: Invalid job id specified >&2; exit 1", ""),
        ("echo slurm_load_jobs error: Unable to contact slurm controller >&2; exit 1", None),
    ],
)
def test_state_of_a_job(answers, script: str, state: str | None):
    answers("squeue", script)
    assert queue.state("7") == state


def test_an_answer_that_does_not_come_is_none(answers, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(queue, "TIMEOUT_SECONDS", 0.2)
    answers("squeue", "exec sleep 30")
    assert queue.state("7") is None


def test_jobs_of_a_directory_are_those_submitted_there(answers, tmp_path: Path):
    link = tmp_path / "link"
    link.symlink_to(tmp_path)
    rows = [
        f"7|RUNNING|None|n1|sft|{tmp_path}|rule_a|1:00|2:00",
        f"8|PENDING|Priority||sft|{link}|rule_b|0:00|2:00",
        "9|RUNNING|None|n1|sft|/elsewhere|rule_c|1:00|2:00",
        "a line of another form",
    ]
    answers("squeue", "cat <<'END'\n" + "\n".join(rows) + "\nEND")
    found = queue.jobs_of(str(tmp_path))
    assert [(one.id, one.state, one.comment) for one in found] == [
        ("7", "RUNNING", "rule_a"),
        ("8", "PENDING", "rule_b"),
    ]
    answers("squeue", "exit 1")
    assert queue.jobs_of(str(tmp_path)) is None


def test_nodes_of_a_job(answers):
    answers("squeue", "echo 'n[1-2]'")
    answers("scontrol", '[ "$*" = "show hostnames n[1-2]" ] && printf "n1\\nn2\\n"')
    assert queue.nodes("7") == ["n1", "n2"]
    answers("scontrol", "exit 1")
    assert queue.nodes("7") is None


@pytest.fixture
def inside(answers, monkeypatch: pytest.MonkeyPatch):
    """A job of SLURM around this process, whose squeue answers as given."""

    def put(script: str) -> None:
        answers("squeue", script)
        job._details.cache_clear()

    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setenv("SLURMD_NODENAME", "n3")
    monkeypatch.setenv("SLURM_CLUSTER_NAME", "east")
    yield put
    job._details.cache_clear()


def test_the_job_around_this_process(inside):
    inside("echo '2 2000M 1:00:00 rule_train_model_wildcards_a b'")
    assert job.current() == job.Job("17", "east", "n3", 2)
    assert job.facts() == {"job": "17", "node": "n3", "restarts": 2, "memory_mib": 2000}
    assert job._details("17").comment == "rule_train_model_wildcards_a b"
    said: list[str] = []
    assert 3590 < job.seconds_left(said.append) <= 3600
    assert said == []


@pytest.mark.parametrize("answer", ["echo '0 2000M UNLIMITED (null)'", "exit 1", "echo half an"])
def test_a_limit_that_slurm_does_not_name(inside, answer: str):
    inside(answer)
    said: list[str] = []
    assert job.seconds_left(said.append) is None
    assert said == ["SLURM names no time limit; training goes on until a signal or the limit ends it"]


def test_a_node_is_reached_by_the_address_that_slurm_uses(inside, answers):
    inside("echo '0 2000M 1:00 (null)'")
    answers("scontrol", "echo '   NodeAddr=10.0.0.3 NodeHostName=n3 Version=22.05'")
    assert job.address() == "10.0.0.3"
    answers("scontrol", "exit 1")
    assert job.address() is None


def test_outside_of_slurm_there_is_no_address(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert job.address() is None
    assert job.seconds_left(print) is None


@pytest.mark.parametrize(
    ("requeue", "says"),
    [
        ("echo Requested operation is presently disabled >&2; exit 1", "(Requested operation is presently disabled)"),
        ("exit 0", "job 17 is queued again and will continue"),
    ],
)
def test_a_site_may_forbid_to_queue_again(inside, answers, requeue: str, says: str):
    inside('case "$*" in *RestartCnt*) echo "0 2000M 3:00 rule_train_model_wildcards_a";; *) echo RUNNING;; esac')
    answers("scontrol", requeue)
    said: list[str] = []
    assert job.come_again(said.append) is (requeue == "exit 0")
    assert says in said[-1]
    assert os.environ["SLURM_JOB_ID"] == "17"
