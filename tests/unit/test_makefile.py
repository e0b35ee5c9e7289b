"""The Makefile says what it offers, and says in one line when there is no Python to use."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def make(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    variables = {key: value for key, value in os.environ.items() if key not in ("MAKEFLAGS", "MAKELEVEL", "PYTHON")}
    return subprocess.run(
        ["make", "--no-print-directory", *arguments],
        cwd=ROOT,
        env=variables | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def old_python(tmp_path: Path) -> Path:
    """A folder of programs for PATH whose only Python is an old one."""
    folder = tmp_path / "bin"
    folder.mkdir()
    python = folder / "python3"
    python.write_text("#!/bin/sh\necho 3.9.2\n")
    python.chmod(0o755)
    return folder


def shown(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("error")]


def test_help_lists_every_target_with_what_it_does():
    text = (ROOT / "Makefile").read_text()
    phony = set(re.findall(r"^\.PHONY: (\S+)", text, re.MULTILINE))
    described = set(re.findall(r"^(\S+):[^#\n]* ## ", text, re.MULTILINE))
    assert phony - described == {"setup-tests"}, "a target without a ## comment is not listed"
    listed = make("help").stdout
    assert all(re.search(rf"^  make {target} ", listed, re.MULTILINE) for target in described)


def test_an_old_python_is_named_with_its_version(old_python):
    done = make("lock-check", f"PYTHON={old_python}/python3")
    assert done.returncode != 0
    assert shown(done.stderr) == [
        f"error: Python 3.11 or newer is needed; {old_python}/python3 is 3.9.2, "
        "name one with: make lock-check PYTHON=/path/to/python3.11"
    ]


def test_a_python_that_does_not_run_is_named():
    done = make("lock-check", "PYTHON=no-such-python")
    assert len(shown(done.stderr)) == 1
    assert "no-such-python does not run" in done.stderr


def test_the_first_python_that_is_new_enough_is_taken(old_python):
    # python3 is too old here; a newer one stands behind it under its full name.
    newer = old_python / "python3.13"
    newer.write_text('#!/bin/sh\nif [ "$1" = -c ]; then echo 3.13.0; else echo "taken: $0"; fi\n')
    newer.chmod(0o755)
    done = make("lock-check", PATH=f"{old_python}{os.pathsep}{os.environ['PATH']}")
    assert done.returncode == 0
    assert "python3 is" not in done.stderr


@pytest.mark.parametrize(
    ("words", "command"),
    [
        ("check", "sft check"),
        ("check CONFIG='a.yaml b.yaml'", "sft check a.yaml b.yaml"),
        ("explain A=x/0 B=x/1 CONFIG=a.yaml", "sft explain x/0 x/1 a.yaml"),
        ("status CONFIG=a.yaml WATCH=10", "sft status a.yaml --watch 10"),
        ("figures CONFIG=a.yaml", "sft figures a.yaml"),
        ("report CONFIG=a.yaml", "sft report a.yaml"),
    ],
)
def test_older_names_are_lines_of_sft(words, command):
    """Nothing is run: `make -n` prints the lines."""
    done = make("-n", *shlex.split(words))
    assert done.returncode == 0, done.stderr
    last = done.stdout.strip().splitlines()[-1]
    assert " ".join(last.split()) == str(ROOT / ".venv/bin" / command)
