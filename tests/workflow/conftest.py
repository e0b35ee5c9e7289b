"""A small study, run to its end by real Snakemake; tests copy it and look at plans."""

import shutil
from pathlib import Path

import pytest
from checkouts import Checkout, new_checkout
from no_network import refuse_network


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """The small study, run to its end without a network. Tests must not change it: they copy it."""
    checkout = new_checkout(tmp_path_factory.mktemp("finished") / "checkout")
    done = checkout.snakemake(**refuse_network(checkout.path.parent))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    return checkout


@pytest.fixture
def checkout(finished: Checkout, tmp_path: Path) -> Checkout:
    """A copy of the finished study, Snakemake's records included, times as they were."""
    shutil.copytree(finished.path, tmp_path / "checkout", symlinks=True)
    return Checkout(tmp_path / "checkout")
