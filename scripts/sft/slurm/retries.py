"""What the failure of a job means for its retries, from what its run's directory tells."""

import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sft.runtime import attempts, manifest
from sft.slurm import memory
from sft.training.checkpoint import Checkpoints


@dataclass(frozen=True)
class Verdict:
    """What a failure means for the retries: it is the `last`, or it is `free`; `words` for the reader."""

    last: bool = False
    free: bool = False
    words: str = ""


def reached(job: Any) -> dict[Path, int]:
    """The step of the newest checkpoint of each run that a Snakemake job, or a group of jobs, trains."""
    return {run: Checkpoints(run / "checkpoints", print).reached() or 0 for run in _runs(job)}


def judge(job: Any, started: datetime) -> Verdict:
    """What the failure of a Snakemake job, or of a group of jobs, means.

    It is the last where every run that is not finished failed twice alike since `started`, and free where one of them
    got further than when the job was submitted (`job.reached_at_start`).
    """
    if any(memory.ran_out(Path(log)) for one in _members(job) for log in one.log):
        return Verdict(words="It ran out of memory; if it is tried again, then with more.")
    unfinished = [run for run in _runs(job) if manifest.read(run) is None]
    twice = [words for run in unfinished if (words := _failed_twice(run, started))]
    if twice and len(twice) == len(unfinished):
        return Verdict(last=True, words="; ".join(twice))
    before = getattr(job, "reached_at_start", {})
    further = [(before.get(run, 0), step) for run, step in reached(job).items() if step > before.get(run, 0)]
    if further:
        words = ", ".join(f"from step {one} to step {step}" for one, step in further)
        return Verdict(free=True, words=f"It got {words}, so this counts as no retry.")
    return Verdict()


def _failed_twice(run: Path, started: datetime) -> str | None:
    """What to say of a run whose last two attempts since `started` failed alike; None for another one."""
    ours = [
        attempt
        for attempt in attempts.read(run)
        if datetime.fromisoformat(attempt["started"]) >= started.replace(microsecond=0)
    ]
    ends = [(attempt["failed"], attempt["step"]) for attempt in ours[-2:] if "failed" in attempt]
    # Numbers in a message may differ though the reason is the same: bytes that are free, a process.
    alike = [(re.sub(r"\d+", "0", reason), step) for reason, step in ends]
    if len(ends) < 2 or alike[0] != alike[1]:
        return None
    reason, step = ends[1]
    return f"It failed twice at step {step} and is not tried again: {reason}"


def _members(job: Any) -> list[Any]:
    return list(job.jobs) if job.is_group() else [job]


def _runs(job: Any) -> list[Path]:
    """The runs that jobs train, by what they make: an outer workflow may call the rule something else."""
    made = (Path(file) for one in _members(job) for file in one.output)
    return list(dict.fromkeys(file.parent for file in made if file.parts[-3:-2] == ("runs",)))
