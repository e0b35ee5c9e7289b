"""One cluster for the tests of a session (of each worker of pytest-xdist: two may run at once)."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import slurm_cluster
import training_nodes


@pytest.fixture(scope="session")
def cluster() -> Iterator[slurm_cluster.Cluster]:
    """A cluster with two nodes, up; skipped, with the reason, where none can be had."""
    if reason := slurm_cluster.why_not():
        pytest.skip(reason)
    with slurm_cluster.running_cluster() as (made, _):
        yield made


@pytest.fixture(scope="session")
def text_nodes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What a tiny text model is trained from, as in tests/smoke."""
    return training_nodes.write_nodes(tmp_path_factory.mktemp("text"), "llama")
