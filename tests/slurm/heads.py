"""Real Snakemake on the login node of a test's cluster, with the profile's settings."""

import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from checkouts import ROOT, SNAKEMAKE
from slurm_cluster import Cluster, die_with_parent

from sft_command import command

SCRIPTS = ROOT / "scripts"
# The profile's own settings, with looks at the queue every second.
QUICK = (
    *("--slurm-init-seconds-before-status-checks", "1", "--seconds-between-status-checks", "1", "--latency-wait", "5"),
)
# How a Snakefile of a test begins; braces are for str.format where it is used.
START = f"""
import sys
sys.path.insert(0, {str(SCRIPTS)!r})
from pathlib import Path
from sft.slurm import executor, memory
from sft.slurm.srun import on_first_node

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
                preexec_fn=_prepare,
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

    def wait_until(self, condition: Callable[[], bool], seconds: float = 180) -> None:
        """Return when `condition` holds; fail when Snakemake ends before, or after `seconds`."""
        end = time.monotonic() + seconds
        while not condition():
            ended = self.process.poll() is not None
            if ended and condition():
                return
            if ended or time.monotonic() > end:
                self.process.kill()
                pytest.fail(f"Snakemake ended ({self.process.poll()}) or took too long:\n{self.said[-6000:]}")
            time.sleep(0.2)


def _prepare() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell lets what it starts in the background ignore it
    die_with_parent()


def status(cluster: Cluster, folder: Path) -> dict[str, dict[str, Any]]:
    """Run -> what `sft status` says of it, on the login node."""
    shown = subprocess.run(
        [*command(), "status", "--json"],
        cwd=folder,
        env=cluster.environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return {run["run"]: run for run in json.loads(shown.stdout)}
