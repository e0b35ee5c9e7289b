"""What Snakemake takes on the login node while many trainings wait in the queue.

    python benchmarks/slurm_head.py --runs 1000

Plans the small study of tests/slurm with that many seeds on a cluster of this machine, makes what the trainings need,
and submits them to partitions that are down, so that every one stays pending. Reports resident memory and seconds: to
plan and submit, to ask for states, to show `sft status`, to start again after a SIGKILL, and to end by Ctrl-C.

Needs what tests/slurm needs: root, and Debian's slurmctld, slurmd and munge.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / folder) for folder in ("scripts", "tests/slurm", "tests/smoke", "tests/workflow")]

from checkouts import SNAKEMAKE, new_checkout  # noqa: E402
from slurm_cluster import Cluster, die_with_parent, running_cluster, why_not  # noqa: E402
from test_whole_graph import SMALL  # noqa: E402

TICKS = os.sysconf("SC_CLK_TCK")
WATCHED_SECONDS = 90


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000)
    options = parser.parse_args()
    if reason := why_not():
        sys.exit(f"error: {reason}")
    with running_cluster() as (cluster, folder):
        measure(cluster, folder, options.runs)


class Head:
    """Snakemake with the profile as it is, and what it has taken so far."""

    def __init__(self, cluster: Cluster, place: Path, runs: int):
        self.log = place / f"head-{time.monotonic_ns()}.log"
        self.began = time.monotonic()
        command = [SNAKEMAKE, "--profile", str(ROOT / "workflow/profiles/slurm"), "--jobs", str(runs)]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [*command, "--config", "device=cpu"],
                cwd=place,
                env=cluster.environment,
                stdout=log,
                stderr=log,
                preexec_fn=die_with_parent,
            )

    def seconds_until(self, sign: str, count: int) -> float:
        """Seconds since its start at which it had said `sign` so often."""
        while len(re.findall(sign, self.log.read_text())) < count:
            if self.process.poll() is not None:
                sys.exit(f"error: Snakemake ended:\n{self.log.read_text()[-3000:]}")
            time.sleep(0.5)
        return time.monotonic() - self.began

    def mebibytes(self) -> tuple[float, float]:
        """What is resident now, and the most that was at once."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        now, most = (int(re.search(rf"{name}:\s+(\d+)", status)[1]) / 1024 for name in ("VmRSS", "VmHWM"))
        return now, most

    def cpu(self) -> float:
        """CPU seconds so far, with those of the commands that it called."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return sum(int(ticks) for ticks in fields[11:15]) / TICKS


def measure(cluster: Cluster, folder: Path, runs: int) -> None:
    """Submit, watch, kill, take over, interrupt; a line for each."""
    checkout = new_checkout(folder / "checkout")
    (checkout.path / "config/config.yaml").write_text(f"{SMALL}    seeds: {list(range(runs))}\n")
    first = checkout.snakemake("audits", "--config", "device=cpu")
    if first.returncode:
        sys.exit(first.stderr[-3000:])
    for partition in ("cpu", "gpu"):
        cluster.client("scontrol", "update", f"PartitionName={partition}", "State=DOWN")

    head = Head(cluster, checkout.path, runs)
    begun = head.seconds_until("has been submitted with SLURM jobid", 1)
    done = head.seconds_until("has been submitted with SLURM jobid", runs)
    say(f"{runs} runs: the first is submitted after {begun:.0f} s, the last after {done:.0f} s; {told(head)}")

    before = head.cpu()
    time.sleep(WATCHED_SECONDS)
    say(f"waiting for them: {(head.cpu() - before) * 60 / WATCHED_SECONDS:.1f} CPU s a minute; {told(head)}")
    clock = time.monotonic()
    cluster.client("squeue", "-h", "--me", "--states=all", "-o", "%i|%T")
    say(f"one squeue for all of them: {time.monotonic() - clock:.2f} s")
    clock = time.monotonic()
    shown = subprocess.run(
        [sys.executable, "-m", "sft.cli", "status", "--json"], cwd=checkout.path,
        env=cluster.environment | {"PYTHONPATH": str(ROOT / "scripts")}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    states = [run["state"] for run in json.loads(shown.stdout)]
    say(f"sft status: {time.monotonic() - clock:.1f} s, {states.count('queued')} of {len(states)} queued")

    head.process.kill()
    head.process.wait()
    clock = time.monotonic()
    subprocess.run([SNAKEMAKE, "--unlock"], cwd=checkout.path, env=cluster.environment, check=True, capture_output=True)
    say(f"snakemake --unlock: {time.monotonic() - clock:.0f} s")
    again = Head(cluster, checkout.path, runs)
    taken = again.seconds_until("submitted earlier", runs)
    say(f"started again after a SIGKILL: all are taken over after {taken:.0f} s; {told(again)}")
    assert len(cluster.queue()) == runs, "a job was submitted twice, or lost"

    clock = time.monotonic()
    again.process.send_signal(signal.SIGINT)
    again.process.wait()
    say(f"Ctrl-C: ends after {time.monotonic() - clock:.0f} s, {len(cluster.queue())} jobs are left")


def say(text: str) -> None:
    print(text, flush=True)


def told(head: Head) -> str:
    now, most = head.mebibytes()
    return f"{now:.0f} MiB resident, {most:.0f} at most before; {head.cpu():.0f} CPU s in all"


if __name__ == "__main__":
    main()
