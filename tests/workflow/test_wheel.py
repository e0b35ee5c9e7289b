"""The package: built as a wheel and installed outside of any checkout, it checks, explains, shows and plans a run."""

import json
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from checkouts import CONFIG, ROOT
from packaging.requirements import Requirement

from sft_command import sft

pytestmark = pytest.mark.slow

LEFT_OUT = ("tests", "docs", "benchmarks", "results", ".git", ".venv", "__pycache__", "build", "*.egg-info", ".*")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout, in which building leaves its files."""
    copy = tmp_path_factory.mktemp("source") / "checkout"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*LEFT_OUT))
    return copy


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel, built with what this environment has."""
    target = tmp_path_factory.mktemp("wheel")
    # Through the source distribution, as for an index: what MANIFEST.in forgets would be missing in the wheel.
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", target, source]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return next(target.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of an environment that has the wheel, and the packages of this one beside it."""
    return environment(tmp_path_factory.mktemp("environment"), "--no-compile", wheel)


def environment(home: Path, *what: object) -> Path:
    """A new environment with what pip is told to install, without a network; the folder of its programs."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", home], check=True)
    packages = next(home.glob("lib/python3*/site-packages"))
    (packages / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = [sys.executable, "-m", "pip", "--python", home / "bin/python", "install", "-q", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--no-build-isolation", *what], check=True)
    return home / "bin"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a configuration and its data, and nothing else of a checkout."""
    (tmp_path / "mine.yaml").write_text(CONFIG)
    (tmp_path / "data").mkdir()
    for name in ("train", "test"):
        rows = [{"id": f"{name}{n}", "prompt": f"say {n}", "completion": "yes"} for n in range(40)]
        (tmp_path / f"data/{name}.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    return tmp_path


def call(program: Path, *words: str, cwd: Path) -> subprocess.CompletedProcess:
    environment = {"HOME": str(cwd), "PATH": "/usr/bin:/bin"}
    return subprocess.run([program, *words], cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def test_the_wheel_holds_the_whole_tree_and_nothing_that_was_compiled(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name.removeprefix("snakemake_sft/") for name in archive.namelist()}
    here = {Path("Snakefile")}
    for folder in ("workflow", "scripts", "envs", "locks", "config", "tools"):
        here |= {path.relative_to(ROOT) for path in (ROOT / folder).rglob("*") if path.is_file()}
    # The package's own door is the package, not a file of the tree.
    here = {path for path in here if path.parts[:2] != ("tools", "wheel")}
    kept = {str(path) for path in here if "__pycache__" not in path.parts and path.suffix != ".sif"}
    assert len(kept) > 200
    assert kept <= names, sorted(kept - names)
    assert not [name for name in names if name.endswith((".pyc", ".sif"))]


def test_the_code_that_runs_is_that_of_the_wheel(installed: Path, place: Path) -> None:
    code = "import sft.cli, sft.runtime.code; print(sft.cli.TREE); print(sft.runtime.code.SCRIPTS)"
    done = call(installed / "python", "-c", code, cwd=place)
    assert done.returncode == 0, done.stderr
    tree = next(installed.parent.glob("lib/python3*/site-packages")) / "snakemake_sft"
    assert done.stdout.split() == [str(tree.resolve()), str(tree.resolve() / "scripts")]
    version = next(tree.parent.glob("snakemake_sft-*.dist-info")).name.removesuffix(".dist-info").split("-")[1]
    assert call(installed / "sft", "--version", cwd=place).stdout == f"snakemake-sft {version}\n"


def test_an_editable_installation_runs_the_checkout(source: Path, place: Path, tmp_path: Path) -> None:
    programs = environment(tmp_path / "environment", "--editable", source)
    done = call(programs / "python", "-c", "import sft.cli; print(sft.cli.TREE)", cwd=place)
    assert done.stdout == f"{source.resolve()}\n", done.stderr
    assert call(programs / "sft", "check", "mine.yaml", cwd=place).returncode == 0


def test_a_configuration_is_checked_explained_and_followed(installed: Path, place: Path) -> None:
    done = call(installed / "sft", "check", "mine.yaml", "--json", cwd=place)
    assert done.returncode == 0, done.stderr
    assert {run["experiment"] for run in json.loads(done.stdout)["runs"]} == {"words", "more_words"}
    done = call(installed / "sft", "explain", "words/0", "more_words/0", "mine.yaml", "--json", cwd=place)
    assert done.returncode == 0, done.stderr
    assert {"field": "method", "first": "full", "second": "lora"} in json.loads(done.stdout)["differences"]
    done = call(installed / "sft", "status", "mine.yaml", cwd=place)
    assert (done.returncode, "2 runs: 2 planned" in done.stdout) == (0, True), done.stderr
    assert not (place / "results").exists()


def test_names_are_those_of_a_checkout(installed: Path, place: Path) -> None:
    words = ("check", "mine.yaml", "--json")
    here, there = sft(*words, cwd=place), call(installed / "sft", *words, cwd=place)
    assert json.loads(here.stdout) == json.loads(there.stdout)


def test_a_run_is_planned_by_the_tree_of_the_wheel(installed: Path, place: Path) -> None:
    done = call(installed / "sft", "run", "mine.yaml", "-n", "--quiet", "rules", cwd=place)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "snakemake_sft/Snakefile" in done.stderr.splitlines()[0]
    jobs = dict(line.split() for line in (done.stdout + done.stderr).splitlines() if len(line.split()) == 2)
    assert jobs["train_model"] == "2"


def test_without_a_configuration_nothing_is_planned(installed: Path, place: Path) -> None:
    """The wheel has the demo's configuration; nobody asked for it."""
    for verb in ("run", "check", "figures"):
        done = call(installed / "sft", verb, cwd=place)
        assert done.returncode == 1
        assert done.stderr.startswith("error: there is no config/config.yaml here")


def test_what_the_package_asks_for_holds_the_pinned_versions(wheel: Path) -> None:
    """requirements.in chooses versions; those bounds of the package must let them in, and name nothing else."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        package = metadata.PathDistribution(zipfile.Path(archive, name.rpartition("/")[0] + "/"))
        asked = [Requirement(line) for line in package.requires]
        assert (package.metadata["Name"], package.metadata["Requires-Python"]) == ("snakemake-sft", ">=3.11")
    lines = [line.partition("#")[0].strip() for line in (ROOT / "requirements.in").read_text().splitlines()]
    pins = {name.lower(): version for name, _, version in (line.partition("==") for line in lines if line)}
    base = [one for one in asked if one.marker is None]
    assert {one.name.lower() for one in base} == {"snakemake", "pydantic", "pyyaml", "rich", "shtab"}
    for one in base:
        assert one.specifier.contains(pins[one.name.lower()]), one
    train = {one.name.lower(): str(one.specifier) for one in asked if str(one.marker) == 'extra == "train"'}
    assert train == {name: f"=={version}" for name, version in pins.items()}
