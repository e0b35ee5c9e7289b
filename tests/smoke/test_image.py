"""The Apptainer definition: complete, at the pinned Python; its recipe makes the environment from its files alone."""

import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from pins import read_source

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "envs/apptainer.def").read_text()


def section(name: str) -> list[str]:
    body = re.search(rf"^%{name}\n(.*?)(?=^%|\Z)", TEXT, re.MULTILINE | re.DOTALL)
    assert body, f"%{name} is missing"
    return [line.strip() for line in body[1].splitlines() if line.strip()]


def test_the_base_has_the_python_of_the_conda_environments():
    pinned = read_source(ROOT / "envs/conda.in", ROOT).pins["python"].version
    assert f"From: python:{pinned}-slim" in TEXT
    assert "://" not in TEXT


def test_the_image_is_the_one_that_rules_name():
    makefile = (ROOT / "Makefile").read_text()
    assert "envs/snakemake-sft.sif envs/apptainer.def" in makefile
    assert '"envs/snakemake-sft.sif"' in (ROOT / "scripts/sft/workflow/attached.py").read_text()


@pytest.mark.thorough
@pytest.mark.slow
def test_the_recipe_makes_the_environment_from_its_own_files(tmp_path: Path):
    """What %files copies and %post runs, with another root than /opt: no container is needed to see that it works."""
    for line in section("files"):
        source, target = line.split()
        copy = tmp_path / target.removeprefix("/")
        copy.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if (ROOT / source).is_dir() else shutil.copy)(ROOT / source, copy)
    post = "\n".join(section("post")).replace("/opt/", f"{tmp_path}/opt/").replace("{{ TORCH }}", "auto")
    post = post.replace("python3 ", f"{sys.executable} ")
    done = subprocess.run(["sh", "-c", post], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    python = tmp_path / "opt/venv/bin/python"
    for line in section("test"):
        assert line.startswith("python -c ")
    asked = "import importlib.metadata as m; print(m.version('torch'), m.version('snakemake'))"
    found = subprocess.run([python, "-I", "-c", asked], capture_output=True, text=True, check=True).stdout.split()
    assert found == [metadata.version("torch"), metadata.version("snakemake")]


@pytest.mark.skipif(not shutil.which("apptainer"), reason="no apptainer on this machine")
@pytest.mark.thorough
@pytest.mark.slow
def test_the_image_builds_and_tests_itself(tmp_path: Path):
    command = ["apptainer", "build", str(tmp_path / "image.sif"), "envs/apptainer.def"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
