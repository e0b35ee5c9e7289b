"""What the Snakefile knows: the plan, what of it is fresh, and how the rest has to be run.

Snakemake decides what to run from times of files and from records under .snakemake/, and neither survives a
clone, a copy or a `touch`. Here manifests decide (see sft.planning.freshness): stale results are handed to Snakemake as
files to be made again, and its own triggers are switched off so that there is one truth.
"""

import importlib.util
import json
import math
import os
import sys
import time
from pathlib import Path
from typing import Any

from sft.config.errors import ConfigError
from sft.config.reader import DEFAULT_FILE, load
from sft.config.study import Study
from sft.estimates.job_memory import job_mib
from sft.estimates.job_time import job_minutes
from sft.estimates.run_estimates import require_fit
from sft.planning import failures, freshness
from sft.planning.new_code import new_code
from sft.planning.node import Node, recorded_node
from sft.planning.plan import Plan, PlanError
from sft.planning.planner import make_plan
from sft.runtime import claim, head_lock, launch, manifest
from sft.runtime.code import SCRIPTS
from sft.slurm import executor
from sft.slurm.memory import asked
from sft.slurm.srun import on_every_node, on_first_node

ARCHIVE = Path("results/archive.json")

# What scripts import, looked for before anything starts; without conda they run in Snakemake's own environment.
REPORT_PACKAGES = ("matplotlib", "numpy", "pandas", "pyarrow", "seaborn")
ALL_PACKAGES = (*REPORT_PACKAGES, "accelerate", "datasets", "peft", "PIL", "sklearn", "torch", "transformers", "trl")


