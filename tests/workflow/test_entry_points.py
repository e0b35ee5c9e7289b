"""The ways in: from the root, by the workflow's own file, with bad input; what a user sees of each."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from checkouts import ROOT, SNAKEMAKE, Checkout, new_checkout

from sft_command import sft


@pytest.fixture
def fresh(tmp_path: Path) -> Checkout:
    return new_checkout(tmp_path / "fresh")


@pytest.mark.slow
def test_root_and_workflow_file_plan_the_same_jobs(fresh: Checkout) -> None:
    """A root Snakefile that only includes another does nothing and exits 0; ours must not."""
    from_root = fresh.planned()
    assert from_root["train_model"] == 2
    assert fresh.planned("-s", "workflow/Snakefile") == from_root


@pytest.mark.slow
def test_dry_run_writes_nothing(fresh: Checkout) -> None:
    fresh.planned()
    assert not (fresh.path / "results").exists()


@pytest.mark.slow
def test_bad_configuration_is_one_line_without_traceback(fresh: Checkout) -> None:
    fresh.replace("config/config.yaml", "learning_rate: 1e-3", "learnig_rate: 1e-3")
    done = fresh.snakemake("-n")
    assert done.returncode == 1
    assert "config.yaml:17: experiments.words.training.learnig_rate: unknown key. Did you mean" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_named_configuration_replaces_the_default(fresh: Checkout) -> None:
    text = (fresh.path / "config/config.yaml").read_text()
    (fresh.path / "mine.yaml").write_text(text.partition("  more_words:")[0])
    assert fresh.planned("--configfile", "mine.yaml")["train_model"] == 1


@pytest.mark.slow
def test_code_in_a_configuration_is_refused(fresh: Checkout) -> None:
    fresh.edit("config/config.yaml", lambda text: "__use_yte__: true\n" + text)
    done = fresh.snakemake("-n")
    assert done.returncode == 1
    assert "__use_yte__" in done.stderr


@pytest.mark.slow
def test_unknown_override_is_refused(fresh: Checkout) -> None:
    done = fresh.snakemake("-n", "--config", "devise=cpu")
    assert done.returncode == 1
    assert "devise: unknown key (did you mean device?)" in done.stderr


@pytest.mark.slow
def test_python_without_the_packages_gets_one_clear_line(fresh: Checkout, tmp_path: Path) -> None:
    """A Snakemake of another environment, where the training packages are not installed."""
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util as u\nfound = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name == 'torch' else found(name, *rest)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [SNAKEMAKE, "-n"], cwd=fresh.path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "has no torch. Use the environment of this project: make setup" in done.stderr
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_an_image_that_cannot_be_run_is_one_line(fresh: Checkout, tmp_path: Path) -> None:
    """Snakemake puts the path of an image into a command unquoted, and asks apptainer for its version at start."""
    (tmp_path / "apptainer").write_text("#!/bin/sh\necho apptainer version 1.4.0\n")
    (tmp_path / "apptainer").chmod(0o755)
    path = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    assert fresh.planned("--sdm", "apptainer", **path)["train_model"] == 2
    done = fresh.snakemake("--sdm", "apptainer", warm=False, **path)
    assert done.returncode == 1
    assert re.search(r"^error: there is no image .*/envs/snakemake-sft\.sif\. Build it", done.stderr, re.MULTILINE)
    moved = Checkout(fresh.path.rename(tmp_path / "a folder's name"))
    assert moved.planned()["train_model"] == 2, "without --sdm apptainer nothing is asked of the path"
    done = moved.snakemake("-n", "--sdm", "apptainer", **path)
    assert done.returncode == 1
    assert "Snakemake cannot run an image whose path has blanks or quotes" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_wrong_profile_path_fails(fresh: Checkout) -> None:
    assert fresh.snakemake("-n", "--profile", "workflow/profiles/nowhere").returncode != 0


def check(checkout: Path, *arguments: str) -> subprocess.CompletedProcess:
    return sft("check", *arguments, cwd=checkout, scripts=checkout / "scripts")


def test_check_lists_runs_and_jobs(fresh: Checkout) -> None:
    done = check(fresh.path)
    assert done.returncode == 0, done.stderr
    assert "2 experiments, 2 runs" in done.stdout
    assert "train_model" in done.stdout
    assert not (fresh.path / "results").exists()


def test_check_takes_about_a_second_and_imports_nothing_heavy(unmeasured) -> None:
    started = time.process_time()
    code = (
        "import sys; sys.path.insert(0, 'scripts')\n"
        "from sft.cli.__main__ import main; assert main(['check']) == 0\n"
        "heavy = {'torch', 'transformers', 'pandas', 'snakemake', 'numpy', 'pyarrow'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    clock = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - clock < 10, "two seconds on an idle machine; this bound is for a busy one"
    assert time.process_time() - started < 2


def test_check_says_what_is_wrong(fresh: Checkout) -> None:
    fresh.replace("config/config.yaml", "model: tiny\n", "model: tny\n")
    done = check(fresh.path)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "there is no model tny (did you mean tiny?)" in done.stderr


def test_check_runs_no_code_of_a_file(fresh: Checkout) -> None:
    canary = fresh.path / "canary"
    (fresh.path / "evil.yaml").write_text(
        f"__use_yte__: true\n__definitions__:\n  - import pathlib; pathlib.Path({str(canary)!r}).touch()\n"
    )
    done = check(fresh.path, "evil.yaml")
    assert done.returncode == 1
    assert not canary.exists()


@pytest.mark.slow
def test_every_shipped_configuration_is_good() -> None:
    experiments = ROOT / "config/experiments"
    files = [[file] for file in (ROOT / "config/config.yaml", *sorted(experiments.glob("*.yaml")))]
    names = [file.stem for file in experiments.glob("*.yaml")]
    for twin in sorted((experiments / "twins").glob("*.yaml")):
        # A twin changes the file of its name; one with more in its name changes the twin besides.
        name = max((name for name in names if twin.stem.startswith(name)), key=len)
        first = experiments / "twins" / f"{name}.yaml"
        files.append([experiments / first.name, *dict.fromkeys((first, twin))])
    assert len(files) >= 15
    for together in files:
        done = check(ROOT, *map(str, together))
        assert done.returncode == 0, f"{together}: {done.stderr}"
