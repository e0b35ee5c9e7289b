"""A small study, run to its end by real Snakemake; tests copy it and look at plans."""

import fcntl
import shutil
from pathlib import Path

import pytest
from checkouts import Checkout, new_checkout
from no_network import refuse_network


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Checkout:
    """The small study, run to its end without a network. Tests must not change it: they copy it.

    Made once for all workers of pytest-xdist (its documentation, "Making session-scoped fixtures execute only once").
    """
    shared = tmp_path_factory.getbasetemp() if worker_id == "master" else tmp_path_factory.getbasetemp().parent
    folder = shared / "finished"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        checkout = Checkout(folder / "checkout")
        if not (folder / "done").exists():
            shutil.rmtree(checkout.path, ignore_errors=True)
            done = new_checkout(checkout.path).snakemake(**refuse_network(folder))
            assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
            (folder / "done").touch()
    return checkout


@pytest.fixture
def checkout(finished: Checkout, tmp_path: Path) -> Checkout:
    """A copy of the finished study, Snakemake's records included, times as they were."""
    shutil.copytree(finished.path, tmp_path / "checkout", symlinks=True)
    return Checkout(tmp_path / "checkout")
