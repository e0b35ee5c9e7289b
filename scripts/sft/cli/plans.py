"""What configuration files mean, for all verbs alike: bad files end the program with one line for each problem (1)."""

import sys
from pathlib import Path

from sft.config.errors import ConfigError
from sft.config.reader import DEFAULT_FILE, load
from sft.planning.plan import Plan, PlanError
from sft.planning.planner import make_plan
from sft.workflow import Attached, from_config


def attached(files: list[Path]) -> Attached:
    """The plan of `files` (of the default file where none is given), and what of it is there."""
    require_default(files)
    try:
        return from_config(files, {})
    except (ConfigError, PlanError) as error:
        sys.exit(str(error))


def planned(files: list[Path]) -> Plan:
    """The plan of `files` alone, without a look at results."""
    require_default(files)
    try:
        return make_plan(load(files))
    except (ConfigError, PlanError) as error:
        sys.exit(str(error))


def require_default(files: list[Path]) -> None:
    """End the program where no file is named and there is no default file: nothing was asked for."""
    if not files and not DEFAULT_FILE.exists():
        sys.exit(f"error: there is no {DEFAULT_FILE} here. Name a configuration file after the verb")


def experiments(places: list[Path]) -> list[Path]:
    """The result directories of experiments that `places` name: directories as they are, files by their experiments."""
    files = [place for place in places if not place.is_dir()]
    named = [Path("results/experiments", name) for name in planned(files).runs] if files else []
    return [place for place in places if place.is_dir()] + named
