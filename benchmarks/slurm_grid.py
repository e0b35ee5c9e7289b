"""A grid of small, real trainings on a SLURM cluster of this machine: killed at random, and how heavy the head is.

    python benchmarks/slurm_grid.py grid --runs 200 --kills 10   # results equal those of undisturbed runs
    python benchmarks/slurm_grid.py head --runs 1000             # memory and time of Snakemake with 1,000 pending runs

`grid` trains every run twice: in jobs, while trainers, nodes and Snakemake itself are killed at random moments, and
undisturbed in processes of this program. Weights and metrics of each pair must be the same bytes; no step may be
trained by two jobs at once. A job costs about 16 CPU seconds, most of them for importing torch.

`head` plans the small study of the tests with that many seeds, submits to a partition that is down, so that every
training stays pending, and reports Snakemake's resident memory and the time until the last one was submitted.

Needs what the tests in tests/slurm need: root, and Debian's slurmctld, slurmd and munge.
"""

import argparse
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / folder) for folder in ("scripts", "tests/slurm", "tests/smoke", "tests/workflow")]

from slurm_cluster import Cluster, why_not  # noqa: E402

SNAKEMAKE = Path(sys.executable).with_name("snakemake")
SETTINGS = {"max_steps": 12, "save_steps": 12, "eval_steps": 6}
QUICK = (
    "--slurm-init-seconds-before-status-checks",
    "2",
    "--seconds-between-status-checks",
    "2",
    "--latency-wait",
    "5",
)

GRID = """
import sys
sys.path.insert(0, {scripts!r})
from sft.slurm import executor
from sft.slurm.launch import on_first_node

onstart:
    executor.install(workflow, lambda text: print(text, file=sys.stderr, flush=True))

rule all:
    input: expand("results/runs/run-{{n}}/manifest.json", n=range({runs}))
rule train_model:
    output: "results/runs/{{run}}/manifest.json"
    log: "results/runs/{{run}}/train_model.log"
    resources: mem_mb=1000, runtime=60
    params: launch=on_first_node(1)
    shell: "exec {{params.launch}} {python} {trainer} results/runs/{{wildcards.run}} --device cpu --keep-optimizer"
           " 2>> {{log}}"
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("grid", "head"))
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--at-once", type=int, default=4, help="grid: jobs in the queue at a time (default: 4)")
    parser.add_argument("--seed", type=int, default=0, help="grid: of the moments and victims of the kills")
    options = parser.parse_args()
    if reason := why_not():
        sys.exit(f"error: {reason}")
    folder = Path(tempfile.mkdtemp(prefix="sft-slurm-"))
    cluster = Cluster(folder / "cluster")
    try:
        cluster.start()
        (grid if options.what == "grid" else head)(cluster, folder, options)
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)


def start_head(cluster: Cluster, folder: Path, *arguments: str) -> subprocess.Popen:
    with (folder / "head.log").open("a") as log:
        return subprocess.Popen(
            [SNAKEMAKE, "--profile", str(ROOT / "workflow/profiles/slurm"), *QUICK, *arguments],
            cwd=folder,
            env=cluster.environment | {"PAUSE": "0.5"},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def grid(cluster: Cluster, folder: Path, options: argparse.Namespace) -> None:
    """Train a grid under kills, and compare."""
    import training_nodes as runs

    nodes = runs.write_nodes(folder / "nodes", "llama")
    place = folder / "grid"
    pairs = []
    for n in range(options.runs):
        settings = SETTINGS | {"seed": n}
        pairs.append(
            (
                runs.write_run(place / f"results/runs/run-{n}", nodes, **settings),
                runs.write_run(folder / f"undisturbed/run-{n}", nodes, **settings),
            )
        )
    values = {"scripts": str(ROOT / "scripts"), "python": sys.executable, "runs": options.runs}
    (place / "Snakefile").write_text(GRID.format(**values, trainer=ROOT / "tests/slurm/slow_train.py"))

    chance, killed, clock = random.Random(options.seed), [], time.monotonic()
    arguments = ("--jobs", str(options.at_once), "--retries", "3")
    snakemake = start_head(cluster, place, *arguments)
    # Evenly spread over what is done, so that the kills meet the beginning, the middle and the end of the grid.
    due = [options.runs * (n + chance.random()) / options.kills for n in range(options.kills)]
    while snakemake.poll() is None:
        time.sleep(1)
        done = sum((one / "manifest.json").exists() for one, _ in pairs)
        if due and done >= due[0] - 1:
            victim = chance.choice(("trainer", "trainer", "node", "head"))
            if victim == "head":
                os.kill(snakemake.pid, signal.SIGKILL)
                snakemake.wait()
                subprocess.run(
                    [SNAKEMAKE, "--unlock"], cwd=place, env=cluster.environment, check=True, capture_output=True
                )
                snakemake = start_head(cluster, place, *arguments)
            elif victim == "node":
                node = chance.choice(cluster.nodes)
                cluster.kill_node(node)
                time.sleep(12)
                cluster.start_node(node)
            elif not kill_a_trainer(place, chance):
                continue  # none runs just now
            due.pop(0)
            killed.append(victim)
            print(f"{time.monotonic() - clock:5.0f} s, {done} runs done: killed a {victim}", flush=True)
    seconds = time.monotonic() - clock
    if snakemake.returncode:
        sys.exit(f"error: Snakemake ended with {snakemake.returncode}:\n{(place / 'head.log').read_text()[-5000:]}")
    for disturbed, whole in pairs:
        runs.train_well(whole, "--keep-optimizer")
        runs.assert_same(whole, disturbed)
    tried = [runs.attempts(one) for one, _ in pairs]
    resumed = sum(attempt["from_step"] is not None for attempts in tried for attempt in attempts)
    counts = ", ".join(f"{killed.count(kind)} {kind}s" for kind in dict.fromkeys(killed))
    print(
        f"{options.runs} runs, {sum(map(len, tried))} attempts, {resumed} of them resumed; killed: {counts}; "
        f"{seconds:.0f} s; every run equals its undisturbed twin, bit for bit"
    )


def kill_a_trainer(place: Path, chance: random.Random) -> bool:
    """SIGKILL to one trainer of the grid, in whatever it does."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
            inside = (process / "cwd").readlink() == place
        except OSError:
            continue
        if inside and words[0].decode().endswith("python") and b"slow_train.py" in b" ".join(words[1:2]):
            found.append(int(process.name))
    if not found:
        return False
    os.kill(chance.choice(sorted(found)), signal.SIGKILL)
    return True


