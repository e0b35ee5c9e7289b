"""Which configuration our Snakefile was given: files of the command line, or what a module is handed."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from sft.config.errors import ConfigError, Problem
from sft.config.evaluation_settings import Execution
from sft.config.experiment import Config
from sft.config.reader import DEFAULT_FILE
from sft.config.strict_yaml import Document, read_yaml
from sft.runtime.code import SCRIPTS
from sft.runtime.manifest import write_durably
from sft.workflow.attached import say

Given = tuple[list[Document], dict[str, Any]]


def of_main(workflow: Any) -> Given:
    """The configuration of our own Snakefile: --configfile, or the default file; and --config over it."""
    settings = workflow.config_settings
    files = list(settings.configfiles)
    if not files:
        # In another working directory (--directory) the default file is the checkout's own.
        files = [DEFAULT_FILE if DEFAULT_FILE.exists() else SCRIPTS.parent / DEFAULT_FILE]
    return [read_yaml(file) for file in files], dict(settings.config)


def of_module(workflow: Any, name: str, given: Any) -> Given:
    """The configuration that the outer workflow hands to module `name`, as documents that say where things stand.

    What is one file of the outer workflow is read from that file, strictly. Anything else (a dict, a part, several
    files that Snakemake has merged) is written to .snakemake/sft/ and read from there: problems name its lines.
    """
    if given is None:
        text = "`config:` is missing. Say which experiments it shall run: `config: config` after a `configfile:`"
        raise ConfigError([Problem(f"module {name}", None, "", text)])
    asked = workflow.config_settings.config
    overrides = {
        key: value for key, value in asked.items() if given.get(key) == value and key not in Config.model_fields
    }
    if workflow.is_main_process:
        lost = [key for key in asked if key.removeprefix("execution.") in Execution.model_fields and key not in given]
        for key in lost:
            say(f"note: module {name}: --config {key} does not reach it, since its `config:` is a part of yours")
    with blaming(name):
        if (file := _file_of(workflow, given)) is not None:
            return [read_yaml(file)], overrides
        return [_written(name, {key: value for key, value in given.items() if key not in overrides})], overrides


@contextmanager
def blaming(name: str) -> Iterator[None]:
    """Say of problems that they are those of module `name`; of our own Snakefile's ("") nothing."""
    try:
        yield
    except ConfigError as error:
        if not name:
            raise
        blamed = [
            one if str(one.path).startswith("module ") else replace(one, path=f"module {name}: {one.path}")
            for one in error.problems
        ]
        raise ConfigError(blamed) from None


def _file_of(workflow: Any, given: dict[str, Any]) -> Path | None:
    """The one configuration file of the outer workflow that, with --config over it, is what the module was given."""
    from snakemake.common.configfile import load_configfile
    from snakemake.utils import update_config

    files = list(dict.fromkeys(Path(file).absolute() for file in workflow.configfiles))
    for file in files:
        loaded: dict[str, Any] = load_configfile(file)
        update_config(loaded, workflow.config_settings.config)
        if loaded == given and not set(workflow.config_settings.config) & set(Config.model_fields):
            here = Path.cwd()
            return file.relative_to(here) if file.is_relative_to(here) else file
    return None


def _written(name: str, given: dict[str, Any]) -> Document:
    """A dict as a file for the strict reader: PyYAML writes the text 1e-5 without quotes, and it is a number again."""
    path = Path(".snakemake/sft", f"{name}.yaml")
    text = yaml.safe_dump(json.loads(json.dumps(given, default=str)), sort_keys=False, allow_unicode=True)
    if not path.exists() or path.read_text() != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_durably(path, text)
    return read_yaml(path)
