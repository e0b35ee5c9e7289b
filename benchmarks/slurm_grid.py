"""A grid of small, real trainings on a SLURM cluster of this machine, killed at random moments.

    python benchmarks/slurm_grid.py --runs 200 --kills 10 --alone 60 --together 4

Every run is trained twice: in a job that Snakemake submits with the profile, while trainers, jobs, nodes and Snakemake
itself are killed, and undisturbed in a process of this program. The files of each pair must be the same bytes: weights
and optimizer at every checkpoint, metrics, order of the samples.

The trainers are forked from a process that has imported torch (forked_trainers.py). What is left of a job's cost are
the two Snakemakes inside of it, 6 CPU seconds. So only the runs of --alone have a job each, as with the profile; of the
others, --together share one (Snakemake's groups).
Needs what tests/slurm needs: root, and Debian's slurmctld, slurmd and munge.
"""

import argparse
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / folder) for folder in ("scripts", "tests/slurm", "tests/smoke")]

import training_nodes as runs  # noqa: E402
from slurm_cluster import Cluster, die_with_parent, why_not  # noqa: E402

SNAKEMAKE = Path(sys.executable).with_name("snakemake")
FORKED = ROOT / "benchmarks/forked_trainers.py"
SETTINGS = {"max_steps": 12, "save_steps": 4, "eval_steps": 6}
PAUSE = "0.5"  # seconds after every step, so that there is something to interrupt
KINDS = ("trainer", "trainer", "trainer", "job", "job", "node", "node", "head", "head", "head")
QUICK = ("--slurm-init-seconds-before-status-checks", "2", "--seconds-between-status-checks", "2")

