# What rules need when Snakemake parses: the plan, the table of rules (scripts/sft/planning/rules.py), and functions
# that look into both. Patterns are those of the table; a prefix of a module is added by Snakemake.

from sft.planning.rules import RULES

GUEST = sft.workflow.attach(workflow, globals())
STUDY = GUEST.study
ARCHIVED = STUDY.archived


wildcard_constraints:
    id="[A-Za-z0-9][A-Za-z0-9._-]*",
    run="[A-Za-z0-9][A-Za-z0-9._-]*",
    dtype="float32|bfloat16",
    evaluation="[A-Za-z0-9][A-Za-z0-9._-]*",
    predictions="(runs/[^/]+/evaluations|baselines)/[^/]+",
    experiment="[A-Za-z0-9][A-Za-z0-9._-]*",
    figure="[a-z][a-z0-9_]*",


def beside(rule, *names):
    """Patterns of files in a result's directory."""
    return [f"results/{RULES[rule].directory}/{name}" for name in names]


def outputs(rule):
    """The manifest, which is written last, and the main files, except those that the report shows."""
    return beside(rule, "manifest.json", *RULES[rule].outputs)


def shown(rule, number=0):
    """One of the files that the report shows."""
    return beside(rule, RULES[rule].shown[number])[0]


def log_of(rule):
    return beside(rule, RULES[rule].log_name)[0]


def environment(rule):
    return f"../../envs/{RULES[rule].environment}.yaml"


def made_from(rule):
    """Input function: manifests of what a result is made from, and of its gates.

    For a fresh result they are `ancient`, since times of files decide nothing here (sft.planning.freshness does, by
    content). For one that has to be made they are plain: Snakemake follows a job to the jobs after it only along such
    files.
    """

    def manifests(wildcards):
        GUEST.take_charge()
        directory = STUDY.directory(rule, wildcards)
        paths = STUDY.needs(directory)
        return [ancient(path) for path in paths] if STUDY.fresh(directory) else paths

    return manifests


def node(rule):
    """Parameter: the result's directory, as scripts see it."""
    return lambda wildcards: STUDY.directory(rule, wildcards)


def script(rule):
    """Parameter: the program of the rule."""
    return lambda wildcards: STUDY.script(STUDY.directory(rule, wildcards))


def python(rule):
    """Parameter: what runs the program."""
    return lambda wildcards: STUDY.python(STUDY.directory(rule, wildcards))


def setting(rule, key):
    """Parameter or resource: an execution setting."""
    return lambda wildcards: STUDY.setting(STUDY.directory(rule, wildcards), key)


def memory(rule, mebibytes):
    """Resource: memory, more after an attempt that ran out of it.

    `mebibytes`: what is asked for at first, or the execution setting that says so.
    """
    return lambda wildcards, attempt: STUDY.memory(
        STUDY.directory(rule, wildcards), mebibytes, attempt
    )


def launch(wildcards, threads):
    """Parameter: what stands before the command of a job; outside SLURM nothing."""
    return STUDY.launch(threads)


def launch_ranks(wildcards, threads, resources):
    """Parameter: how a run on several nodes starts its processes; nothing for others."""
    directory = STUDY.directory("train_model", wildcards)
    return STUDY.launch_ranks(directory, threads, resources.get("nodes", 1))


def about(wildcards):
    """Parameter: what a figure is, as its script says first; in the report."""
    return STUDY.about(STUDY.directory("plot", wildcards))


def wanted(*rules):
    """Manifests of all planned results of `rules`."""
    return STUDY.wanted(*rules)


def wanted_downloads():
    """Manifests of what is fetched from elsewhere; weights that are made from a seed are not."""
    return STUDY.wanted_downloads()
