"""Real Snakemake with the profile's settings on the cluster: what fails, what is killed, what is tried again.

Small workflows of shell commands stand in for the long ones where only SLURM, Snakemake and sft.slurm.executor matter.
"""

import json
import os
import re
import shlex
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from checkouts import ROOT, SNAKEMAKE, Checkout, new_checkout
from no_network import LOG, refuse_network
from slurm_cluster import Cluster

from sft.slurm.launch import on_every_node

# Hangs are told by the waits below; on a machine that others use, the honest time of these tests is many minutes.
pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.timeout(1800)]

SCRIPTS = ROOT / "scripts"
# The profile's own settings, with looks at the queue every second.
QUICK = (
    *("--slurm-init-seconds-before-status-checks", "1", "--seconds-between-status-checks", "1", "--latency-wait", "5"),
)
START = f"""
import sys
sys.path.insert(0, {str(SCRIPTS)!r})
from pathlib import Path
from sft.slurm import executor, memory
from sft.slurm.launch import on_first_node

onstart:
    executor.install(workflow, lambda text: print(text, file=sys.stderr, flush=True))
"""


class Head:
    """A Snakemake on the login node of `cluster`, with its output in a file."""

    def __init__(self, cluster: Cluster, folder: Path, *arguments: str, **variables: str):
        self.log = folder / f"head-{time.monotonic_ns()}.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [SNAKEMAKE, "--profile", str(ROOT / "workflow/profiles/slurm"), *QUICK, *arguments],
                cwd=folder,
                env=cluster.environment | variables,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def said(self) -> str:
        return self.log.read_text()

    def wait(self, seconds: float) -> int:
        """Its exit code; a head that hangs is the failure that these tests look for."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            pytest.fail(f"Snakemake was still there after {seconds} s:\n{self.said[-6000:]}")

    def wait_until(self, condition: Callable[[], bool], seconds: float = 90) -> None:
        end = time.monotonic() + seconds
        while not condition():
            if self.process.poll() is not None or time.monotonic() > end:
                self.process.kill()
                pytest.fail(f"Snakemake ended ({self.process.poll()}) or took too long:\n{self.said[-6000:]}")
            time.sleep(0.2)


def submissions(head: Head) -> int:
    return len(re.findall(r"has been submitted with SLURM jobid", head.said))


FAULTS = (
    START
    + """
def more(wildcards, attempt):
    return memory.asked(Path("oom.log"), 900, attempt)

rule all:
    input: "fails", "oom", "impossible", "endless", "fine"
rule fails:
    output: "fails"
    log: "fails.log"
    resources: mem_mb=1000, runtime=5
    shell: "(for i in $(seq 30); do echo line $i; done; exit 3) 2>&1 > {log}"
rule oom:
    output: "oom"
    log: "oom.log"
    resources: mem_mb=more, runtime=5
    params: launch=on_first_node(1)
    shell: "{params.launch} python -c 'x = bytes(1200 * 2**20).replace(bytes(1), bytes([1]))' 2> {log};"
           " echo {resources.mem_mb} > {output}"
rule impossible:
    output: "impossible"
    resources: gpu=9, mem_mb=1000, runtime=5
    shell: "touch {output}"
rule endless:
    output: "endless"
    resources: slurm_partition="short", mem_mb=1000, runtime=500
    shell: "touch {output}"
rule fine:
    output: "fine"
    resources: mem_mb=1000, runtime=5
    shell: "touch {output}"
