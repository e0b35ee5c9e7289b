"""Manifests in charge of what runs, in a workflow that may be somebody else's.

Stale results are handed to Snakemake as files to be made again, and its own reasons (changed parameters, code, inputs,
markers of killed jobs) are switched off for jobs of our rules, so that there is one truth. Jobs of other rules, in a
workflow that uses this one as a module, keep theirs. None of this is a public interface of Snakemake: the truth tables
in tests/workflow hold it to its promise.
"""

import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sft.planning.new_code import new_code
from sft.planning.rules import RULES
from sft.runtime import head_lock, manifest
from sft.slurm import executor
from sft.workflow.attached import IMAGE, Attached, say
from sft.workflow.planned import link_runs, write_config

TARGETS = ("all", "figures", "audits", "runs", "downloads")


class Guest:
    """Takes charge when Snakemake asks for the first input of the graph that it builds.

    Earlier, while rules are parsed, neither the graph nor its settings exist, and an outer workflow may still be
    defining its handlers. `namespaces`: the globals of each execution of our Snakefile; `use rule` executes it again.
    """

    def __init__(self, study: Attached):
        self.study = study
        self.namespaces: list[dict[str, Any]] = []
        self._in_charge = False

    def take_charge(self) -> None:
        """Once a process: what is stale, whose reasons count, and what is done before and after the jobs."""
        workflow = self.study.workflow
        if self._in_charge or workflow is None:
            return
        self._in_charge = True
        # Snakemake treats incomplete files in the same way (`DAG.check_incomplete` adds to `forcefiles`).
        workflow.dag.forcefiles |= set(self.study.stale())
        self._have_no_reasons(workflow.persistence)
        if not self.study.is_module:  # how an outer workflow locks its folder is its own
            head_lock.repair(workflow.persistence)
        # Of a module, Snakemake takes neither (Workflow.onstart), and an outer workflow's own have to run as well.
        start, error = workflow._onstart, workflow._onerror
        workflow._onstart = _both(self.prepare, start)
        workflow._onerror = _both(self.study.say_failures, error)

    def prepare(self) -> None:
        """Before the first job: the configuration files of what is to be made, and the readable links."""
        study, workflow = self.study, self.study.workflow
        if workflow.is_main_process:
            _refuse_separate_disks(workflow)
            if study.in_container() and not IMAGE.exists():
                sys.exit(f"error: there is no image {IMAGE}. Build it in a checkout (make image) and copy it there")
            self._require_budget()
        for node in study.plan.nodes.values():
            if not study.fresh(node.directory):
                write_config(node)
        if not study.archived:
            link_runs(study.plan)
        if study.in_slurm() and workflow.is_main_process:
            try:
                executor.install(workflow, say)
            except executor.ExecutorError as error:
                sys.exit(f"error: {error}")

    def _require_budget(self) -> None:
        """End the program where new code would make more again than `execution.rerun_budget_minutes` allows."""
        study = self.study
        outputs = (Path(file) for job in study.workflow.dag.needrun_jobs() for file in job.output)
        made = (path.parent.as_posix() for path in outputs if path.name == manifest.NAME)
        found = new_code(study.plan, study.states, [directory for directory in made if directory in study.plan.nodes])
        if not found.minutes <= study.rerun_budget:
            sys.exit(
                f"error: execution.rerun_budget_minutes: {study.rerun_budget:g} is less than the {found.minutes:.1f} "
                "device-minutes that it took to make what new code would make again. Keep these results: snakemake "
                "--config code_policy=accept; or make them again: snakemake --config "
                f"rerun_budget_minutes={math.ceil(found.minutes)}"
            )

    def _is_ours(self, job: Any) -> bool:
        ours = any(job.rule.module_globals is namespace for namespace in self.namespaces)
        # Where another Snakefile includes ours, its rules have the same globals.
        return ours and (self.study.is_module or job.rule.name in RULES or job.rule.name in TARGETS)

    def _have_no_reasons(self, persistence: Any) -> None:
        from snakemake.persistence import NO_PARAMS_CHANGE

        nothing = {
            "params_changed": NO_PARAMS_CHANGE,
            "input_changed": (),
            "code_changed": (),
            "software_stack_changed": (),
            "external_jobids": (),
        }
        for name, no_reason in nothing.items():
            setattr(persistence, name, self._unless_ours(getattr(persistence, name), no_reason))
        # A killed job leaves Snakemake's marker "incomplete"; only a manifest makes a result complete here.
        marked = persistence.incomplete

        async def incomplete(job: Any) -> list[Any]:
            return [] if self._is_ours(job) else await marked(job)

        persistence.incomplete = incomplete

    def _unless_ours(self, asked: Callable, no_reason: Any) -> Callable:
        def of_job(job: Any, *more: Any, **named: Any) -> Any:
            return no_reason if self._is_ours(job) else asked(job, *more, **named)

        return of_job


def _both(ours: Callable[[], None], theirs: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def handler(log: Any) -> Any:
        ours()
        return theirs(log)

    return handler


def _refuse_separate_disks(workflow: Any) -> None:
    """One line where jobs would run on machines that do not see the files of this one."""
    from snakemake.settings.types import SharedFSUsage

    needed = {SharedFSUsage.INPUT_OUTPUT, SharedFSUsage.SOURCES, SharedFSUsage.PERSISTENCE}
    if not needed <= set(workflow.storage_settings.shared_fs_usage):
        sys.exit(
            "error: jobs would run without a shared file system (--shared-fs-usage), and the scripts read and write "
            "files below the working directory. Use an executor whose machines share it, such as slurm"
        )
