"""What the cluster gives to jobs, and claims between its nodes."""

import shutil
import tempfile
import time
from pathlib import Path

import pytest
from heads import SCRIPTS
from slurm_cluster import Cluster

pytestmark = [pytest.mark.slurm, pytest.mark.thorough, pytest.mark.slow]


def test_gpus_are_given_out(cluster: Cluster, tmp_path: Path) -> None:
    """Four jobs of a GPU each on two nodes with two: four different ones; two nodes with two each in one job."""
    jobs = [
        cluster.submit(
            "echo $(hostname)/$SLURMD_NODENAME/$CUDA_VISIBLE_DEVICES; sleep 3",
            *("-p", "gpu", "--gpus=1", "--mem=500"),
            folder=tmp_path,
        )
        for _ in range(4)
    ]
    both = cluster.submit(
        "srun sh -c 'echo $SLURM_NODEID/$CUDA_VISIBLE_DEVICES'",
        *("-p", "gpu", "--nodes=2", "--ntasks=2", "--gres=gpu:2", "--mem=500"),
        folder=tmp_path,
    )
    for job in (*jobs, both):
        assert cluster.wait_for(job, "COMPLETED", "FAILED") == "COMPLETED"
    assert len({(tmp_path / f"{job}.out").read_text() for job in jobs}) == 4
    assert sorted((tmp_path / f"{both}.out").read_text().split()) == ["0/0,1", "1/0,1"]


CLAIM = f"""
import sys, time
sys.path.insert(0, {str(SCRIPTS)!r})
from pathlib import Path
from sft.runtime import claim, job
claim.fcntl.flock = lambda *_: None                    # the lock of one node is not seen on the other
claim._boot = lambda: job.current().node               # two machines
try:
    with claim.Claim(Path(sys.argv[1]), print):
        print("held on", job.current().node, flush=True)
        time.sleep(float(sys.argv[2]))
except claim.ClaimError as error:
    print(error, flush=True)
"""


def test_claims_hold_across_nodes(cluster: Cluster, tmp_path: Path) -> None:
    """Two nodes whose kernel locks do not meet: refused while the first job runs, taken over when it is gone."""
    (tmp_path / "claim.py").write_text(CLAIM)
    here, there = cluster.nodes

    def job(node: str, seconds: int) -> str:
        return cluster.submit(
            f"exec python {tmp_path}/claim.py {tmp_path} {seconds}", f"--nodelist={node}", folder=tmp_path
        )

    first = job(here, 600)
    output = tmp_path / f"{first}.out"
    end = time.monotonic() + 60
    while not (output.exists() and "held" in output.read_text()):
        assert time.monotonic() < end
        time.sleep(0.2)
    second = job(there, 0)
    cluster.wait_for(second, "COMPLETED")
    assert "is being written by process" in (tmp_path / f"{second}.out").read_text()
    assert f"(SLURM job {first} on node {here})" in (tmp_path / f"{second}.out").read_text()
    cluster.client("scancel", "--full", "--signal=KILL", first)
    cluster.wait_for(first, "CANCELLED", "FAILED")
    third = job(there, 0)
    cluster.wait_for(third, "COMPLETED")
    said = (tmp_path / f"{third}.out").read_text()
    assert "which is gone" in said
    assert f"held on {there}" in said


def test_two_clusters_at_once(cluster: Cluster, tmp_path: Path) -> None:
    """The fixture is safe to run twice: other ports, nodes and folders, and each client speaks to its own."""
    other = Cluster(Path(tempfile.mkdtemp(prefix="sft-slurm-")) / "other")
    try:
        other.start()
        assert set(other.nodes).isdisjoint(cluster.nodes)
        job = other.submit("true", folder=tmp_path)
        assert other.wait_for(job, "COMPLETED") == "COMPLETED"
        assert cluster.idle_nodes() == sorted(cluster.nodes)
    finally:
        other.stop()
        shutil.rmtree(other.folder.parent, ignore_errors=True)
    assert cluster.idle_nodes() == sorted(cluster.nodes)