class Attached:
    """A plan and the states of its nodes, as rules ask for them."""

    def __init__(
        self, plan: Plan, states: dict[str, freshness.State], archived: bool = False, rerun_budget: float = math.inf
    ):
        self.plan = plan
        self.states = states
        self.archived = archived
        self.rerun_budget = rerun_budget  # device-minutes
        self.workflow: Any = None
        self._deciding = False
        self._started = time.time()

    def needs(self, directory: str) -> list[str]:
        """Manifests that must exist before the job of the node in `directory` starts.

        A fresh node needs no gates any more: what it is made from is fresh too, and a gate that is examined again
        is no reason to make it again. What has no job of its own (`Plan.join`) is there when the job that makes it is
        done; what this job makes first is no input of it, but what that is made from is.
        """
        self._decide()
        node = self._node(directory)
        gates = [] if self.fresh(directory) else node.gates.values()
        above = [*node.inputs.values(), *gates, *(deeper for first in node.first for deeper in first.inputs.values())]
        jobs = [made.made_with or made for made in above]
        return list(dict.fromkeys(job.manifest for job in jobs if job is not node))

    def fresh(self, directory: str) -> bool:
        """Whether the result in `directory` exists and is what the plan says."""
        return self.states[directory].fresh

    def setting(self, directory: str, key: str) -> Any:
        """An execution setting of a node, in the form that the rules pass on."""
        execution = self._node(directory).execution
        if key == "python":
            return execution.get("python", "python")
        if key == "gpu":
            return int(execution["device"] == "cuda") * _ranks_here(execution)
        if key == "cores":
            return execution["threads"] * _ranks_here(execution)
        if key == "distributed":
            return " ".join(launch.options(execution["distributed"]))
        if key == "micro_batch_size":
            return execution[key] or 0
        if key == "memory_mib":
            return job_mib(self._node(directory))
        if key == "runtime_minutes":
            return job_minutes(self._node(directory))
        if key == "keep_optimizer":
            return "--keep-optimizer" if execution[key] else "--no-keep-optimizer"
        return execution[key]

    def launch(self, threads: int) -> str:
        """What stands before a job's command: inside SLURM an srun of its own, else nothing."""
        return on_first_node(threads) if self._in_slurm() else ""

    def launch_ranks(self, directory: str, threads: int, nodes: int) -> str:
        """The option by which a run on several nodes starts its ranks there; nothing for others.

        `nodes`: what the job asks for, which has to be what the configuration spreads the run over.
        """
        wanted = self._node(directory).execution["distributed"]["nodes"]
        if wanted == 1 or self.workflow.dryrun:
            return ""
        if not self._in_slurm():
            raise ValueError(f"{directory} is spread over {wanted} nodes: that takes SLURM (docs/slurm.md)")
        if nodes != wanted:
            raise ValueError(
                f"{directory} is spread over {wanted} nodes, and its job asks for {nodes}. Say `nodes: {wanted}` for "
                "train_model in workflow/profiles/slurm/profile.yaml (docs/slurm.md shows the whole block)"
            )
        return f"--launch-prefix '{on_every_node(nodes, threads)}'"

    def memory(self, log: str, first: int, attempt: int) -> int:
        """MiB to ask for in an attempt of a job with this log."""
        return asked(Path(log), first, attempt)

    def _in_slurm(self) -> bool:
        """Whether jobs run under SLURM: in the process that submits them as in the one that runs them there.

        A container has no srun; there a stage goes without, and hears no signals.
        """
        if self.workflow is None or _uses(self.workflow, "APPTAINER"):
            return False
        if self.workflow.remote_exec:
            return "SLURM_JOB_ID" in os.environ
        plugin = self.workflow.executor_plugin
        return plugin is not None and plugin.name == "slurm"

    def wanted_downloads(self) -> list[str]:
        """Manifests of the planned nodes that may need a network."""
        return [
            node.manifest
            for node in self.plan.of_rule(
                "download_dataset", "download_model_files", "download_processor", "download_model", "make_environment"
            )
            if node.made_with is None and "initialise" not in node.config.get("source", {})
        ]

    def wanted(self, *rules: str) -> list[str]:
        """Manifests of the planned nodes whose rule's name starts with one of `rules`."""
        return [node.manifest for node in self.plan.nodes.values() if node.rule.startswith(rules)]

    def stale(self) -> dict[str, str]:
        """Manifest -> reason, for every planned result that exists and is not what the plan says."""
        return {
            self.plan.nodes[directory].manifest: state.reason
            for directory, state in self.states.items()
            if state.status == "stale"
        }

    def prepare(self) -> None:
        """Before the first job: the configuration files of what is to be made, and the readable links."""
        self._require_budget()
        for directory, node in self.plan.nodes.items():
            if not self.states[directory].fresh:
                write_config(node)
        if not self.archived:
            link_runs(self.plan)
        if self._in_slurm() and self.workflow.is_main_process:
            try:
                executor.install(self.workflow, _say)
            except executor.ExecutorError as error:
                sys.exit(f"error: {error}")

    def _require_budget(self) -> None:
        """End the program where new code would make more again than `execution.rerun_budget_minutes` allows."""
        if not self.workflow.is_main_process:
            return
        outputs = (Path(file) for job in self.workflow.dag.needrun_jobs() for file in job.output)
        made = (path.parent.as_posix() for path in outputs if path.name == manifest.NAME)
        found = new_code(self.plan, self.states, [directory for directory in made if directory in self.plan.nodes])
        if found.minutes > self.rerun_budget:
            sys.exit(
                f"error: execution.rerun_budget_minutes: {self.rerun_budget:g} is less than the {found.minutes:.1f} "
                "device-minutes that it took to make what new code would make again. Keep these results: snakemake "
                "--config code_policy=accept; or make them again: snakemake --config "
                f"rerun_budget_minutes={math.ceil(found.minutes)}"
            )

    def say_failures(self) -> None:
        """After a failure: for every result that was tried and is not there, its log and the last lines of it."""
        for directory, log in failures.failed_logs(self.plan, self._started):
            if not claim.alive(Path(directory)):
                _say(f"\nfailed: {directory}\nlog: {log}, which ends:")
                _say("\n".join(f"    {line}" for line in failures.last_lines(log)))

    def _decide(self) -> None:
        """Put manifests in charge of what runs, when Snakemake asks for the first input of the graph it builds.

        Earlier, while rules are parsed, neither the graph nor its settings exist. Snakemake treats incomplete
        files in the same way (`DAG.handle_incomplete` adds to `forcefiles`). Not a public interface: the truth
        table in tests/workflow holds it to its promise.
        """
        if self._deciding or self.workflow is None:
            return
        self._deciding = True
        self.workflow.dag.forcefiles |= set(self.stale())
        self.workflow.dag_settings.rerun_triggers = frozenset()
        # A killed job leaves Snakemake's marker "incomplete"; only a manifest makes a result complete here.
        self.workflow.dag_settings.force_incomplete = True
        head_lock.repair(self.workflow.persistence)

    def _node(self, directory: str) -> Node:
        try:
            return self.plan.nodes[directory]
        except KeyError:
            raise ValueError(f"{directory} is not part of the configured experiments") from None


