"""A plan and the states of its nodes, as rules ask for them.

Snakemake decides what to run from times of files and from records under .snakemake/, and neither survives a clone, a
copy or a `touch`. Here manifests decide (sft.planning.freshness): see sft.workflow.guest.
"""

import ast
import math
import os
import sys
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sft.estimates.job_memory import job_mib
from sft.estimates.job_time import job_minutes
from sft.planning import failures, freshness
from sft.planning.node import Node
from sft.planning.plan import Plan
from sft.planning.rules import RULES
from sft.runtime import claim, launch
from sft.runtime.code import SCRIPTS
from sft.slurm.memory import asked
from sft.slurm.srun import on_every_node, on_first_node

IMAGE = SCRIPTS.parent / "envs/snakemake-sft.sif"
NETWORK = ("download_dataset", "download_model_files", "download_processor", "download_model", "make_environment")


class Attached:
    """A plan, what of it is fresh, and how the rest has to be run.

    `results`: the folder that results lie in. Where it is another than "results" (a module with a prefix), Snakemake
    adds the prefix to every name that a rule or an input function gives it; all other names have it here already.
    """

    def __init__(
        self,
        plan: Plan,
        states: dict[str, freshness.State],
        archived: bool = False,
        rerun_budget: float = math.inf,
        results: str = "results",
    ):
        self.plan = plan
        self.states = states
        self.archived = archived
        self.rerun_budget = rerun_budget  # device-minutes
        self.results = results
        self.workflow: Any = None
        self.is_module = False
        self.started = time.time()

    # What a rule asks about the result that its wildcards mean, by its directory

    def directory(self, rule: str, wildcards: Mapping[str, str]) -> str:
        """The directory of a job's result."""
        return f"{self.results}/{RULES[rule].directory.format(**wildcards)}"

    def needs(self, directory: str) -> list[str]:
        """Manifests that must exist before the job of `directory` starts, as rules name them.

        A fresh node needs no gates any more: what it is made from is fresh too, and a gate that is examined again
        is no reason to make it again. What has no job of its own (`Plan.join`) is there when the job that makes it is
        done; what this job makes first is no input of it, but what that is made from is.
        """
        node = self._node(directory)
        gates = [] if self.fresh(directory) else node.gates.values()
        above = [*node.inputs.values(), *gates, *(deeper for first in node.first for deeper in first.inputs.values())]
        jobs = [made.made_with or made for made in above]
        return list(dict.fromkeys(_asked_for(job) for job in jobs if job is not node))

    def fresh(self, directory: str) -> bool:
        """Whether the result in `directory` exists and is what the plan says."""
        return self.states[directory].fresh

    def script(self, directory: str) -> Path:
        """What a job runs. A Path, not a string: Snakemake would show a moved checkout as a changed parameter."""
        return SCRIPTS / f"{self._node(directory).rule}.py"

    def about(self, directory: str) -> str:
        """What a figure is: the first paragraph of what its script says of itself."""
        node = self._node(directory)
        path = Path(node.config["script"]) if "script" in node.config else self.script(directory)
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or path.name
        return text.partition("\n\n")[0]

    def python(self, directory: str) -> str:
        """The Python of a job: of the node's own packages, of the rule's environment, or the one Snakemake runs in."""
        execution = self._node(directory).execution
        if "python" in execution:
            return execution["python"]
        deployed = uses(self.workflow, "CONDA") or uses(self.workflow, "APPTAINER")
        return sys.executable if self.is_module and not deployed else "python"

    def setting(self, directory: str, key: str) -> Any:
        """An execution setting of a node, in the form that the rules pass on."""
        node = self._node(directory)
        execution = node.execution
        if key == "gpu":
            return int(execution["device"] == "cuda") * _ranks_here(execution)
        if key == "cores":
            return execution["threads"] * _ranks_here(execution)
        if key == "distributed":
            return " ".join(launch.options(execution["distributed"]))
        if key == "micro_batch_size":
            return execution[key] or 0
        if key == "memory_mib":
            return job_mib(node)
        if key == "runtime_minutes":
            return job_minutes(node)
        if key == "keep_optimizer":
            return "--keep-optimizer" if execution[key] else "--no-keep-optimizer"
        return execution[key]

    def memory(self, directory: str, mebibytes: int | str, attempt: int) -> int:
        """MiB to ask for in an attempt; `mebibytes`: at first, or the execution setting that says so."""
        first = mebibytes if isinstance(mebibytes, int) else self.setting(directory, mebibytes)
        return asked(Path(self._node(directory).log), first, attempt)

    def launch(self, threads: int) -> str:
        """What stands before a job's command: inside SLURM an srun of its own, else nothing."""
        return on_first_node(threads) if self.in_slurm() else ""

    def launch_ranks(self, directory: str, threads: int, nodes: int) -> str:
        """The option by which a run on several nodes starts its ranks there; nothing for others.

        `nodes`: what the job asks for, which has to be what the configuration spreads the run over.
        """
        wanted = self._node(directory).execution["distributed"]["nodes"]
        if wanted == 1 or self.workflow.dryrun:
            return ""
        if not self.in_slurm():
            raise ValueError(f"{directory} is spread over {wanted} nodes: that takes SLURM (docs/slurm.md)")
        if nodes != wanted:
            raise ValueError(
                f"{directory} is spread over {wanted} nodes, and its job asks for {nodes}. Say `nodes: {wanted}` "
                "for train_model in workflow/profiles/slurm/profile.yaml (docs/slurm.md shows the whole block)"
            )
        return f"--launch-prefix '{on_every_node(nodes, threads)}'"

    # What the target rules ask for

    def wanted(self, *rules: str) -> list[str]:
        """Manifests, as rules name them, of the planned nodes that these rules make."""
        return [_asked_for(node) for node in self.plan.nodes.values() if node.made_by.name in rules]

    def wanted_downloads(self) -> list[str]:
        """The same of the nodes that may need a network; weights that are made from a seed are not."""
        return [
            _asked_for(node)
            for node in self.plan.of_rule(*NETWORK)
            if node.made_with is None and "initialise" not in node.config.get("source", {})
        ]

    # The whole

    def in_slurm(self) -> bool:
        """Whether jobs run under SLURM: in the process that submits them as in the one that runs them there.

        A container has no srun; there a stage goes without, and hears no signals.
        """
        if self.workflow is None or uses(self.workflow, "APPTAINER"):
            return False
        if self.workflow.remote_exec:
            return "SLURM_JOB_ID" in os.environ
        plugin = self.workflow.executor_plugin
        return plugin is not None and plugin.name == "slurm"

    def in_container(self) -> bool:
        """Whether jobs run in the image of this project (--sdm apptainer)."""
        return uses(self.workflow, "APPTAINER")

    def image(self) -> str:
        """That image; ends the program where Snakemake could not run it, since it does not quote its path."""
        if any(character in " \t'\"$`\\" for character in str(IMAGE)):
            sys.exit(
                f"error: {IMAGE}: Snakemake cannot run an image whose path has blanks or quotes. Move the checkout"
            )
        return str(IMAGE)

    def stale(self) -> dict[str, str]:
        """Manifest -> reason, for every planned result that exists and is not what the plan says."""
        return {
            self.plan.nodes[directory].manifest: state.reason
            for directory, state in self.states.items()
            if state.status == "stale"
        }

    def within(self) -> Counter[tuple[str, str]]:
        """(rule, rule in whose jobs) -> number of results that are to be made and have no job of their own."""
        return Counter(
            (node.rule, node.made_with.rule)
            for node in self.plan.nodes.values()
            if node.made_with and not self.fresh(node.directory)
        )

    def say_failures(self) -> None:
        """After a failure: for every result that was tried and is not there, its log and the last lines of it."""
        for directory, log in failures.failed_logs(self.plan, self.started):
            if not claim.alive(Path(directory)):
                say(f"\nfailed: {directory}\nlog: {log}, which ends:")
                say("\n".join(f"    {line}" for line in failures.last_lines(log)))

    def _node(self, directory: str) -> Node:
        try:
            return self.plan.nodes[directory]
        except KeyError:
            raise ValueError(f"{directory} is not part of the configured experiments") from None


def say(text: str) -> None:
    """One line to the terminal of whoever started Snakemake."""
    print(text, file=sys.stderr, flush=True)


def uses(workflow: Any, method: str) -> bool:
    """Whether Snakemake was started with `--sdm <method>`."""
    deployment = workflow.deployment_settings
    return deployment is not None and any(m.name == method for m in deployment.deployment_method)


def _asked_for(node: Node) -> str:
    return f"results/{node.path}/manifest.json"


def _ranks_here(execution: dict[str, Any]) -> int:
    """Processes of a node's job on each machine; one for jobs that know no others."""
    distributed = execution.get("distributed")
    return launch.processes_per_node(distributed) if distributed else 1
