"""The SLURM job that this process runs in: who it is, how long it may go on, and how it comes again.

Inside a job that Snakemake submitted only few SLURM variables are left, except below an `srun` of our own (sft.slurm.launch).
"""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass

from sft.slurm import queue


@dataclass(frozen=True)
class Job:
    """`restarts`: how often SLURM has started it again. `memory_mib`: what it may use on this node; None: unknown."""

    id: str
    cluster: str
    node: str
    restarts: int
    memory_mib: int | None


def current() -> Job | None:
    """The job around this process, or None outside SLURM."""
    number = os.environ.get("SLURM_JOB_ID", "")
    if not number.isdigit():
        return None
    memory = os.environ.get("SLURM_MEM_PER_NODE", "")
    return Job(
        id=number,
        cluster=os.environ.get("SLURM_CLUSTER_NAME", ""),
        node=os.environ.get("SLURMD_NODENAME") or os.uname().nodename,
        restarts=int(os.environ.get("SLURM_RESTART_COUNT", "0")),
        memory_mib=int(memory) if memory.isdigit() else None,
    )


def facts() -> dict[str, str | int | None]:
    """What records tell of the job: `job`, `node`, `restarts`, `memory_mib`; empty outside SLURM."""
    job = current()
    if job is None:
        return {}
    return {"job": job.id, "node": job.node, "restarts": job.restarts, "memory_mib": job.memory_mib}


def seconds_left(say: Callable[[str], None]) -> float | None:
    """Seconds until SLURM ends this job at its time limit; None outside SLURM, without a limit, or if it cannot say."""
    job = current()
    if job is None:
        return None
    done = queue.run("squeue", "--noheader", f"--jobs={job.id}", "--format=%L")
    if done is None or done.returncode:
        say("SLURM does not say how much time is left; training goes on until a signal or the limit ends it")
        return None
    return duration(done.stdout.strip())


def duration(text: str) -> float | None:
    """Seconds of SLURM's `days-hours:minutes:seconds`, of which minutes and seconds are always there; else None."""
    found = re.fullmatch(r"(?:(?:(\d+)-)?(\d+):)?(\d+):(\d+)", text)
    if not found:
        return None  # UNLIMITED, NOT_SET, INVALID
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)


def come_again(say: Callable[[str], None]) -> bool:
    """Put this job back into the queue, as it was submitted; whether that was done.

    The same job starts again, so Snakemake goes on waiting for it and no retry is used up, even where Snakemake has died.
    A job that was cancelled stays cancelled. Where a site forbids requeueing, exit code 75 leaves it to Snakemake's retries.
    """
    job = current()
    if job is None:
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