def attach(workflow: Any) -> Attached:
    """Plan what `workflow` (Snakemake's) is asked for; a bad configuration ends the program with its problems."""
    settings = workflow.config_settings
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    try:
        if ARCHIVE.exists():
            attached = from_archive(settings.config.get("environment", "strict"))
        else:
            files = list(settings.configfiles)
            if not files and not DEFAULT_FILE.exists():
                # In another working directory (--directory) the embedded default is the checkout's own.
                files = [SCRIPTS.parent / DEFAULT_FILE]
            attached = from_config(files, dict(settings.config))
    except (ConfigError, PlanError) as error:
        sys.exit(str(error))
    attached.workflow = workflow
    if not _uses(workflow, "CONDA") and not _submits(workflow):
        _require(REPORT_PACKAGES if attached.archived else ALL_PACKAGES)
    if workflow.is_main_process:
        _say_what_is_stale(attached)
    return attached


def from_config(files: list[Path], overrides: dict[str, Any]) -> Attached:
    """The plan of configuration files, and what of it is there."""
    study: Study = load(files, overrides)
    plan = make_plan(study)
    require_fit(plan)
    states = freshness.examine(plan, study.execution.code_policy)
    return Attached(plan, states, rerun_budget=study.execution.rerun_budget_minutes)


def from_archive(environment: str) -> Attached:
    """The plan of an unpacked archive: its figures and tables, drawn from its ledgers; nothing is trained."""
    archive = json.loads(ARCHIVE.read_text())
    documents = {Path(directory).as_posix(): document for directory, document in archive["nodes"].items()}
    plan = Plan()
    ledgers = {d: recorded_node(d, document, {}) for d, document in documents.items() if d.endswith("/ledger")}
    for directory, document in documents.items():
        inputs = {name: ledgers[above] for name, above in document["inputs"].items() if above in ledgers}
        plan.add(ledgers.get(directory) or recorded_node(directory, document, inputs)).environment = environment
    states = freshness.examine(plan, given=frozenset(ledgers))
    print(f"figures are drawn from the archive unpacked at {ARCHIVE}; remove that file to train", file=sys.stderr)
    return Attached(plan, states, archived=True)


def write_config(node: Node) -> None:
    """Write a node's `config.json` unless it stands there already."""
    path = Path(node.directory, "config.json")
    text = json.dumps(node.document(), indent=1, ensure_ascii=False) + "\n"
    if not path.exists() or path.read_text() != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        manifest.write_durably(path, text)


def link_runs(plan: Plan) -> None:
    """`results/experiments/<name>/runs/<cell>/seed-<n>` as relative links to the runs, for people."""
    for experiment, runs in plan.runs.items():
        for run in runs:
            link = Path("results/experiments", experiment, "runs", run.cell, f"seed-{run.seed}")
            target = os.path.relpath(run.train.directory, link.parent)
            if link.is_symlink() and str(link.readlink()) == target:
                continue
            link.parent.mkdir(parents=True, exist_ok=True)
            link.unlink(missing_ok=True)
            link.symlink_to(target)


def _ranks_here(execution: dict[str, Any]) -> int:
    """Processes of a node's job on each machine; one for jobs that know no others."""
    distributed = execution.get("distributed")
    return launch.processes_per_node(distributed) if distributed else 1


def _uses(workflow: Any, method: str) -> bool:
    deployment = workflow.deployment_settings
    return deployment is not None and any(m.name == method for m in deployment.deployment_method)


def _submits(workflow: Any) -> bool:
    """Whether jobs run elsewhere: `--jobs` instead of `--cores`. Then this Python need not be one that trains."""
    return workflow.is_main_process and workflow.resource_settings.nodes is not None


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _require(packages: tuple[str, ...]) -> None:
    """One clear line where Snakemake was started by another Python than the project's."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        sys.exit(
            f"error: {sys.executable} has no {', '.join(missing)}. Use the environment of this project: make setup, "
            "then .venv/bin/snakemake; or let Snakemake build environments with --sdm conda (see README.md)"
        )


def _say_what_is_stale(attached: Attached) -> None:
    stale = attached.stale()
    for line in new_code(attached.plan, attached.states).lines():
        print(line, file=sys.stderr)
    for path, reason in list(stale.items())[:20]:
        print(f"again: {Path(path).parent}: {reason}", file=sys.stderr)
    if len(stale) > 20:
        print(f"again: {len(stale) - 20} more (make check lists them)", file=sys.stderr)
    for directory, state in attached.states.items():
        if state.fresh and state.other_code:
            print(f"kept: {directory}: {state.reason}", file=sys.stderr)
