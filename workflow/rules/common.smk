# What rules need when Snakemake parses: the plan, and functions that look into it.

import sys
from pathlib import Path

HERE = Path(workflow.current_basedir.get_path_or_uri(secret_free=False))
SCRIPTS = (HERE / "../../scripts").resolve()
IMAGE = SCRIPTS.parent / "envs/snakemake-sft.sif"
sys.path.insert(0, str(SCRIPTS))

from sft.workflow import attach

STUDY = attach(workflow)
ARCHIVED = STUDY.archived


wildcard_constraints:
    id="[A-Za-z0-9][A-Za-z0-9._-]*",
    run="[A-Za-z0-9][A-Za-z0-9._-]*",
    dtype="float32|bfloat16",
    evaluation="[A-Za-z0-9][A-Za-z0-9._-]*",
    experiment="[A-Za-z0-9][A-Za-z0-9._-]*",
    kind="[a-z_]+",


def script(name):
    # A Path, not a string: Snakemake would show a moved checkout as a changed parameter.
    return SCRIPTS / f"{name}.py"


def made_from(directory):
    """Input function: manifests of what the node in `directory` (a pattern) is made from, and of its gates.

    For a fresh node they are `ancient`, since times of files decide nothing here (sft.planning.freshness does, by content).
    For one that has to be made they are plain: Snakemake follows a job to the jobs after it only along such files.
    """

    def manifests(wildcards):
        node = directory.format(**wildcards)
        paths = STUDY.needs(node)
        return [ancient(path) for path in paths] if STUDY.fresh(node) else paths

    return manifests


def setting(directory, key):
    """Resource function: an execution setting of the node in `directory` (a pattern)."""

    def value(wildcards):
        return STUDY.setting(directory.format(**wildcards), key)

    return value


def memory(directory, mebibytes, rule):
    """Resource function: memory of the node in `directory` (a pattern), more after an attempt that ran out of it.

    `mebibytes`: what is asked for at first, or the execution setting that says so.
    """

    def value(wildcards, attempt):
        node = directory.format(**wildcards)
        first = mebibytes if isinstance(mebibytes, int) else STUDY.setting(node, mebibytes)
        return STUDY.memory(f"{node}/{rule}.log", first, attempt)

    return value


def launch(wildcards, threads):
    """Parameter: what stands before the command of a job; outside SLURM nothing."""
    return STUDY.launch(threads)


def launch_ranks(wildcards, threads, resources):
    """Parameter: how a run on several nodes starts its processes; nothing for others."""
    return STUDY.launch_ranks(f"results/runs/{wildcards.run}", threads, resources.get("nodes", 1))


def wanted(*rules):
    """Manifests of all planned nodes whose rule starts with one of `rules`."""
    return STUDY.wanted(*rules)


def wanted_downloads():
    """Manifests of what is fetched from elsewhere; weights that are made from a seed are not."""
    return STUDY.wanted_downloads()