def head(cluster: Cluster, folder: Path, options: argparse.Namespace) -> None:
    """Submit many runs that stay pending; how much memory and time Snakemake takes."""
    from checkouts import new_checkout
    from test_workflow_jobs import SMALL

    checkout = new_checkout(folder / "checkout")
    (checkout.path / "config/config.yaml").write_text(f"{SMALL}    seeds: {list(range(options.runs))}\n")
    first = checkout.snakemake("audits", "--config", "device=cpu")
    if first.returncode:
        sys.exit(first.stderr[-3000:])
    for partition in ("cpu", "gpu"):
        cluster.client("scontrol", "update", f"PartitionName={partition}", "State=DOWN")
    clock = time.monotonic()
    snakemake = start_head(
        cluster, checkout.path, "--jobs", str(options.runs), "--config", "device=cpu", "--quiet", "rules"
    )
    log, peak, planned = checkout.path / "head.log", 0, 0.0
    while snakemake.poll() is None:
        time.sleep(1)
        status = Path(f"/proc/{snakemake.pid}/status").read_text()
        peak = max(peak, *(int(size) for size in re.findall(r"VmHWM:\s+(\d+)", status)), 0)
        submitted = len(cluster.queue())
        planned = planned or (time.monotonic() - clock if submitted else 0.0)
        if submitted >= options.runs:
            break
    else:
        sys.exit(f"error: Snakemake ended:\n{log.read_text()[-3000:]}")
    seconds = time.monotonic() - clock
    cpu = [int(word) for word in Path(f"/proc/{snakemake.pid}/stat").read_text().rpartition(")")[2].split()[11:13]]
    show = subprocess.run(
        [sys.executable, str(ROOT / "scripts/status.py"), "--json"], cwd=checkout.path, env=cluster.environment,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    states = [run["state"] for run in json.loads(show.stdout)]
    snakemake.kill()
    snakemake.wait()
    ticks = os.sysconf("SC_CLK_TCK")
    print(
        f"{options.runs} runs pending ({states.count('queued')} of them queued in make status): Snakemake holds "
        f"{peak / 1024:.0f} MiB, submits the first after {planned:.0f} s and the last after {seconds:.0f} s; "
        f"{sum(cpu) / ticks:.0f} CPU s"
    )


if __name__ == "__main__":
    main()
