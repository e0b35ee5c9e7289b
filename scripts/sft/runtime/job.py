"""The SLURM job that this process runs in: who it is, how long it may go on, and how it comes again.

Inside a job that Snakemake submitted only few SLURM variables are left, except below an `srun` of our own
(sft.slurm.srun).
"""

import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from sft.runtime import job_comments as comments
from sft.runtime import job_queue as queue

# What is asked of squeue, long format; widths are needed, or values are cut.
_FIELDS = ("RestartCnt:12", "MinMemory:24", "TimeLeft:24", "Comment:200")


@dataclass(frozen=True)
class Job:
    """`restarts`: how often SLURM has started it again; None: unknown."""

    id: str
    cluster: str
    node: str
    restarts: int | None


@dataclass(frozen=True)
class Details:
    """What SLURM said of the job when this process first asked; None: it did not say."""

    restarts: int | None = None
    memory_mib: int | None = None
    seconds_left: float | None = None
    comment: str = ""


def current() -> Job | None:
    """The job around this process, or None outside SLURM."""
    number = os.environ.get("SLURM_JOB_ID", "")
    if not number.isdigit():
        return None
    node = os.environ.get("SLURMD_NODENAME") or os.uname().nodename
    return Job(number, os.environ.get("SLURM_CLUSTER_NAME", ""), node, _details(number).restarts)


def address() -> str | None:
    """The address by which SLURM itself reaches this node, so that others of the job do too; None where unknown.

    The machine's own idea of its name is worth less: in /etc/hosts it may be an address that only this machine has.
    """
    job = current()
    done = queue.run("scontrol", "show", "node", job.node) if job else None
    found = re.search(r"\bNodeAddr=([\w.:-]+)", done.stdout) if done is not None and done.returncode == 0 else None
    return found[1] if found else None


def facts() -> dict[str, str | int | None]:
    """What records tell of the job: `job`, `node`, `restarts`, and `memory_mib` that it asked for; empty outside."""
    job = current()
    if job is None:
        return {}
    return {"job": job.id, "node": job.node, "restarts": job.restarts, "memory_mib": _details(job.id).memory_mib}


def seconds_left(say: Callable[[str], None]) -> float | None:
    """Seconds until SLURM ends this job at its time limit; None outside SLURM, without a limit, or if it cannot say."""
    job = current()
    if job is None:
        return None
    left = _details(job.id).seconds_left
    if left is None:
        say("SLURM names no time limit; training goes on until a signal or the limit ends it")
        return None
    return max(left - (time.monotonic() - _ASKED[job.id]), 0.0)


_ASKED: dict[str, float] = {}


@cache
def _details(job: str) -> Details:
    """Asked once. The variables that tell the same in a plain job are dropped by Snakemake's plugin on the way here."""
    _ASKED[job] = time.monotonic()
    done = queue.run("squeue", "--noheader", f"--jobs={job}", f"--Format={','.join(_FIELDS)}")
    if done is None or done.returncode or len(done.stdout.split()) < len(_FIELDS):
        return Details()
    restarts, memory, left, comment = done.stdout.split(maxsplit=3)
    return Details(int(restarts) if restarts.isdigit() else None, mebibytes(memory), duration(left), comment.strip())


def mebibytes(text: str) -> int | None:
    """MiB of SLURM's `2000M`, `1.5G`; None for 0, which means all of the node."""
    found = re.fullmatch(r"([0-9.]+)([KMGT])?", text)
    if not found:
        return None
    unit = {"K": 2**-10, "M": 1, "G": 2**10, "T": 2**20}[found[2] or "M"]
    return round(float(found[1]) * unit) or None


def duration(text: str) -> float | None:
    """Seconds of SLURM's `days-hours:minutes:seconds`, of which minutes and seconds are always there; else None."""
    found = re.fullmatch(r"(?:(?:(\d+)-)?(\d+):)?(\d+):(\d+)", text)
    if not found:
        return None  # UNLIMITED, NOT_SET, INVALID
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)


def come_again(say: Callable[[str], None]) -> bool:
    """Put this job back into the queue, as it was submitted; whether that was done.

    The same job starts again, so Snakemake goes on waiting for it and no retry is used up, even where Snakemake has
    died. A job that was cancelled stays cancelled, and one that Snakemake did not submit is not ours to start again.
    Where a site forbids requeueing, exit code 75 leaves it to Snakemake's retries.
    """
    job = current()
    if job is None or not _details(job.id).comment.startswith(comments.SUBMITTED):
        return False
    state = queue.state(job.id)
    if state not in ("RUNNING", "PREEMPTED"):
        say(f"SLURM calls job {job.id} {state or 'unknown'}: it is not queued again")
        return False
    done = queue.run("scontrol", "requeue", job.id)
    if done is None or done.returncode:
        reason = done.stderr.strip() if done else "no answer"
        say(f"SLURM does not queue job {job.id} again ({reason}); Snakemake has to submit it again")
        return False
    say(f"job {job.id} is queued again and will continue")
    return True
