"""One run on two nodes, submitted by Snakemake with the profile; stopped, broken, and equal to one process.

Two processes a node with DDP, one a node with FSDP2, over gloo: everything but the GPUs is as on a real cluster.
"""

import json
import os
import re
import signal
import sys
import time
from pathlib import Path

import pytest
import training_nodes as runs
from heads import START, Head, status
from slurm_cluster import Cluster
from spread_runs import BOUND, SETTINGS, assert_close

from sft.runtime import attempts
from sft.training import metrics_stream

pytestmark = [pytest.mark.slurm, pytest.mark.thorough, pytest.mark.slow, pytest.mark.timeout(1800)]

# What docs/slurm.md tells a site with several nodes to ask for, and the command of workflow/rules/train.smk.
SPREAD = (
    START
    + """
from sft.slurm.srun import on_every_node

processes = {{"ddp": 4, "fsdp2": 2}}
rule all:
    input: expand("results/runs/{{run}}/manifest.json", run=processes)
rule train_model:
    input: lambda wildcards: [] if wildcards.run == "ddp" else "results/runs/ddp/manifest.json"
    output: "results/runs/{{run}}/manifest.json"
    log: "results/runs/{{run}}/train_model.log"
    threads: lambda wildcards: processes[wildcards.run] // 2
    resources: mem_mb=4000, runtime=20, nodes=2, tasks=2, tasks_per_gpu=0, mpi="srun", gres="gpu:2"
    params:
        launch=lambda wildcards, threads: on_first_node(threads),
        ranks=lambda wildcards, threads: on_every_node(2, threads),
        processes=lambda wildcards: processes[wildcards.run],
    shell:
        "exec {{params.launch}} {python} {trainer} results/runs/{{wildcards.run}} --device cpu --keep-optimizer"
        " --threads {{threads}} --strategy {{wildcards.run}} --processes {{params.processes}} --nodes 2"
        " --launch-prefix '{{params.ranks}}' 2>> {{log}}"
"""
)


def ranks_of(run: Path) -> dict[int, dict[str, str]]:
    """Rank -> the environment of the process that trains it now, with its `pid`."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().split(b"\0")
            if not any(word.endswith(b"slow_rank.py") for word in command[1:4]):
                continue
            if (process / "cwd").readlink() != run.parents[2] or f"/{run.name}/".encode() not in command[-2]:
                continue
            lines = (process / "environ").read_bytes().decode().split("\0")
        except OSError:
            continue
        variables = dict(line.split("=", 1) for line in lines if "=" in line)
        if "RANK" in variables:  # and not the agent
            found[int(variables["RANK"])] = variables | {"pid": process.name}
    return found


def test_two_nodes_train_as_one_process(cluster: Cluster, text_nodes, tmp_path: Path) -> None:
    settings = SETTINGS | {"max_steps": 6}
    alone = runs.train_well(runs.write_run(tmp_path / "alone", text_nodes, **settings), "--keep-optimizer")
    ddp, fsdp2 = (runs.write_run(tmp_path / "results/runs" / name, text_nodes, **settings) for name in ("ddp", "fsdp2"))
    trainer = Path(__file__).with_name("slow_train.py")
    (tmp_path / "Snakefile").write_text(SPREAD.format(python=sys.executable, trainer=trainer))
    for run in (ddp, fsdp2):
        (run / "hold").touch()  # after its first step
    head = Head(cluster, tmp_path, "--retries", "2", "--config", "unused=1")
    head.wait_until(lambda: trained(ddp, attempt=1), 300)
    look_at_ranks(cluster, ddp)
    (ddp / "hold").unlink()
    head.wait_until(lambda: trained(fsdp2, attempt=1), 300)
    look_at_ranks(cluster, fsdp2)
    shown = status(cluster, tmp_path)
    assert (shown["ddp"]["state"], shown["fsdp2"]["state"]) == ("trained", "running")
    assert sorted(re.findall(r"\d+", shown["fsdp2"]["node"])) == sorted(node[1:] for node in cluster.nodes)
    break_and_stop(cluster, head, fsdp2)
    assert head.wait(400) == 0, head.said[-6000:]

    for run in (ddp, fsdp2):
        assert_close(alone, run, BOUND)
        told = json.loads((run / "effective.json").read_text())["distributed"]
        assert (told["strategy"], told["world_size"], told["backend"]) == (run.name, 4 if run is ddp else 2, "gloo")
    log = (ddp / "train_model.log").read_text()
    assert re.search(r"^0: \[rank 0\] \d\d:\d\d:\d\d step 6/6", log, re.MULTILINE), log
    broken, stopped, last = runs.attempts(fsdp2)
    assert stopped["stopped"] == "SIGTERM"
    assert last["from_step"] == stopped["step"]
    assert [stopped["restarts"], last["restarts"]] == [0, 1]
    assert stopped["job"] == last["job"] != broken["job"]


def trained(run: Path, attempt: int) -> bool:
    """Whether that attempt has trained a step."""
    return any(row["attempt"] == attempt for row in metrics_stream.read_lines(run / metrics_stream.NAME))


def look_at_ranks(cluster: Cluster, run: Path) -> None:
    """Ranks in the order of nodes and devices; all meet at the job's first node."""
    ranks = ranks_of(run)
    each = len(ranks) // 2
    assert sorted(ranks) == list(range(4 if run.name == "ddp" else 2))
    nodes = {variables["SLURM_NODEID"]: variables["SLURMD_NODENAME"] for variables in ranks.values()}
    assert sorted(nodes.values()) == sorted(cluster.nodes)
    for rank, variables in ranks.items():
        assert variables["SLURM_NODEID"] == str(rank // each), rank
        assert variables["LOCAL_RANK"] == str(rank % each)
        assert variables["CUDA_VISIBLE_DEVICES"] == "0,1"
    assert len({(variables["MASTER_ADDR"], variables["MASTER_PORT"]) for variables in ranks.values()}) == 1
    assert attempts.read(run)[-1]["node"] == nodes["0"]


def break_and_stop(cluster: Cluster, head: Head, run: Path) -> None:
    """A rank of the second node dies: the job ends at once, and the retry starts; SIGTERM: all save together."""
    before = time.monotonic()
    os.kill(int(ranks_of(run)[1]["pid"]), signal.SIGKILL)
    (run / "hold").unlink()
    head.wait_until(lambda: "failed" in attempts.read(run)[0])
    assert time.monotonic() - before < 60
    assert not ranks_of(run)
    log = (run / "train_model.log").read_text()
    assert re.search(r"^1: .*Signal 9 \(SIGKILL\)", log, re.MULTILINE), log

    (run / "hold").touch()
    head.wait_until(lambda: trained(run, attempt=2), 300)
    cluster.client("scancel", "--signal=TERM", attempts.read(run)[1]["job"])
    head.wait_until(lambda: len(runs.saved_steps(run)) == 1)
    (run / "hold").unlink()
