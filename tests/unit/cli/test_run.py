"""The line of Snakemake that `sft run` makes, and what it refuses before Snakemake starts."""

import shlex
from pathlib import Path

import pytest

from sft.cli import run
from sft_command import ROOT, sft


@pytest.fixture(autouse=True)
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder in which Snakemake finds a workflow by itself."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SNAKEMAKE_PROFILE", raising=False)
    (tmp_path / "Snakefile").touch()


@pytest.mark.parametrize(
    ("files", "passed", "words"),
    [
        ("", "", "--quiet rules progress --cores all"),
        ("a.yaml b.yaml", "", "--configfile a.yaml b.yaml --quiet rules progress --cores all"),
        ("a.yaml", "-n", "-n --configfile a.yaml --cores all"),
        ("a.yaml", "-np", "-np --configfile a.yaml --cores all"),
        ("a.yaml", "--cores=4", "--cores=4 --configfile a.yaml --quiet rules progress"),
        ("a.yaml", "-j4", "-j4 --configfile a.yaml --quiet rules progress"),
        ("a.yaml", "--profile p", "--profile p --configfile a.yaml"),
        ("", "-dnew -c 2", "-dnew -c 2 --quiet rules progress"),
        ("a.yaml", "figures --verbose", "figures --verbose --configfile a.yaml --cores all"),
        ("a.yaml", "-n -- x -c", "-n --configfile a.yaml --cores all -- x -c"),
    ],
)
def test_what_a_person_wants_is_added_where_nothing_was_said(files: str, passed: str, words: str) -> None:
    assert run.line([Path(file) for file in files.split()], passed.split(), []) == words.split()


def test_targets_come_first() -> None:
    words = run.line([Path("a b.yaml")], ["-n"], ["figures"])
    assert words == ["figures", "-n", "--configfile", "a b.yaml", "--cores", "all"]


def test_a_profile_of_the_environment_says_how(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SNAKEMAKE_PROFILE", "slurm")
    assert run.line([], [], []) == []


def test_elsewhere_the_workflow_of_this_command_runs() -> None:
    Path("Snakefile").unlink()
    assert run.line([], ["-n"], []) == ["-n", "--snakefile", str(ROOT / "Snakefile"), "--cores", "all"]
    assert run.line([], ["-n", "-s", "other.smk"], []) == ["-n", "-s", "other.smk", "--cores", "all"]


def test_nothing_is_run_where_nothing_was_asked_for(tmp_path: Path) -> None:
    """Never the demo of the package."""
    Path("Snakefile").unlink()
    done = sft("run", "-n", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr == "error: there is no config/config.yaml here. Name a configuration file after the verb\n"
    (tmp_path / "elsewhere").mkdir()
    for words in (("--directory", "elsewhere"), ("--directory=elsewhere",), ("-d", "elsewhere"), ("-delsewhere",)):
        done = sft("run", "-n", *words, cwd=tmp_path)
        assert done.returncode == 1
        assert done.stderr.startswith("error: there is no config/config.yaml in elsewhere. Name a configuration file")


def test_a_file_that_asks_for_code_is_refused_before_snakemake_reads_it(tmp_path: Path) -> None:
    Path("Snakefile").unlink()
    canary = tmp_path / "canary"
    code = f"import pathlib; pathlib.Path({str(canary)!r}).touch()"
    Path("evil.yaml").write_text(f"__use_yte__: true\n__definitions__:\n  - {code}\n")
    for words in ((), ("--directory", ".")):
        done = sft("run", "evil.yaml", "-n", *words, cwd=tmp_path)
        assert done.returncode == 1
        assert "__use_yte__" in done.stderr
        assert "snakemake" not in done.stderr.partition("evil.yaml")[0]
        assert not canary.exists()


@pytest.mark.slow
def test_the_line_that_is_printed_is_the_line_that_runs(tmp_path: Path) -> None:
    """Snakemake's own error about an option that it does not know, and its exit code."""
    Path("Snakefile").unlink()
    done = sft("run", ROOT / "config/config.yaml", "--no-such-option", cwd=tmp_path)
    printed, *_ = done.stderr.splitlines()
    words = shlex.split(printed)
    assert Path(words[0]).name == "snakemake"
    assert words[1:4] == ["--no-such-option", "--configfile", str(ROOT / "config/config.yaml")]
    assert "snakemake: error: unrecognized arguments: --no-such-option" in done.stderr
    assert done.returncode == 2
