"""The rules of the Snakemake workflow catalog for standardized usage, and the configuration that it is tried with.

The rules stand on the catalog's page "Adding workflows"; scripts/generate-catalog.py of snakemake-workflow-catalog
reads what is checked here.
"""

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from checkouts import ROOT, SNAKEMAKE, Checkout, new_checkout

DEPLOYMENTS = {"conda", "apptainer", "apptainer+conda", "singularity", "singularity+conda"}


def test_files_of_standardized_usage() -> None:
    """What is looked for by name; snakedeploy copies config/ and profiles/ and nothing else of a workflow."""
    for name in ("workflow/Snakefile", "config/README.md", "config/config.yaml", "README.md", "LICENSE"):
        assert (ROOT / name).is_file(), name
    assert (ROOT / "profiles/slurm/profile.yaml").read_text() == (
        (ROOT / "workflow/profiles/slurm/profile.yaml").read_text()
    )


def test_usage_is_told_in_the_catalog_s_words() -> None:
    told = yaml.safe_load((ROOT / ".snakemake-workflow-catalog.yml").read_text())
    assert told.keys() == {"usage"}
    usage = told["usage"]
    assert usage.keys() <= {"mandatory-flags", "software-stack-deployment", "report"}
    assert isinstance(usage["mandatory-flags"]["desc"], str)
    assert isinstance(usage["mandatory-flags"]["flags"], (str, list))
    assert usage["software-stack-deployment"].keys() <= DEPLOYMENTS
    assert usage["software-stack-deployment"]["conda"] is True
    assert usage["report"] is True


def test_form_and_lint() -> None:
    """The catalog shows the outcome of both to everybody."""
    form = [SNAKEMAKE.with_name("snakefmt"), "--check", "Snakefile", "workflow"]
    for command in (form, [SNAKEMAKE, "--lint"]):
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_the_test_configuration_runs_to_its_end(tmp_path: Path) -> None:
    """`snakemake --cores 2 --directory .test`, as the catalog's template and continuous integration run it."""
    checkout = new_checkout(tmp_path / "checkout")
    shutil.copytree(ROOT / ".test/config", checkout.path / ".test/config")
    done = checkout.snakemake("--directory", ".test")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert (checkout.path / ".test/results/archive/archive.tar.gz").is_file()
    assert not (checkout.path / "results").exists()
    assert Checkout(checkout.path).planned("--directory", ".test") == {}
