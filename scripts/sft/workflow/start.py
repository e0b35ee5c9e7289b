"""Where the Snakefile begins: what Snakemake was asked for, planned."""

import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

from sft.config.errors import ConfigError
from sft.planning.new_code import new_code
from sft.planning.plan import PlanError
from sft.planning.rules import RULES
from sft.workflow import configuration
from sft.workflow.attached import Attached, say, uses
from sft.workflow.guest import Guest
from sft.workflow.planned import ARCHIVE, from_archive, from_documents

# What scripts import, looked for before anything starts; without conda they run in Snakemake's own environment.
REPORT_PACKAGES = ("matplotlib", "numpy", "pandas", "pyarrow", "seaborn")
ALL_PACKAGES = (*REPORT_PACKAGES, "accelerate", "datasets", "peft", "PIL", "sklearn", "torch", "transformers", "trl")

# By workflow and module. Every `use rule` executes the Snakefile again; what it asks for is planned already.
_known: dict[tuple[int, str], Guest] = {}


def attach(workflow: Any, namespace: dict[str, Any]) -> Guest:
    """Plan what `workflow` (Snakemake's) asks our Snakefile for, whose globals are `namespace`.

    A bad configuration ends the program with its problems, a line each.
    """
    is_module = not workflow.modifier.is_main_snakefile()
    name = workflow.modifier.namespace or "" if is_module else ""
    _refuse_storage(workflow)
    results = _results(workflow)
    _follow_renamed_rules(workflow)
    given = namespace["config"] if is_module and workflow.modifier.skip_configfile else None
    try:
        key = (id(workflow), name)
        if key not in _known:
            _refuse_shared_results(workflow, name, results)
            _known[key] = _new(workflow, is_module, name, given, results)
    except (ConfigError, PlanError) as error:
        sys.exit(str(error))
    guest = _known[key]
    guest.namespaces.append(namespace)
    return guest


def _new(workflow: Any, is_module: bool, name: str, given: Any, results: str) -> Guest:
    if not is_module:
        # Rules run `python scripts/...`: it is the one that Snakemake runs in, also where nobody activated it.
        os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    if Path(results, ARCHIVE.name).exists():
        study = from_archive(workflow.config_settings.config.get("environment", "strict"), results)
    else:
        if is_module:
            documents, overrides = configuration.of_module(workflow, name, given)
        else:
            documents, overrides = configuration.of_main(workflow)
        with configuration.blaming(name):
            study = from_documents(documents, overrides, results)
    study.workflow, study.is_module = workflow, is_module
    if not uses(workflow, "CONDA") and not _submits(workflow):
        _require(REPORT_PACKAGES if study.archived else ALL_PACKAGES)
    if workflow.is_main_process:
        _say_what_is_stale(study)
        _say_what_has_no_job(study, name)
    return Guest(study)


def _results(workflow: Any) -> str:
    """The folder of results as the jobs' own names have it: with the prefix of the module."""
    return workflow.modifier.path_modifier.replace_prefix("results/x").removesuffix("/x")


def _follow_renamed_rules(workflow: Any) -> None:
    """What a profile sets for `train_model` holds for it under the name that an outer workflow gives it, too.

    Not where the outer workflow has a rule of that name itself, or sets something for the new name.
    """
    settings = workflow.resource_settings
    for name in RULES:
        renamed = workflow.modifier.avail_rulename(name)
        if renamed is None or renamed == name or workflow.is_rule(name):
            continue
        for overwritten in (settings._parsed_overwrite_resources, settings._parsed_overwrite_threads):
            if name in overwritten:
                overwritten.setdefault(renamed, overwritten[name])


def _refuse_shared_results(workflow: Any, name: str, results: str) -> None:
    for (asked, other), guest in _known.items():
        if asked == id(workflow) and guest.study.results == results:
            sys.exit(
                f"error: modules {other} and {name} would both write into {results}/. Give them prefixes "
                '(`prefix: "first"`), or merge their configurations into one module'
            )


def _refuse_storage(workflow: Any) -> None:
    if provider := workflow.storage_settings.default_storage_provider:
        sys.exit(
            f"error: --default-storage-provider {provider}: the scripts of this workflow read and write files below "
            "the working directory, which all machines have to share. Leave the option out, and copy results/ after"
        )


def _submits(workflow: Any) -> bool:
    """Whether jobs run elsewhere: `--jobs` instead of `--cores`. Then this Python need not be one that trains."""
    return workflow.is_main_process and workflow.resource_settings.nodes is not None


def _require(packages: tuple[str, ...]) -> None:
    """One clear line where Snakemake was started by another Python than the project's."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        sys.exit(
            f"error: {sys.executable} has no {', '.join(missing)}. Use the environment of this project: make setup, "
            "then .venv/bin/snakemake; or let Snakemake build environments with --sdm conda (see README.md)"
        )


def _say_what_is_stale(study: Attached) -> None:
    for line in new_code(study.plan, study.states).lines():
        say(line)
    stale = study.stale()
    for path, reason in list(stale.items())[:20]:
        say(f"again: {Path(path).parent}: {reason}")
    if len(stale) > 20:
        say(f"again: {len(stale) - 20} more (sft check lists them)")
    for directory, state in study.states.items():
        if state.fresh and state.other_code:
            say(f"kept: {directory}: {state.reason}")


def _say_what_has_no_job(study: Attached, name: str) -> None:
    """Small results are made by the process of a job that needs them; Snakemake's table of jobs does not count them."""
    hosts: dict[str, list[str]] = {}
    for (rule, host), number in study.within().items():
        hosts.setdefault(host, []).append(f"{number} {rule}")
    if hosts:
        whose = f"module {name}, besides" if name else "besides"
        say(f"{whose} its jobs: " + "; ".join(f"{', '.join(made)} within {host}" for host, made in hosts.items()))