"""
)


def test_head_goes_on_or_ends(cluster: Cluster, tmp_path: Path) -> None:
    """Each fault is told in its own words, and none of them keeps the others, or the head, from coming to an end."""
    (tmp_path / "Snakefile").write_text(FAULTS)
    head = Head(cluster, tmp_path, "--retries", "1", "--config", "unused=1")
    code = head.wait(600)
    said = head.said
    assert code == 1
    assert (tmp_path / "fine").exists()
    # A rule that fails: tried once more by Snakemake, in a new job, and its log is named.
    assert len(re.findall(r"Error in rule fails:", said)) == 2
    assert "log: fails.log" in said
    if cluster.in_cgroups:
        # Too little memory: SLURM kills it, the retry asks for twice as much and gets through.
        assert "It ran out of memory" in said
        assert int((tmp_path / "oom").read_text()) == 1800
    # Nine GPUs on no node: refused at once, with SLURM's reason and the whole call.
    assert "Requested node configuration is not available" in said
    assert "--gpus=9" in said
    # Longer than the partition allows: SLURM would let it wait for ever.
    assert "SLURM says PartitionTimeLimit (partition short" in said
    assert not cluster.queue()


LONG = (
    START
    + """
rule all:
    input: expand("made-{n}", n=range(3))
rule long:
    output: "made-{n}"
    resources: mem_mb=1000, runtime=10
    shell: "echo $SLURM_JOB_ID >> started-{wildcards.n};"
           " until [ -e go-{wildcards.n} ]; do sleep 0.3; done; touch {output}"
"""
)


def test_killed_head_takes_its_jobs_over(cluster: Cluster, tmp_path: Path) -> None:
    """SIGKILL, and again: no job runs twice. Then the controller goes away; then one job is cancelled."""
    (tmp_path / "Snakefile").write_text(LONG)

    def started() -> list[str]:
        return [path.read_text() for path in sorted(tmp_path.glob("started-*"))]

    first = Head(cluster, tmp_path, "--retries", "0")
    first.wait_until(lambda: len(started()) == 3)
    os.kill(first.process.pid, signal.SIGKILL)
    first.process.wait()
    unlock = subprocess.run([SNAKEMAKE, "--unlock"], cwd=tmp_path, env=cluster.environment, capture_output=True)
    assert unlock.returncode == 0, unlock.stderr
    jobs = sorted(row[0] for row in cluster.queue())
    assert len(jobs) == 3

    second = Head(cluster, tmp_path, "--retries", "0")
    second.wait_until(lambda: second.said.count("submitted earlier") == 3)
    assert sorted(row[0] for row in cluster.queue()) == jobs
    assert submissions(second) == 0

    cluster.stop_controller()
    (tmp_path / "go-0").touch()
    time.sleep(8)
    assert second.process.poll() is None
    cluster.start_controller()
    second.wait_until(lambda: "1 of 4 steps" in second.said)

    cancelled = (tmp_path / "started-1").read_text().strip()
    cluster.client("scancel", cancelled)
    before = time.monotonic()
    second.wait_until(lambda: "CANCELLED" in second.said, 60)
    (tmp_path / "go-2").touch()
    assert second.wait(90) == 1
    assert time.monotonic() - before < 120
    assert (tmp_path / "made-2").exists()
    assert not (tmp_path / "made-1").exists()
    assert [text.count("\n") for text in started()] == [1, 1, 1]  # nothing ever ran twice


SMALL = """\
datasets:
  words: {source: {path: data}, format: prompt_completion, prompt_key: prompt, completion_key: completion,
          split: {by: file_name, train: train*, test: test*, validation: {rows: 8}}}
models:
  tiny: {source: {initialise: llama, hidden_size: 64, num_layers: 1, initializer_range: 0.05}}
experiments:
  words:
    dataset: words
    model: tiny
    method: full
    training: {learning_rate: 1e-3, global_batch_size: 8, max_steps: 2, max_length: 128}
    evaluation: {max_new_tokens: 2}
"""
# On the login node of the test there is no torch; in jobs there is.
NO_TORCH = """
import importlib.abc, os, sys
class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "transformers", "trl", "peft", "datasets", "accelerate"):
            raise ModuleNotFoundError(f"the login node of this test has no {name}", name=name)
if "SLURM_JOB_ID" not in os.environ:
    sys.meta_path.insert(0, Refuse())
