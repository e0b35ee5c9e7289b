"""Real Snakemake with the profile's settings on the cluster: what fails, what is killed, what is tried again.

Small workflows of shell commands stand in for the long ones where only SLURM, Snakemake and sft.slurm.executor matter.
"""

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
from checkouts import SNAKEMAKE
from heads import START, Head
from slurm_cluster import Cluster

# Hangs are told by the waits below; on a machine that others use, the honest time of these tests is many minutes.
pytestmark = [pytest.mark.slurm, pytest.mark.thorough, pytest.mark.slow, pytest.mark.timeout(1800)]


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
    input: expand("made-{n}", n=range(4))
rule long:
    output: "made-{n}"
    priority: lambda wildcards: int(wildcards.n)
    resources: mem_mb=1000, runtime=10
    shell: "echo $SLURM_JOB_ID >> started-{wildcards.n};"
           " until [ -e go-{wildcards.n} ]; do sleep 0.3; done; touch {output}"
"""
)


def test_killed_head_takes_its_jobs_over(cluster: Cluster, tmp_path: Path) -> None:
    """SIGKILL, and again: no job runs twice. The controller goes away for a minute; a job is cancelled; then Ctrl-C."""
    (tmp_path / "Snakefile").write_text(LONG)

    def started() -> list[str]:
        return [path.read_text() for path in sorted(tmp_path.glob("started-*"))]

    (tmp_path / "go-3").touch()
    first = Head(cluster, tmp_path, "--retries", "0", "made-0", "made-1", "made-2")
    first.wait_until(lambda: len(started()) == 3)
    os.kill(first.process.pid, signal.SIGKILL)
    first.process.wait()
    unlock = subprocess.run([SNAKEMAKE, "--unlock"], cwd=tmp_path, env=cluster.environment, capture_output=True)
    assert unlock.returncode == 0, unlock.stderr
    jobs = sorted(row[0] for row in cluster.queue())
    assert len(jobs) == 3

    # The fourth job would come first, but those that are there already are the three that it may have.
    second = Head(cluster, tmp_path, "--retries", "0", "--jobs", "3")
    second.wait_until(lambda: second.said.count("submitted earlier") == 3)
    assert sorted(row[0] for row in cluster.queue()) == jobs
    assert submissions(second) == 0

    # A job ends while there is nobody to tell it to. Snakemake asks once a second, and is answered with errors.
    cluster.stop_controller()
    (tmp_path / "go-0").touch()
    time.sleep(62)
    assert second.process.poll() is None
    cluster.start_controller()
    second.wait_until(lambda: "2 of 5 steps" in second.said)

    (tmp_path / "go-2").touch()
    second.wait_until(lambda: "3 of 5 steps" in second.said)

    cluster.client("scancel", (tmp_path / "started-1").read_text().strip())
    assert second.wait(60) == 1
    assert "CANCELLED" in second.said
    assert (tmp_path / "made-2").exists()
    assert not (tmp_path / "made-1").exists()
    assert [text.count("\n") for text in started()] == [1, 1, 1, 1]  # nothing ever ran twice

    third = Head(cluster, tmp_path)
    third.wait_until(lambda: started()[1].count("\n") == 2)
    before = time.monotonic()
    third.process.send_signal(signal.SIGINT)
    assert third.wait(60) == 1
    assert time.monotonic() - before < 30
    assert not [row for row in cluster.queue() if row[1] != "COMPLETING"]
    cluster.wait_for(started()[1].split()[1], "CANCELLED")
    (tmp_path / "go-1").touch()
    fourth = Head(cluster, tmp_path)  # and nothing has to be unlocked or removed first
    assert fourth.wait(90) == 0, fourth.said[-6000:]
    assert submissions(fourth) == 1


GROUPED = (
    START
    + """
rule all:
    input: "results/runs/a/answers"
rule train_model:
    output: "results/runs/{run}/trained"
    resources: mem_mb=1000, runtime=10
    shell: '''cd results/runs/{wildcards.run}; mkdir -p checkpoints; echo $SLURM_JOB_ID >> started
        until [ -e go ]; do sleep 0.3; done; steps=$(wc -l < started)
        printf '{{"step": %s}}' $steps > checkpoints/reached.json; [ $steps = 3 ] && touch trained'''
rule predict:
    input: rules.train_model.output
    output: "results/runs/{run}/answers"
    resources: mem_mb=1000, runtime=10
    shell: "touch {output}"
"""
)


def test_group_is_taken_over_and_its_progress_counts(cluster: Cluster, tmp_path: Path) -> None:
    """A job trains and predicts. Its Snakemake is killed; the next one takes it over, and retries while it gets on."""
    (tmp_path / "Snakefile").write_text(GROUPED)
    run = tmp_path / "results/runs/a"
    arguments = ("--retries", "0", "--groups", "train_model=run", "predict=run")
    first = Head(cluster, tmp_path, *arguments)
    first.wait_until(lambda: (run / "started").exists())
    os.kill(first.process.pid, signal.SIGKILL)
    first.process.wait()
    subprocess.run([SNAKEMAKE, "--unlock"], cwd=tmp_path, env=cluster.environment, capture_output=True, check=True)
    jobs = [row[0] for row in cluster.queue()]
    assert len(jobs) == 1

    second = Head(cluster, tmp_path, *arguments)
    second.wait_until(lambda: "submitted earlier" in second.said)
    assert [row[0] for row in cluster.queue()] == jobs
    (run / "go").touch()
    assert second.wait(240) == 0, second.said[-6000:]
    assert (run / "answers").exists()
    # Two jobs failed and were tried again though no retry is allowed: each had got further than the one before.
    assert "It got from step 0 to step 1, so this counts as no retry" in second.said
    assert "It got from step 1 to step 2, so this counts as no retry" in second.said
    assert submissions(second) == 2
    assert len((run / "started").read_text().split()) == 3
