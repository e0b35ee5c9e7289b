"""Runs what configuration files ask for: `sft run`. It becomes Snakemake; the line that is run is printed first."""

import argparse
import importlib.util
import os
import re
import shlex
import shutil
import sys
from pathlib import Path

from sft.cli import TREE
from sft.cli.plans import planned
from sft.config.errors import ConfigError
from sft.config.reader import DEFAULT_FILE
from sft.config.strict_yaml import read_yaml
from sft.workflow import ARCHIVE

SNAKEFILES = ("Snakefile", "snakefile", "workflow/Snakefile", "workflow/snakefile")  # where Snakemake looks itself


def run(options: argparse.Namespace) -> int:
    """Check the files and start Snakemake with them; 1 where they are not good, else Snakemake's exit code."""
    folder = directory(options.passed)
    # What a workflow of somebody else, which has this one as a module, takes from its files is for that one to say.
    if not (given(options.passed, "--snakefile", "-s") or (local_snakefile() and Path.cwd() != TREE)):
        if folder is not None:
            look_at(options.files, folder)
        elif options.files or not ARCHIVE.exists():
            planned(options.files)
    return start(options.files, options.passed)


def look_at(files: list[Path], folder: Path) -> None:
    """Refuse files with code, which Snakemake would run, and a `folder` to work in for which nothing was asked."""
    if not files and not (folder / ARCHIVE).exists():
        # A checkout's own default file stands for that of another folder; nobody asked for the one in a wheel.
        default = folder / DEFAULT_FILE if (folder / DEFAULT_FILE).exists() else DEFAULT_FILE
        if not default.exists():
            sys.exit(f"error: there is no {DEFAULT_FILE} in {folder}. Name a configuration file after the verb")
        files = [default]
    try:
        for file in files:
            read_yaml(file)
    except ConfigError as error:
        sys.exit(str(error))


def start(files: list[Path], passed: list[str], targets: list[str] | None = None) -> int:
    """Replace this process by Snakemake, which makes `targets` (by default everything that `files` ask for)."""
    program, words = snakemake(), line(files, passed, targets or [])
    shown = ["snakemake"] if shutil.which("snakemake") == program[0] else program
    print(shlex.join([*shown, *words]), file=sys.stderr, flush=True)
    sys.stdout.flush()
    os.execv(program[0], [*program, *words])


def line(files: list[Path], passed: list[str], targets: list[str]) -> list[str]:
    """The words after `snakemake`: what the user said, and what a person wants where nothing was said of it."""
    end = passed.index("--") if "--" in passed else len(passed)
    ours = ["--configfile", *map(str, files)] if files else []
    if not given(passed, "--snakefile", "-s") and not local_snakefile():
        ours += ["--snakefile", str(TREE / "Snakefile")]
    # A profile says these things itself.
    if not (given(passed, "--profile") or os.environ.get("SNAKEMAKE_PROFILE")):
        if not given(passed, "--quiet", "-q", "--verbose", "--dry-run", "--dryrun", "-n"):
            ours += ["--quiet", "rules", "progress"]  # each script prints a line; Snakemake's twelve a job are left out
        if not given(passed, "--cores", "-c", "--jobs", "-j"):
            ours += ["--cores", "all"]
    return [*targets, *passed[:end], *ours, *passed[end:]]


def given(passed: list[str], *options: str) -> bool:
    """Whether one of `options` is among words for Snakemake, also as `--cores=4`, `-c4` or in `-np`."""
    words = passed[: passed.index("--")] if "--" in passed else passed
    long = tuple(option for option in options if option.startswith("--"))
    short = "".join(option[1] for option in options if not option.startswith("--"))
    # Before a letter in one word stand flags without a value only: in `-dnew` the n is of a folder's name.
    return any(word.partition("=")[0] in long or (short and re.match(rf"-[npFkt]*[{short}]", word)) for word in words)


def directory(passed: list[str]) -> Path | None:
    """The folder that Snakemake is told to work in."""
    options = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    options.add_argument("--directory", "-d", type=Path)
    return options.parse_known_args(passed)[0].directory


def local_snakefile() -> bool:
    """Whether Snakemake finds a workflow here without being told where it is."""
    return any(Path(name).is_file() for name in SNAKEFILES)


def snakemake() -> list[str]:
    """What starts the Snakemake of this Python's environment."""
    beside = Path(sys.executable).with_name("snakemake")
    if beside.exists():
        return [str(beside)]
    if importlib.util.find_spec("snakemake") is None:
        sys.exit(f"error: {sys.executable} has no Snakemake. In a checkout: make setup")
    return [sys.executable, "-m", "snakemake"]
