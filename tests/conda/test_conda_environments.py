"""`snakemake --sdm conda` with a real conda: what ran is what was pinned, and what is wrong is said.

Packages come from PyPI, python and pip from a channel packed on this machine (local_conda.py), which is kept in the
user's cache folder under a name that says what it was made from.
"""

import fcntl
import hashlib
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import local_conda
import made_up_experiment as made_up
import pytest
from local_conda import HERE, ROOT
from outer import clone, commit, module, outer

from pins import normal, read_source, read_yaml

pytestmark = [pytest.mark.conda, pytest.mark.thorough, pytest.mark.slow]

SMALL = """\
channels:
  - conda-forge
  - nodefaults
dependencies:
  - python ==3.11.7
  - pip ==25.3
  - pip:
      - tabulate==0.10.0
"""
SNAKEFILE = """\
rule probe:
    output:
        "probe.txt",
    conda:
        "probe.yaml"
    shell:
        "python probe.py > {output}"
"""
PRINT_VERSION = "import tabulate\nprint(tabulate.__version__)\n"


@dataclass
class Conda:
    """Runs Snakemake with a real conda on PATH; environments are shared by all tests and later runs."""

    directory: Path

    def snakemake(self, where: Path, *arguments: str, **changes: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "snakemake", "--cores", "1", "--sdm", "conda"]
        command += ["--conda-prefix", str(self.directory / "environments"), *arguments]
        variables = os.environ | {
            "CONDARC": str(self.directory / "condarc"),
            "PATH": os.pathsep.join([str(self.directory / "base/condabin"), os.environ["PATH"]]),
            "PIP_NO_COMPILE": "1",  # compiling is half of an environment's time; the tests start few processes in it
        }
        with (self.directory / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # two processes must not make one environment at once
            return subprocess.run(
                command, cwd=where, env=variables | changes, capture_output=True, text=True, check=False
            )


@pytest.fixture(scope="session")
def conda() -> Conda:
    pinned = read_source(ROOT / "envs/conda.in", ROOT).pins["python"].version
    if platform.python_version() != pinned:
        pytest.skip(f"the environments pin Python {pinned}; only this one, {platform.python_version()}, can be packed")
    made_from = [HERE / "local_conda.py", HERE / "local_channel.py", ROOT / "locks/conda.txt"]
    key = hashlib.sha256(b"".join(path.read_bytes() for path in made_from) + sys.base_prefix.encode()).hexdigest()[:12]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "snakemake-sft"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another process of pytest-xdist, or of another checkout
        try:
            local_conda.make(cache / f"conda-{key}")
        except local_conda.NotHereError as reason:
            pytest.skip(f"no real conda can be made here: {reason}")
    return Conda(cache / f"conda-{key}")


def workflow(folder: Path, yaml: str, program: str) -> Path:
    """A workflow of one rule, which runs `program` in the environment `yaml`."""
    (folder / "Snakefile").write_text(SNAKEFILE)
    (folder / "probe.yaml").write_text(yaml)
    (folder / "probe.py").write_text(program)
    return folder


def test_the_report_environment_holds_its_pins_alone_and_draws_the_same_bytes_as_venv(conda, tmp_path):
    ledger = made_up.write_experiment(tmp_path / "study")
    config = made_up.shown(tuple(made_up.CORRECT))
    nodes = {
        where: made_up.write_node(tmp_path / where / "comparison", "plot_comparison", config, {"ledger": ledger})
        for where in ("venv", "conda")
    }
    program = f"""\
import importlib.metadata, json, subprocess, sys
subprocess.run([sys.executable, {str(ROOT / "scripts/plot_comparison.py")!r}, {str(nodes["conda"])!r}], check=True,
               stdout=subprocess.DEVNULL)
print(json.dumps([sys.prefix, {{d.name: d.version for d in importlib.metadata.distributions()}}]))
"""
    yaml = ROOT / "envs/report.yaml"
    done = conda.snakemake(workflow(tmp_path, yaml.read_text(), program))
    assert done.returncode == 0, done.stderr
    prefix, installed = json.loads((tmp_path / "probe.txt").read_text())
    assert Path(prefix).parent == conda.directory / "environments"
    pinned = read_yaml(yaml, ROOT)
    expected = {name: pin.version for name, pin in pinned.pins.items()} | {"pip": pinned.conda["pip"].version}
    assert {normal(name): version for name, version in installed.items()} == expected

    assert made_up.run_script("plot_comparison", nodes["venv"]).returncode == 0
    drawn = {where: {p.name: p.read_bytes() for p in node.glob("comparison.*")} for where, node in nodes.items()}
    assert {"comparison.pdf", "comparison.svg", "comparison.png"} <= drawn["venv"].keys()
    assert drawn["conda"] == drawn["venv"]


def test_a_rule_does_not_see_the_packages_of_the_launcher(conda, tmp_path):
    assert importlib.util.find_spec("yaml"), "the launcher has to have it, or the test shows nothing"
    done = conda.snakemake(workflow(tmp_path, SMALL, "import tabulate\nimport yaml\n"))
    assert done.returncode != 0
    assert "No module named 'yaml'" in done.stderr


def test_an_environment_made_on_a_login_node_serves_a_node_without_network_until_it_changes(conda, tmp_path):
    workflow(tmp_path, SMALL, PRINT_VERSION)
    made = conda.snakemake(tmp_path, "--conda-create-envs-only")
    assert made.returncode == 0, made.stderr
    assert not (tmp_path / "probe.txt").exists()
    done = conda.snakemake(tmp_path, PIP_NO_INDEX="1", PIP_FIND_LINKS="")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "probe.txt").read_text() == "0.10.0\n"
    assert "Nothing to be done" in conda.snakemake(tmp_path).stderr

    (tmp_path / "probe.yaml").write_text(SMALL.replace("tabulate==0.10.0", "tabulate==0.9.0"))
    planned = conda.snakemake(tmp_path, "--dry-run")
    assert "oftware environment definition has changed" in planned.stdout + planned.stderr


