"""What one rank does: read the plan, train, leave the outcome or the reason."""

import atexit
import faulthandler
import os
import sys
import traceback
from typing import Any, NoReturn

from sft.runtime import job, orphan
from sft.runtime.out_of_memory import is_out_of_memory
from sft.runtime.quiet import quiet_environment
from sft.runtime.stage import Stage, StageError
from sft.runtime.stop_request import StopRequest
from sft.runtime.time_limit import TimeLimit
from sft.training.checkpoint import Checkpoints
from sft.training.resume import Start
from sft.training.run_setup import Run
from sft.training.spread import plan_of, rank_threads


def train(path: str) -> int:
    """Train as one rank of the plan at `path`; the exit code is 0 when the ranks came to an end together."""
    stop = StopRequest()
    stop.defer()  # with the others, or not at all
    faulthandler.enable()
    quiet_environment()
    orphan.die_with_parents()
    plan, rank = plan_of(path), int(os.environ["RANK"])
    try:
        outcome = _train(plan, rank, stop)
    except StageError as error:
        plan.fail(rank, str(error), "stage")
        return 1
    except BaseException as error:
        kind = "memory" if is_out_of_memory(error) else "fault"
        traceback.print_exc()
        plan.fail(rank, f"process {rank}: {type(error).__name__}: {str(error).splitlines()[:1]}", kind)
        return 1
    if rank == 0:
        plan.finish(outcome)
    return 0


def leave(code: int) -> NoReturn:
    """End this process with `code`, without taking the interpreter apart.

    Threads of gloo hold tensors of the last exchange for a moment. When they let go of them while the interpreter is
    being taken apart, the process aborts, and a training that is saved counts as failed (pytorch/pytorch pull request
    179291; benchmarks/rank_exits.py).
    """
    try:
        atexit._run_exitfuncs()
        torch = sys.modules.get("torch")
        if code == 0 and torch and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()  # a rank that failed would wait here for the others
    except Exception:  # whatever it is: the outcome is written, and stands
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _train(plan: Any, rank: int, stop: StopRequest) -> dict[str, Any]:
    from sft.training.loop import train_run

    told = plan.read()
    stage = (_SilentStage if rank else Stage)(told["options"].directory, told["options"])
    stage.options.threads = rank_threads()
    checkpoints = Checkpoints(stage.directory / "checkpoints", stage.say)
    start = Start(checkpoints.of_step(told["start"]) if told["start"] is not None else None)
    run = Run(
        stage,
        told["total_steps"],
        told["kept_steps"],
        told["provenance"],
        checkpoints,
        start,
        told["attempt"],
        stop,
        TimeLimit(job.seconds_left(stage.say)),
        plan,
    )
    return {"step": train_run(run)}


class _SilentStage(Stage):
    """Of every process but the main one, which tells how it goes."""

    def say(self, text: str) -> None:
        """Nothing."""