"""


def test_whole_graph(cluster: Cluster, tmp_path: Path) -> None:
    """From files to the archive, as the profile has it, on a login node without torch and nodes without a network."""
    checkout: Checkout = new_checkout(tmp_path / "checkout")
    (checkout.path / "config/config.yaml").write_text(SMALL)
    blocked = refuse_network(tmp_path)
    guard = Path(blocked["PYTHONPATH"]) / "sitecustomize.py"
    guard.write_text(guard.read_text() + NO_TORCH)
    head = Head(cluster, checkout.path, "--config", "device=cpu", "environment=strict", **blocked)
    assert head.wait(1500) == 0, head.said[-6000:]
    assert (checkout.path / "results/archive/archive.tar.gz").exists()
    assert not (tmp_path / LOG).exists(), (tmp_path / LOG).read_text()
    # Every heavy stage ran in a job, every light one on the login node.
    ran = {
        (made := json.loads(path.read_text()))["rule"]: made["slurm"]
        for path in checkout.path.glob("results/**/manifest.json")
    }
    in_jobs = {"prepare_dataset", "split_dataset", "audit_splits", "download_processor", "tokenize_dataset"}
    in_jobs |= {"audit_labels", "train_model", "download_model", "predict", "convert_checkpoint"}
    assert {rule for rule, job in ran.items() if job} == in_jobs
    assert ran["train_model"]["memory_mib"] == 2000
    assert ran["train_model"]["restarts"] == 0
    # The trainer had an srun of its own: what it needs to hear SLURM's signals.
    assert "srun --overlap" in head.said


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


ALL_REDUCE = """
import os, sys, time
import torch
import torch.distributed as dist
dist.init_process_group("gloo")
ranks = torch.tensor([float(dist.get_rank() + 1)])
dist.all_reduce(ranks)
where = f"rank {dist.get_rank()} of {dist.get_world_size()} local {os.environ['LOCAL_RANK']}"
os.write(1, f"{where} sum {ranks.item()}\\n".encode())  # one write a line: two ranks share a pipe
dist.barrier()
if dist.get_rank() == 3:
    sys.exit("rank 3 fails on purpose")
time.sleep(300)
"""


def test_two_nodes_with_two_processes(cluster: Cluster, tmp_path: Path) -> None:
    """One torchrun a node, one sum over all, output by node; and when one process fails nobody waits for the others."""
    (tmp_path / "program.py").write_text(ALL_REDUCE)
    # As train_model.py starts its ranks (sft.training.launch.rank_command).
    torchrun = (
        "python -m torch.distributed.run --nnodes 2 --nproc-per-node 2 --max-restarts 0 --rdzv-backend c10d "
        "--rdzv-endpoint $(hostname):$((20000 + $$ % 10000)) --rdzv-id test"
    )
    job = cluster.submit(
        f"exec {on_every_node(2, 1)} {torchrun} {shlex.quote(str(tmp_path / 'program.py'))} 2>&1",
        *("-p", "gpu", "--nodes=2", "--ntasks=2", "--gres=gpu:2", "--mem=3000", "-t", "10"),
        folder=tmp_path,
    )
    output = tmp_path / f"{job}.out"
    state = cluster.wait_for(job, "FAILED", "COMPLETED", "TIMEOUT", seconds=200)
    said = output.read_text()
    assert state == "FAILED", said
    found = re.findall(r"^(\d): rank (\d) of 4 local (\d) sum 10.0", said, re.MULTILINE)
    # Which node has the first ranks is torchrun's choice; those of a node are neighbours, in the order of its devices.
    by_node = {node: sorted((rank, local) for at, rank, local in found if at == node) for node in ("0", "1")}
    assert sorted(by_node.values()) == [[("0", "0"), ("1", "1")], [("2", "0"), ("3", "1")]], said
    assert re.search(r"^\d: rank 3 fails on purpose", said, re.MULTILINE), said


CLAIM = f"""
import sys, time
sys.path.insert(0, {str(SCRIPTS)!r})
from pathlib import Path
from sft import claim
from sft.slurm import job
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
    assert cluster.idle_nodes() == sorted(cluster.nodes)