def test_a_version_that_does_not_exist_fails_by_name(conda, tmp_path):
    yaml = SMALL.replace("tabulate==0.10.0", "tabulate==99.9.9")
    done = conda.snakemake(workflow(tmp_path, yaml, PRINT_VERSION))
    assert done.returncode != 0
    assert "No matching distribution found for tabulate==99.9.9" in done.stderr


def test_a_conda_package_that_the_channel_lacks_fails_by_name(conda, tmp_path):
    done = conda.snakemake(workflow(tmp_path, SMALL.replace("pip ==25.3", "pip ==1.2.3"), PRINT_VERSION))
    assert done.returncode != 0
    assert "pip==1.2.3" in done.stderr.replace(" ", "")


def test_without_network_an_environment_is_not_left_half_made(conda, tmp_path):
    workflow(tmp_path, SMALL.replace("tabulate==0.10.0", "tabulate==0.8.10"), PRINT_VERSION)
    own = ("--conda-prefix", str(tmp_path / "environments"))
    failed = conda.snakemake(tmp_path, *own, PIP_NO_INDEX="1", PIP_FIND_LINKS="")
    assert failed.returncode != 0
    assert "No matching distribution found for tabulate==0.8.10" in failed.stderr
    done = conda.snakemake(tmp_path, *own)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "probe.txt").read_text() == "0.8.10\n"


def test_without_conda_it_stops_before_any_rule(conda, tmp_path):
    folders = os.environ["PATH"].split(os.pathsep)
    path = os.pathsep.join(folder for folder in folders if not shutil.which("conda", path=folder))
    done = conda.snakemake(workflow(tmp_path, SMALL, PRINT_VERSION), PATH=path)
    assert done.returncode != 0
    assert "conda" in done.stderr
    assert not (tmp_path / "probe.txt").exists()


def test_an_old_conda_is_refused_with_the_version_that_is_needed(conda, tmp_path):
    old = tmp_path / "bin/conda"
    old.parent.mkdir()
    real = conda.directory / "base/bin/conda"
    old.write_text(f'#!/bin/sh\nif [ "$1" = --version ]; then echo conda 23.5.0; else exec "{real}" "$@"; fi\n')
    old.chmod(0o755)
    path = f"{old.parent}{os.pathsep}{os.environ['PATH']}"
    done = conda.snakemake(workflow(tmp_path, SMALL, PRINT_VERSION), PATH=path)
    assert done.returncode != 0
    assert "24.7.1" in done.stderr


def test_an_explicit_pin_file_makes_the_same_environment_without_solving(conda, tmp_path):
    for name in ("locks", "envs"):
        shutil.copytree(ROOT / name, tmp_path / name)
    for path in ROOT.glob("requirements*.in"):
        shutil.copy(path, tmp_path)
    variables = os.environ | {
        "CONDARC": str(conda.directory / "condarc"),
        "PATH": os.pathsep.join([str(conda.directory / "base/condabin"), os.environ["PATH"]]),
    }
    for script in (["pin.py", "report"], ["lock.py", "check"]):
        command = [sys.executable, str(ROOT / "tools" / script[0]), *script[1:], "--root", str(tmp_path)]
        done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    [pins] = (tmp_path / "envs").glob("report.*.pin.txt")
    yaml = read_yaml(ROOT / "envs/report.yaml", ROOT)

    program = """\
import importlib.metadata, json, sys
print(json.dumps([sys.prefix, {d.name: d.version for d in importlib.metadata.distributions()}]))
"""
    workflow(tmp_path, (ROOT / "envs/report.yaml").read_text(), program)
    shutil.copy(pins, tmp_path / pins.name.replace("report", "probe"))
    shutil.copy(tmp_path / "envs/report.post-deploy.sh", tmp_path / "probe.post-deploy.sh")
    done = conda.snakemake(tmp_path)
    assert done.returncode == 0, done.stderr
    prefix, installed = json.loads((tmp_path / "probe.txt").read_text())
    # What Snakemake made the environment from lies beside it; had the pin file failed, that would be a yaml.
    assert Path(f"{prefix}.pin.txt").read_text() == pins.read_text()
    assert not Path(f"{prefix}.yaml").exists()
    expected = {name: pin.version for name, pin in yaml.pins.items()} | {"pip": yaml.conda["pip"].version}
    assert {normal(name): version for name, version in installed.items()} == expected


def test_a_deployed_workflow_runs_in_its_environments(conda, tmp_path):
    """From a git source, by a Snakemake that is itself no environment that could run the jobs."""
    repository = clone(tmp_path / "repository")
    commit(repository, "v1")
    source = repr(f"git+file://{repository}/workflow/Snakefile@v1")
    work = outer(tmp_path / "work", 'configfile: "config/mine.yaml"\n\n' + module(source)).path
    done = conda.snakemake(work, "--until", "sft_split_dataset", XDG_CACHE_HOME=str(tmp_path / "cache"))
    assert done.returncode == 0, done.stderr
    [made] = [json.loads(path.read_text()) for path in (work / "results/splits").glob("*/manifest.json")]
    assert not made["not_as_pinned"]
    assert "torch" not in made["packages"]
