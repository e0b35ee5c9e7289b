"""The comment of a SLURM job says which jobs of Snakemake are in it: to a later Snakemake, and to `sft status`.

    rule_train_model_wildcards_mine-s0-1a2b3c4d
    rule_predict_wildcards_mine-s0-1a2b3c4d_words-test-5e6f7a8b+rule_train_model_wildcards_mine-s0-1a2b3c4d

The first is the plugin's. For a group it names the rules alone; then ours joins what its jobs would have.
"""

from collections.abc import Iterable
from typing import Any

# How the comment of a job begins that Snakemake submitted.
SUBMITTED = "rule_"
JOINT = "+"  # which no result's name has
LONGEST = 1000  # SLURM takes 1024 characters


def members(comment: str) -> frozenset[str]:
    """The comments of the single jobs in the job with `comment`."""
    return frozenset(comment.split(JOINT))


def rules(comment: str) -> list[str]:
    """The names of their rules."""
    return sorted({one.removeprefix(SUBMITTED).partition("_wildcards_")[0] for one in members(comment)})


def trains(comment: str) -> bool:
    """Whether one of the jobs trains a run; an outer workflow may have renamed the rule (`use rule * as sft_*`)."""
    return any("train_model" in name for name in rules(comment))


def of_group(comments: Iterable[str]) -> str | None:
    """The comment of the group of jobs that have these comments; None where SLURM would not take one as long."""
    found = JOINT.join(sorted(comments))
    return found if len(found) <= LONGEST else None


def of_job(job: Any, wildcards: Any) -> frozenset[str]:
    """What the members of a Snakemake job (or group) have as comments; `wildcards`: the plugin's words for a job's."""
    return frozenset(_of_single(one, wildcards(one)) for one in (job.jobs if job.is_group() else [job]))


def _of_single(job: Any, wildcards: str) -> str:
    return f"{SUBMITTED}{job.name}" + (f"_wildcards_{wildcards}" if wildcards else "")
