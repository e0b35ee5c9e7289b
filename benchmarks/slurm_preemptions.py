"""One training on a SLURM cluster of this machine that is preempted many times, and moves on by a step each time.

    python benchmarks/slurm_preemptions.py --times 20

Snakemake submits it with the profile and without retries. A job of a better partition takes its node away: the trainer
gets SIGTERM, saves, and the job queues itself again. The files must be those of the undisturbed run: weights and
optimizer, metrics, order of the samples. Needs what tests/slurm needs: root, and Debian's slurmctld, slurmd and munge.
"""

import argparse
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / folder) for folder in ("scripts", "tests/slurm", "tests/smoke", "tests/workflow")]

import training_nodes as runs  # noqa: E402
from heads import START, Head  # noqa: E402
from slurm_cluster import Cluster, running_cluster, why_not  # noqa: E402

from sft.runtime import attempts  # noqa: E402

TRAINER = ROOT / "tests/slurm/slow_train.py"
STUDY = (
    START
    + """
rule all:
    input: "results/runs/one/manifest.json"
rule train_model:
    output: "results/runs/{{run}}/manifest.json"
    log: "results/runs/{{run}}/train_model.log"
    resources: mem_mb=2000, runtime=60
    params: launch=on_first_node(1)
    shell:
        "exec {{params.launch}} {python} {trainer} results/runs/{{wildcards.run}}"
        " --device cpu --keep-optimizer 2>> {{log}}"
"""
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=20)
    options = parser.parse_args()
    if reason := why_not():
        sys.exit(f"error: {reason}")
    with running_cluster() as (cluster, folder):
        preempt(cluster, folder, options.times)


def preempt(cluster: Cluster, folder: Path, times: int) -> None:
    """Train under `times` preemptions, train undisturbed, and compare."""
    nodes = runs.write_nodes(folder / "nodes", "llama")
    settings = {"max_steps": 3 * times, "save_steps": 3 * times, "eval_steps": 8}
    place = folder / "study"
    run = runs.write_run(place / "results/runs/one", nodes, **settings)
    (run / "hold").touch()  # every step ends with waiting until a stop is asked for
    (place / "Snakefile").write_text(STUDY.format(python=sys.executable, trainer=TRAINER))
    clock = time.monotonic()
    partition = "train_model:slurm_partition=preemptible"
    head = Head(cluster, place, "--retries", "0", "--config", "unused=1", "--set-resources", partition)
    reached = 0
    for _ in range(times):
        # Further than at the stop before; an attempt that is taken away while it starts trains nothing.
        head.wait_until(lambda: runs.last_step(run) > reached and "stopped" not in attempts.read(run)[-1])  # noqa: B023
        node = attempts.read(run)[-1]["node"]
        urgent = cluster.submit("true", "-p", "gpu", "--exclusive", f"--nodelist={node}", folder=folder)
        cluster.wait_for(urgent, "COMPLETED", seconds=300)
        reached = max(runs.saved_steps(run))
        print(f"{time.monotonic() - clock:5.0f} s: preempted on {node} at step {reached}", flush=True)
    (run / "hold").unlink()
    if code := head.wait(600):
        sys.exit(f"error: Snakemake ended with {code}:\n{head.said[-6000:]}")
    seconds = time.monotonic() - clock
    told = runs.attempts(run)
    runs.assert_same(runs.train_well(runs.write_run(folder / "whole", nodes, **settings), "--keep-optimizer"), run)
    stopped = sum(attempt.get("stopped") == "SIGTERM" for attempt in told)
    print(
        f"{len(told)} attempts of {len({attempt['job'] for attempt in told})} job in {seconds:.0f} s, "
        f"{stopped} of them stopped by SIGTERM\n"
        "the run equals the undisturbed one, bit for bit: weights, optimizer, metrics, order of samples"
    )


if __name__ == "__main__":
    main()
