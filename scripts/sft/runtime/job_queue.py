"""What SLURM says of jobs, asked with squeue: it answers on every site, with accounting or without.

Nothing here raises when SLURM cannot be asked; `None` means exactly that, and is never taken for "the job is gone".
"""

import os
import shutil
import subprocess
from dataclasses import dataclass

TIMEOUT_SECONDS = 60
# The states of a job whose processes may still run (squeue(1), JOB STATE CODES).
ALIVE = {"CONFIGURING", "COMPLETING", "RUNNING", "RESIZING", "SIGNALING", "STAGE_OUT", "STOPPED", "SUSPENDED"}
# States of a job that waits to be started, or started again.
WAITING = {"PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT"}

_FIELDS = ("%i", "%T", "%r", "%N", "%j", "%Z", "%k", "%M", "%L")


@dataclass(frozen=True)
class QueuedJob:
    """One line of squeue. `comment` says what of Snakemake is in the job (sft.runtime.job_comments)."""

    id: str
    state: str
    reason: str
    nodes: str
    name: str
    directory: str
    comment: str
    running: str
    left: str


def available() -> bool:
    """Whether this machine has SLURM's commands."""
    return shutil.which("squeue") is not None


def run(*command: str) -> subprocess.CompletedProcess | None:
    """Run one of SLURM's commands; None where it is missing or does not answer within a minute."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None


def state(job: str) -> str | None:
    """The state of a job in words (RUNNING, …), "" when SLURM knows no such job any more; None: it cannot be asked."""
    done = run("squeue", "--noheader", "--states=all", f"--jobs={job}", "--format=%T")
    if done is None:
        return None
    if done.returncode:
        return "" if "Invalid job id" in done.stderr else None
    return next(iter(done.stdout.split()), "")


def jobs_of(directory: str) -> list[QueuedJob] | None:
    """The user's jobs that wait or run and were submitted from `directory`; None: SLURM cannot be asked."""
    if not available():
        return None
    done = run("squeue", "--noheader", f"--user={os.getuid()}", f"--format={'|'.join(_FIELDS)}")
    if done is None or done.returncode:
        return None
    rows = (line.split("|") for line in done.stdout.splitlines())
    jobs = [QueuedJob(*row) for row in rows if len(row) == len(_FIELDS)]
    return [job for job in jobs if os.path.realpath(job.directory) == os.path.realpath(directory)]


def nodes(job: str) -> list[str] | None:
    """The nodes that a job has now; None: SLURM cannot be asked."""
    listed = run("squeue", "--noheader", f"--jobs={job}", "--format=%N")
    if listed is None or listed.returncode:
        return None
    names = run("scontrol", "show", "hostnames", listed.stdout.strip())
    return None if names is None or names.returncode else names.stdout.split()
