"""Starts the ranks of a run and waits for them: one exit code, one reason, one stop for all.

train_model.py stays the only process that Snakemake or SLURM talks to. A SIGTERM to it reaches the ranks as a
request that they agree on; an agent (torchrun) left to itself would kill them 30 seconds later.
"""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sft.runtime import job, launch
from sft.runtime.orphan import PR_SET_PDEATHSIG
from sft.runtime.out_of_memory import OutOfMemoryError
from sft.runtime.stage import EXIT_RESUMABLE, Stage
from sft.runtime.stop_request import StopRequest
from sft.training.deepspeed_config import STAGES, waits_for
from sft.training.ranks_plan import RanksPlan

INTERVAL_SECONDS = 0.1


def train_on_ranks(stage: Stage, content: dict[str, Any], stop: StopRequest) -> int:
    """Train with the processes that the options ask for; returns the step that was reached.

    `content` is what the ranks need besides the options. StageError with the ranks' reason when one fails,
    OutOfMemoryError when that is memory; SystemExit(75) when stopped before there was anything to lose.
    """
    options = stage.options
    distributed = {"strategy": options.strategy, "processes": options.processes, "nodes": options.nodes}
    plan = RanksPlan(stage.attempt / "ranks")
    path = plan.write(stage.directory, options, content)
    there = launch.rendezvous_here(stage.id, job.address()) if options.nodes > 1 else None
    command = launch.rank_command(path, distributed, rendezvous=there, prefix=shlex.split(options.launch_prefix))
    stage.say(f"starting {options.processes} processes: {launch.shown(command)}")
    if options.strategy in STAGES and (waiting := waits_for()):
        stage.say(waiting)
    stop.defer()
    try:
        code = _watched(command, plan, stop, _threads(options.threads, distributed))
        outcome = plan.outcome()
        if code == 0 and outcome is not None:
            return outcome["step"]
        if stop.requested and not plan.is_training and not plan.errors():
            raise SystemExit(EXIT_RESUMABLE)
        if memory := [error["message"] for error in plan.errors() if error["kind"] == "memory"]:
            raise OutOfMemoryError(memory[0])
        plan.raise_error(code)
    finally:
        shutil.rmtree(plan.folder, ignore_errors=True)


def _watched(command: list[str], plan: RanksPlan, stop: StopRequest, environment: dict[str, str]) -> int:
    """Run the agent to its end; it and the ranks end with this process, however that ends."""
    agent = subprocess.Popen(
        command,
        env=os.environ | environment,
        stdout=sys.stderr,
        start_new_session=True,  # a SIGTERM to this process group is ours to hand on
        preexec_fn=_die_with_parent(),
    )
    try:
        while agent.poll() is None:
            if stop.requested and not plan.stop_is_asked:
                plan.ask_to_stop()
            if plan.stop_is_asked and not plan.is_training:
                break
            time.sleep(INTERVAL_SECONDS)
    finally:
        if agent.poll() is None:
            os.killpg(agent.pid, signal.SIGKILL)  # its ranks have asked the kernel to die with it
            agent.wait()
    return agent.returncode


def _die_with_parent() -> Callable[[], None] | None:
    if not sys.platform.startswith("linux"):
        return None
    import ctypes

    prctl = ctypes.CDLL(None).prctl

    def ask() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    return ask


def _threads(threads: int, distributed: dict[str, Any]) -> dict[str, str]:
    """Threads of each rank: the job's, shared by those on this node. torchrun would set 1 and warn."""
    each = max(1, threads // launch.processes_per_node(distributed))
    return {name: str(each) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}


def rank_threads() -> int:
    """What `_threads` gave this rank."""
    return int(os.environ["OMP_NUM_THREADS"])


def plan_of(path: str) -> RanksPlan:
    """The plan that a rank was started with."""
    return RanksPlan(Path(path).parent)