GRID = """
import sys
sys.path.insert(0, {scripts!r})
from sft.slurm import executor
from sft.slurm.srun import on_first_node

onstart:
    executor.install(workflow, lambda text: print(text, file=sys.stderr, flush=True))

rule all:
    input: expand("results/runs/{{run}}/manifest.json", run={names})
rule train_model:
    output: "results/runs/{{run}}/manifest.json"
    wildcard_constraints: run="alone-[0-9]+"
    log: "results/runs/{{run}}/train_model.log"
    resources: mem_mb=1000, runtime=60
    params: launch=on_first_node(1)
    shell: "exec {{params.launch}} {trainer} results/runs/{{wildcards.run}} --device cpu --keep-optimizer 2>> {{log}}"
use rule train_model as train_together with:
    output: "results/runs/{{run}}/manifest.json"
    log: "results/runs/{{run}}/train_model.log"
    wildcard_constraints: run="together-[0-9]+"
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--at-once", type=int, default=6, help="jobs in the queue at a time (default: 6)")
    parser.add_argument("--alone", type=int, default=60, help="runs with a job of their own (default: 60)")
    parser.add_argument("--together", type=int, default=4, help="of the others, runs in a job (default: 4)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and victims of the kills")
    options = parser.parse_args()
    if reason := why_not():
        sys.exit(f"error: {reason}")
    folder = Path(tempfile.mkdtemp(prefix="sft-slurm-"))
    cluster = Cluster(folder / "cluster")
    server = subprocess.Popen(
        [sys.executable, FORKED, "serve", folder / "trainers"], preexec_fn=die_with_parent, cwd=folder
    )
    try:
        cluster.start()
        while not (folder / "trainers").exists():
            time.sleep(0.2)
        grid(cluster, folder, options)
    finally:
        server.kill()
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)


def grid(cluster: Cluster, folder: Path, options: argparse.Namespace) -> None:
    """Train the grid under kills, train it undisturbed, and compare."""
    nodes = runs.write_nodes(folder / "nodes", "llama")
    place = folder / "grid"
    names = [f"{'alone' if n < options.alone else 'together'}-{n}" for n in range(options.runs)]
    disturbed = [
        runs.write_run(place / "results/runs" / name, nodes, **SETTINGS, seed=n) for n, name in enumerate(names)
    ]
    trainer = f"{sys.executable} {FORKED} {folder / 'trainers'}"
    text = GRID.format(scripts=str(ROOT / "scripts"), names=names, trainer=trainer)
    (place / "Snakefile").write_text(text)
    clock = time.monotonic()
    killed = disturb(cluster, place, disturbed, options)
    seconds = time.monotonic() - clock
    os.environ["PAUSE"] = "0"
    for n, run in enumerate(disturbed):
        twin = runs.write_run(folder / f"undisturbed/{n}", nodes, **SETTINGS, seed=n)
        runs.assert_same(runs.train_well(twin, "--keep-optimizer"), run)
        shutil.rmtree(twin)
    tell(place, disturbed, killed, seconds)


def disturb(cluster: Cluster, place: Path, expected: list[Path], options: argparse.Namespace) -> list[str]:
    """Run the grid to its end; kills are spread evenly over what is done. What was killed, in order."""
    chance, clock, killed = random.Random(options.seed), time.monotonic(), []
    kinds = [KINDS[n % len(KINDS)] for n in range(options.kills)]
    chance.shuffle(kinds)
    due = [options.runs * (n + chance.random()) / options.kills for n in range(options.kills)]
    arguments = ["--jobs", str(options.at_once), "--groups", "train_together=pack"]
    arguments += ["--group-components", f"pack={options.together}"]
    head = start_head(cluster, place, *arguments)
    while head.poll() is None:
        time.sleep(1)
        done = sum((run / "manifest.json").exists() for run in expected)
        if not due or done < due[0] - 1:
            continue
        running = [row for row in cluster.queue("%i|%T|%N") if row[1] == "RUNNING"]
        if kinds[0] == "head":
            os.kill(head.pid, signal.SIGKILL)
            head.wait()
            subprocess.run([SNAKEMAKE, "--unlock"], cwd=place, env=cluster.environment, check=True, capture_output=True)
            head = start_head(cluster, place, *arguments)
        elif kinds[0] == "trainer":
            try:
                os.kill(chance.choice(trainers_in(place)), signal.SIGKILL)
            except (IndexError, ProcessLookupError):
                continue  # none trains in this second
        elif not running:
            continue
        elif kinds[0] == "job":
            if cluster.client("scancel", chance.choice(running)[0], check=False).returncode:
                continue  # it has just ended
        else:
            node = chance.choice(running)[2]
            cluster.kill_node(node)
            time.sleep(12)  # longer than SlurmdTimeout
            cluster.start_node(node)
        due.pop(0)
        killed.append(kinds.pop(0))
        print(f"{time.monotonic() - clock:5.0f} s, {done} runs done: killed a {killed[-1]}", flush=True)
    if head.returncode or due:
        sys.exit(f"error: Snakemake ended with {head.returncode}:\n{(place / 'head.log').read_text()[-9000:]}")
    return killed


def start_head(cluster: Cluster, place: Path, *arguments: str) -> subprocess.Popen:
    """Snakemake on the login node, with the profile and more frequent looks at the queue."""
    profile = str(ROOT / "workflow/profiles/slurm")
    with (place / "head.log").open("a") as log:
        return subprocess.Popen(
            [SNAKEMAKE, "--profile", profile, *QUICK, "--latency-wait", "5", "--config", "unused=1", *arguments],
            cwd=place,
            env=cluster.environment | {"PAUSE": PAUSE},
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )


def trainers_in(place: Path) -> list[int]:
    """Processes of the trainers that work on this grid now."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").readlink() == place and b"\0serve\0" in (process / "cmdline").read_bytes():
                found.append(int(process.name))
        except OSError:
            continue
    return sorted(found)


def tell(place: Path, finished: list[Path], killed: list[str], seconds: float) -> None:
    """Print what it took."""
    tried = {run: runs.attempts(run) for run in finished}
    attempts = [attempt for run in finished for attempt in tried[run]]
    for run, told in tried.items():
        begun = [datetime.fromisoformat(attempt["started"]) for attempt in told]
        assert begun == sorted(begun), f"{run}: attempts out of order"
    said = (place / "head.log").read_text()
    counts = ", ".join(f"{killed.count(kind)} {kind}s" for kind in dict.fromkeys(KINDS) if kind in killed)
    print(
        f"{len(finished)} runs in {len({attempt['job'] for attempt in attempts})} jobs and {len(attempts)} attempts\n"
        f"killed: {counts}\n"
        f"{sum(attempt['from_step'] is not None for attempt in attempts)} attempts resumed from a checkpoint, "
        f"{sum(len(told) > 1 for told in tried.values())} runs had more than one attempt\n"
        f"{said.count('submitted earlier')} jobs of a killed Snakemake were taken over, "
        f"{said.count('no job of this one is what it is')} waited for; "
        f"{len(re.findall('has been submitted with SLURM jobid', said))} were submitted\n"
        f"{seconds:.0f} s from the first submission to the end\n"
        "every run equals its undisturbed twin, bit for bit: weights, optimizer, metrics, order of samples"
    )


if __name__ == "__main__":
    main()
