"""A training that SLURM stops, moves and starts again comes to the same result, bit for bit.

The jobs start the trainer as a rule does (`srun --overlap …`, sft.slurm.srun). What runs in them is the real one.

Tests: sft.slurm.srun
"""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import training_nodes as runs
from heads import START, Head, status
from slurm_cluster import Cluster

from sft.runtime import attempts
from sft.slurm.srun import on_first_node

# Hangs are told by the waits below; on a machine that others use, the honest time of these tests is many minutes.
pytestmark = [pytest.mark.slurm, pytest.mark.thorough, pytest.mark.slow, pytest.mark.timeout(1800)]
SLOW = Path(__file__).with_name("slow_train.py")
OPTIONS = ("--device", "cpu", "--keep-optimizer")
SETTINGS = {"max_steps": 12, "save_steps": 12, "eval_steps": 6}


@pytest.fixture(scope="module")
def undisturbed(text_nodes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run as it is when nobody disturbs it."""
    run = runs.write_run(tmp_path_factory.mktemp("undisturbed") / "run", text_nodes, **SETTINGS)
    return runs.train_well(run, "--keep-optimizer")


def submit(cluster: Cluster, run: Path, *options: str, pause: float = 0.0) -> str:
    """Submit the training of `run` as a job; the number of the job."""
    # Without the variables that the plugin's job step drops, as in a real job of Snakemake.
    clean = (
        "for v in $(env | grep -oE '^SLURM_[A-Z_]+' | grep -vxE 'SLURM_(JOB_ID|JOBID|CLUSTER_NAME)'); do unset $v; done"
    )
    train = f"{sys.executable} {SLOW} {run} {' '.join(OPTIONS)} 2>> {run}/train_model.log"
    return cluster.submit(
        f"{clean}; export PAUSE={pause}; {on_first_node(1)} {train}",
        *("--requeue", "--comment=rule_train_model_wildcards_run", "--mem=2000", "--cpus-per-task=1", "--nodes=1"),
        *options,
        folder=run,
    )


def wait(run: Path, condition: Callable[[], bool], seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not condition():
        log = run / "train_model.log"
        assert time.monotonic() < end, f"waited in vain; {log.read_text() if log.exists() else 'no log'}"
        time.sleep(0.2)


def held(run: Path) -> Path:
    """`run`, which will stand still after each step until it is asked to stop, or the file is gone (slow_train.py)."""
    (run / "hold").touch()
    return run


def resumed_at(run: Path) -> list[int]:
    return [attempt["from_step"] for attempt in runs.attempts(run) if attempt["from_step"] is not None]


@pytest.fixture(scope="module", autouse=True)
def cut_short(cluster: Cluster, text_nodes, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, str]]:
    """Runs and their jobs that meet a time limit, on a node of their own: minutes of waiting, beside the other tests.

    One is told by a signal two minutes before, the other one by nobody.
    """
    # A minute is the shortest that SLURM knows. It has to last for what comes before the first step: twice what an
    # import takes now, for the load that there may be soon; and less than half of it is there before the margin.
    begun = time.monotonic()
    subprocess.run([sys.executable, "-c", "from trl import SFTTrainer"], check=True)
    minutes = 1 + int(2 * (time.monotonic() - begun) / 25)
    # A signal may come a minute before it was asked for (the page of sbatch): never in the first minutes here.
    made = {}
    for name, limit, pause, options in (
        ("signal", minutes + 3, 6.5 * (minutes + 1), ["--signal=TERM@120"]),
        ("clock", minutes, 7.0 * minutes, []),
    ):
        run = runs.write_run(tmp_path_factory.mktemp("cut-short") / "run", text_nodes, **SETTINGS)
        made[name] = run, submit(cluster, run, "-p", "apart", "-t", str(limit), *options, pause=pause)
    return made


def test_preempted_moved_and_cut_short(cluster: Cluster, undisturbed: Path, text_nodes, tmp_path: Path) -> None:
    """Preempted by a better job; then its node dies; each time it goes on where it was, as the same job."""
    if not cluster.in_cgroups:
        pytest.skip("without cgroups (v1) signals of SLURM go to other processes than on a real cluster")
    run = held(runs.write_run(tmp_path / "run", text_nodes, **SETTINGS))
    job = submit(cluster, run, "-p", "preemptible", "-t", "20")
    wait(run, lambda: runs.last_step(run) == 1)
    node = attempts.read(run)[0]["node"]
    urgent = cluster.submit("true", "-p", "gpu", "--exclusive", f"--nodelist={node}", folder=tmp_path)
    wait(run, lambda: len(runs.saved_steps(run)) == 1)
    cluster.wait_for(urgent, "COMPLETED")
    first = attempts.read(run)[0]
    assert first["stopped"] == "SIGTERM"
    assert (first["job"], first["memory_mib"]) == (job, 2000)

    wait(run, lambda: len(attempts.read(run)) == 2 and runs.last_step(run) > first["step"])
    # The node dies without a word. SLURM notices after SlurmdTimeout and starts the job on the other one.
    node = attempts.read(run)[1]["node"]
    cluster.kill_node(node)
    (run / "hold").unlink()
    try:
        assert cluster.wait_for(job, "COMPLETED", "FAILED", "NODE_FAIL", "CANCELLED", seconds=180) == "COMPLETED"
    finally:
        cluster.start_node(node)
    told = runs.attempts(run)
    assert [attempt["restarts"] for attempt in told] == [0, 1, 2]
    assert {attempt["job"] for attempt in told} == {job}
    assert told[-1]["node"] != node
    runs.assert_same(undisturbed, run)


def test_cancelled_run_saves_and_stays_cancelled(cluster: Cluster, text_nodes, tmp_path: Path) -> None:
    if not cluster.in_cgroups:
        pytest.skip("without cgroups (v1) signals of SLURM go to other processes than on a real cluster")
    run = held(runs.write_run(tmp_path / "run", text_nodes, **SETTINGS))
    job = submit(cluster, run, "-p", "cpu", "-t", "20")
    wait(run, lambda: runs.last_step(run) == 1)
    cluster.client("scancel", job)
    cluster.wait_for(job, "CANCELLED")
    wait(run, lambda: runs.saved_steps(run) != [] or "stopped" in attempts.read(run)[-1])
    assert attempts.read(run)[-1]["stopped"] == "SIGTERM"


TRAINED = (
    START
    + """
rule all:
    input: "results/runs/disk/manifest.json", "results/runs/memory/manifest.json"
rule train_model:
    output: "results/runs/{{run}}/manifest.json"
    log: "results/runs/{{run}}/train_model.log"
    resources:
        mem_mb=lambda wildcards, attempt: memory.asked(
            Path(f"results/runs/{{wildcards.run}}/train_model.log"), {mebibytes}[wildcards.run], attempt
        ),
        runtime=20,
    params: launch=on_first_node(1)
    shell: "exec {{params.launch}} {python} {trainer} results/runs/{{wildcards.run}} {options} 2>> {{log}}"
"""
)


def test_full_disk_and_too_little_memory(cluster: Cluster, text_nodes, tmp_path: Path) -> None:
    """A scratch disk that fills up at the second checkpoint; a job that asks for half of the memory that it needs."""
    if not cluster.in_cgroups:
        pytest.skip("without cgroups (v1) nobody is killed for taking too much memory")
    settings = {"max_steps": 12, "save_steps": 4, "eval_steps": 6}
    whole = runs.train_well(runs.write_run(tmp_path / "whole", text_nodes, **settings), "--keep-optimizer")
    checkpoint = sum(file.stat().st_size for file in (whole / "checkpoints/checkpoint-4").iterdir())
    scratch = tmp_path / "results/runs/disk"
    scratch.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "tmpfs", str(scratch), "-o"]
    if subprocess.run([*mount, f"size={round(checkpoint * 1.6)}"], capture_output=True).returncode:
        pytest.skip("file systems cannot be mounted here")
    try:
        disk, starved = (
            runs.write_run(tmp_path / "results/runs" / name, text_nodes, **settings) for name in ("disk", "memory")
        )
        values = {"python": sys.executable, "trainer": SLOW, "options": " ".join(OPTIONS)}
        values["mebibytes"] = {"disk": 3000, "memory": 1500}
        (tmp_path / "Snakefile").write_text(TRAINED.format(**values))
        head = Head(cluster, tmp_path, "--retries", "2", "--config", "unused=1", HOG="1300")
        assert head.wait(900) == 1
        place = "results/runs/disk/checkpoints"
        assert f"{place}: the checkpoint of step 8 could not be written" in (disk / "train_model.log").read_text()
        # The first failure got further than nothing, the second one got no further than the first.
        assert "It got from step 0 to step 4, so this counts as no retry" in head.said
        assert f"It failed twice at step 8 and is not tried again: {place}" in head.said
        assert runs.saved_steps(disk) == [4]
        assert "It ran out of memory; if it is tried again, then with more" in head.said
        assert [attempt["memory_mib"] for attempt in runs.attempts(starved)] == [1500, 3000]
        runs.assert_same(whole, starved)
        shown = status(cluster, tmp_path)
        assert (shown["disk"]["state"], shown["disk"]["step"], shown["memory"]["state"]) == ("failed", 8, "trained")
        assert any("the checkpoint of step 8 could not be written" in line for line in shown["disk"]["log_ends"])

        subprocess.run([*mount[:-1], "-o", "remount,size=64m"], check=True)
        again = Head(cluster, tmp_path, "--config", "unused=1")
        assert again.wait(600) == 0, again.said[-6000:]
        assert runs.attempts(disk)[-1]["from_step"] == 4
        runs.assert_same(whole, disk)
    finally:
        subprocess.run(["umount", scratch], check=True)


def test_stops_before_the_time_limit_by_a_signal(cluster: Cluster, undisturbed: Path, cut_short) -> None:
    """`--signal=TERM@120`, as in the profile: SLURM sends it to the trainer, which has an srun of its own."""
    if not cluster.in_cgroups:
        pytest.skip("without cgroups (v1) signals of SLURM go to other processes than on a real cluster")
    assert_cut_short(cluster, undisturbed, *cut_short["signal"], "SIGTERM")


def test_stops_by_itself_before_the_time_limit(cluster: Cluster, undisturbed: Path, cut_short) -> None:
    """No signal is asked for: a short job ends with a checkpoint, queues itself again, and goes on."""
    assert_cut_short(cluster, undisturbed, *cut_short["clock"], "time limit")


def assert_cut_short(cluster: Cluster, undisturbed: Path, run: Path, job: str, reason: str) -> None:
    assert cluster.wait_for(job, "COMPLETED", "FAILED", "TIMEOUT", seconds=1500) == "COMPLETED"
    told = runs.attempts(run)
    assert len(told) >= 2
    assert all(attempt["stopped"] == reason for attempt in told[:-1])
    assert all(attempt["steps_trained"] >= 1 for attempt in told)
    assert len(resumed_at(run)) == len(told) - 1
    runs.assert_same(undisturbed, run)
