"""Jobs that an earlier Snakemake left running in this directory: taken over, not submitted a second time."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sft.slurm import queue
from sft.slurm.job import SUBMITTED

# Above that of every rule: a job that came to its end before it is taken over would be one nobody asks for.
PRIORITY = 1000


class ExecutorError(Exception):
    """The workflow cannot be run with this executor; says why."""


@dataclass
class Leftovers:
    """Jobs of an earlier Snakemake in this directory that wait or run; their comment tells rule and wildcards."""

    jobs: list[queue.QueuedJob]
    ended: dict[str, str] = field(default_factory=dict)  # taken over, and completed before they could be renamed

    @classmethod
    def find(cls, say: Callable[[str], None]) -> "Leftovers":
        listed = queue.jobs_of(str(Path.cwd()))
        if listed is None:
            raise ExecutorError(
                "SLURM does not list this user's jobs, so what still runs here is unknown. Try again later"
            )
        found = [job for job in listed if job.comment.startswith(SUBMITTED)]
        for job in found:
            say(f"job {job.id} ({job.comment}) of an earlier Snakemake is {job.state}: waited for, not submitted again")
        return cls(found)

    def take(self, comment: str, name: str) -> str | None:
        """Give the job with that comment the `name` by which this Snakemake asks for states; the job's number."""
        job = next((job for job in self.jobs if job.comment == comment), None)
        if job is None:
            return None
        self.jobs.remove(job)
        done = queue.run("scontrol", "update", f"JobId={job.id}", f"JobName={name}")
        if done is not None and done.returncode == 0:
            return job.id
        if queue.state(job.id) != "COMPLETED":
            return None
        self.ended[job.id] = "COMPLETED"
        return job.id

    def first(self, workflow: Any, comment: Callable[[Any], str]) -> None:
        """Have their jobs selected before those that are still to be submitted."""
        waiting = {job.comment for job in self.jobs}
        for job in workflow.dag.needrun_jobs():
            if comment(job) in waiting:
                workflow.dag._priority[job] = PRIORITY

    def wait_for_others(self, rules: set[str], say: Callable[[str], None]) -> None:
        """Wait for jobs that no single job of this workflow corresponds to: groups, whose comments name no results."""
        single = {f"rule_{rule}" for rule in rules}
        for job in [job for job in self.jobs if job.comment.partition("_wildcards_")[0] not in single]:
            say(f"waiting for job {job.id} ({job.comment}), a group of an earlier Snakemake")
            self.jobs.remove(job)
            while (state := queue.state(job.id)) is None or state in queue.ALIVE | queue.WAITING:
                time.sleep(5)
