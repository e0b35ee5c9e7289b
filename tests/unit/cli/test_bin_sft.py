"""The program bin/sft that set-up writes: it runs the checkout that it belongs to, whatever leads to it."""

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import set_up
from sft_command import ROOT

VERSION = 'print("the other checkout")'


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """An environment in a folder with awkward characters, with bin/sft and this test's Python."""
    home = tmp_path / "it's a place" / ".venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", home], check=True)
    options = argparse.Namespace(environment=home, only="")
    set_up.SetUp(options)._write_command()
    return home


def run(program: Path, *words: str, **variables: str) -> subprocess.CompletedProcess:
    return subprocess.run([program, *words], cwd="/", capture_output=True, text=True, env=os.environ | variables)


def test_it_runs_from_anywhere_and_through_links(environment: Path, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/sft").symlink_to(environment / "bin/sft")
    for program in (environment / "bin/sft", tmp_path / "bin/sft"):
        done = run(program, "--version")
        assert (done.returncode, done.stdout.split()[0]) == (0, "snakemake-sft"), done.stderr
    found = run(Path("/bin/sh"), "-c", "sft --version", PATH=f"{environment / 'bin'}:/usr/bin:/bin")
    assert found.stdout == done.stdout


def test_a_linked_environment_runs_the_checkout_that_it_is_linked_from(environment: Path, tmp_path: Path) -> None:
    """Two checkouts that share one .venv: each has its own code."""
    other = tmp_path / "other"
    shutil.copytree(ROOT / "scripts/sft/cli", other / "scripts/sft/cli")
    (other / "scripts/sft/__init__.py").touch()
    (other / "scripts/sft/cli/__main__.py").write_text(f"def main():\n    {VERSION}\n")
    (other / ".venv").symlink_to(environment)
    assert run(other / ".venv/bin/sft").stdout == "the other checkout\n"
    assert run(environment / "bin/sft", "--version").stdout.startswith("snakemake-sft ")


def test_a_current_environment_that_lacks_it_gets_it_and_no_word_is_said(environment: Path) -> None:
    """Environments that were made before there was the command."""
    (environment / "bin/sft").unlink()
    note = {"asked": ["auto", ""], "driver": set_up._has_driver(), "installed": {}, "python": "", "torch": "cpu"}
    (environment / set_up.NOTE).write_text(json.dumps(note))
    command = [sys.executable, ROOT / "tools/set_up.py", "--environment", environment]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert os.access(environment / "bin/sft", os.X_OK)
    before = (environment / "bin/sft").stat().st_mtime_ns
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    assert (environment / "bin/sft").stat().st_mtime_ns == before


def test_environments_of_other_locks_go_without(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    set_up.SetUp(argparse.Namespace(environment=tmp_path, only="locks/conda.txt"))._write_command()
    assert not list((tmp_path / "bin").iterdir())
