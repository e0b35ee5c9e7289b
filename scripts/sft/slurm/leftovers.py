"""Jobs that an earlier Snakemake left running in this directory: taken over, not submitted a second time."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sft.runtime import job_comments as comments
from sft.runtime import job_queue as queue

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
        found = [job for job in listed if job.comment.startswith(comments.SUBMITTED)]
        for job in found:
            say(f"job {job.id} ({job.comment}) of an earlier Snakemake is {job.state}; it is not submitted again")
        return cls(found)

    def take(self, members: frozenset[str], name: str) -> str | None:
        """Give the job that these are in the `name` by which this Snakemake asks for states; the job's number."""
        job = next((job for job in self.jobs if members <= comments.members(job.comment)), None)
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

    def first(self, workflow: Any, planned: dict[Any, frozenset[str]]) -> None:
        """Have their jobs selected before those that are still to be submitted."""
        waiting = frozenset().union(*(comments.members(job.comment) for job in self.jobs))
        for unit, members in planned.items():
            if members <= waiting:
                for job in unit.jobs if unit.is_group() else [unit]:
                    workflow.dag._priority[job] = PRIORITY

    def wait_for_others(self, planned: list[frozenset[str]], rules: set[str], say: Callable[[str], None]) -> None:
        """Wait for jobs with results of this workflow in them that no job of it can take over.

        `planned`: what is in each of those. One takes over a job in which all of it is, and nothing of another one:
        what was grouped then and is not now ends before anything is submitted. So does what no comment tells: a group
        without names of results, of which `rules` has no rule. What nobody asks for now goes on by itself.
        """
        of = {member: members for members in planned for member in members}
        for job in list(self.jobs):
            here = comments.members(job.comment)
            asked = {of[member] for member in here if member in of}
            known = rules.issuperset(comments.rules(job.comment))
            if known and (not asked or (len(asked) == 1 and next(iter(asked)) <= here)):
                continue
            say(f"waiting for job {job.id} ({job.comment}) of an earlier Snakemake: no job of this one is what it is")
            self.jobs.remove(job)
            while (state := queue.state(job.id)) is None or state in queue.ALIVE | queue.WAITING:
                time.sleep(5)
