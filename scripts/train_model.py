"""Trains one run: supervised fine-tuning of a base model on tokenised rows, in full or as a LoRA adapter.

Makes kept checkpoints (state in checkpoints/, listed in kept.json), metrics.parquet, effective.json and
probe.safetensors. Writes metrics.jsonl and tensorboard/ as it goes. Killed or stopped (SIGTERM: exit code 75),
the same command continues from the newest complete checkpoint, to the same result bit for bit on a CPU.

    python scripts/train_model.py results/runs/digits-full-1a2b3c4d --device cpu --micro-batch-size 16
"""

import argparse
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from sft.config.nodes import TrainSettings
from sft.runtime import attempts, job, launch
from sft.runtime.cost import EnergyMeter, cost, visible_devices
from sft.runtime.device_lease import lease_cuda
from sft.runtime.out_of_memory import OutOfMemoryError
from sft.runtime.stage import EXIT_RESUMABLE, Stage, StageError, run_stage
from sft.runtime.stop_request import StopRequest
from sft.runtime.time_limit import TimeLimit
from sft.training import metrics_stream, resume
from sft.training.accounting import Accounting
from sft.training.checkpoint import EFFECTIVE, Checkpoints
from sft.training.loop import train_here
from sft.training.run_setup import TENSORBOARD, Run
from sft.training.spread import train_on_ranks
from sft.training.tensorboard_mirror import TensorboardMirror
from sft.training.token_rows import prepare_rows
from sft.training.training_arguments import kept_steps, micro_batch, smaller_micro_batch, total_steps


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto: cuda where it is")
    parser.add_argument(
        "--micro-batch-size",
        type=int,
        default=0,
        metavar="N",
        help="rows per forward pass; gradients add up to the global batch (0: all at once)",
    )
    parser.add_argument("--code-policy", choices=resume.POLICIES, default="rerun", help="checkpoints of other code")
    parser.add_argument(
        "--keep-optimizer",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="keep the optimizer state of kept checkpoints",
    )
    parser.add_argument(
        "--checkpoint-minutes",
        type=float,
        default=15.0,
        metavar="M",
        help="also save, for continuing only, every M minutes (default: 15)",
    )
    parser.add_argument("--strategy", choices=launch.STRATEGIES, default="none", help="how processes share the run")
    parser.add_argument("--processes", type=int, default=1, metavar="N", help="processes over all nodes (default: 1)")
    parser.add_argument("--nodes", type=int, default=1, metavar="N", help="machines that they are on (default: 1)")
    parser.add_argument("--offload", action="store_true", help="DeepSpeed: keep state in the host's memory")
    parser.add_argument(
        "--launch-prefix",
        default="",
        metavar="COMMAND",
        help="what starts a command once on each node, as in: srun --ntasks-per-node 1",
    )


def make(stage: Stage) -> None:
    stop = StopRequest()
    training = stage.settings(TrainSettings).training
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise StageError(
            "train_model starts its processes itself (--strategy, --processes). Start it without accelerate launch "
            "or torchrun"
        )
    micro_batch(training.global_batch_size, stage.options.micro_batch_size, stage.options.processes)
    total = total_steps(training, _training_rows(stage.input("tokens")))
    kept = kept_steps(training, total)
    made_from = resume.provenance(stage)
    for split in ("train", "validation"):
        prepare_rows(stage.input("tokens"), split, stage.say)
    if stage.options.device != "cpu":
        lease_cuda(stage.options.processes // stage.options.nodes, stage.say)
    checkpoints = Checkpoints(stage.directory / "checkpoints", stage.say, stage.claim.require)
    while True:
        start = resume.find_start(
            checkpoints, made_from, stage.options.code_policy, kept, total, stage.environment["policy"]
        )
        limit = TimeLimit(job.seconds_left(stage.say))
        attempt = attempts.begin(stage.directory, start.step if start.path else None, total, stage.options)
        run = Run(stage, total, kept, made_from, checkpoints, start, attempt, stop, limit)
        if start.step == total:
            stage.say(f"all {total} steps are trained; writing the results")
            break
        stage.say(f"continuing from step {start.step} of {total}" if start.path else f"{total} steps to train")
        try:
            reached = _train(run)
        except SystemExit:
            reached = start.step  # asked to stop before the first step
        except OutOfMemoryError as error:
            _halve_micro_batch(run, error)
            continue
        except Exception as error:
            # Who decides whether to try again has to know where it failed, and whether it was the same as before.
            with suppress(OSError, StageError):  # told is the error itself, not that a full disk has no room for it
                attempts.note(stage.directory, attempt, {"failed": _first_line(error), "step": _last_step(run)})
            raise
        if reached < total:
            _stop(run, reached)
        break
    _finish(run)


def _stop(run: Run, reached: int) -> NoReturn:
    """Note that the run stops on request, and leave so that it is started again."""
    stage = run.stage
    why = run.stop.reason or "time limit"  # which a rank sees for itself
    attempts.note(stage.directory, run.attempt, {"stopped": why, "step": reached})
    stage.say(f"stopped on request ({why}) after step {reached} of {run.total_steps}; start again")
    raise SystemExit(EXIT_RESUMABLE)


def _halve_micro_batch(run: Run, error: OutOfMemoryError) -> None:
    """Let the next attempt run fewer rows at once at the same global batch; StageError when one row is too many."""
    stage, options = run.stage, run.stage.options
    micro, _ = micro_batch(run.settings.training.global_batch_size, options.micro_batch_size, options.processes)
    smaller = smaller_micro_batch(run.settings.training.global_batch_size, micro, options.processes)
    if smaller is None:
        raise StageError(
            f"out of memory with one row at a time ({error}). Lower training.max_length, set "
            f"training.activation_checkpointing: true, train with method: lora, or spread the run with strategy: fsdp2"
        )
    stage.say(
        f"out of memory with {micro} rows at once ({error}); going on with {smaller}, at the same global batch. Set "
        f"execution.micro_batch_size: {smaller} to start with it"
    )
    attempts.note(stage.directory, run.attempt, {"out_of_memory": True, "micro_batch_size": micro})
    options.micro_batch_size = smaller


def _first_line(error: Exception) -> str:
    text = str(error) if isinstance(error, StageError) else f"{type(error).__name__}: {error}"
    return text.partition("\n")[0][:500]


def _last_step(run: Run) -> int:
    rows = metrics_stream.read_lines(run.metrics)
    return max((row["step"] for row in rows if row["attempt"] == run.attempt), default=run.start.step)


def _training_rows(tokens: Path) -> int:
    import pyarrow.parquet as pq

    rows = pq.read_metadata(tokens / "train.parquet").num_rows
    if not rows:
        raise StageError(f"{tokens / 'train.parquet'}: no rows to train on")
    return rows


def _train(run: Run) -> int:
    """Train from where the run starts to its last step, or to the one after which it is asked to stop; that step."""
    stage = run.stage
    meter, devices = EnergyMeter(), visible_devices()
    before = meter.joules(devices)
    try:
        if stage.options.strategy == "none":
            return train_here(run)
        start = run.start.step if run.start.path else None
        told = {"total_steps": run.total_steps, "kept_steps": run.kept_steps, "provenance": run.provenance}
        return train_on_ranks(stage, told | {"start": start, "attempt": run.attempt}, run.stop)
    finally:
        after = meter.joules(devices)
        if before is not None and after is not None:
            attempts.note(stage.directory, run.attempt, {"joules": after - before})


def _finish(run: Run) -> None:
    """Write the outputs, from what lies in the kept checkpoints and the metrics stream."""
    from sft.training import probe

    stage, total = run.stage, run.total_steps
    found = {checkpoint.step: checkpoint for checkpoint in run.checkpoints.all()}
    kept = [found[step] for step in run.kept_steps]
    shapes = probe.assemble([checkpoint.path for checkpoint in kept], stage.output("probe.safetensors"))
    entries = [
        {
            "step": checkpoint.step,
            "path": checkpoint.path.relative_to(stage.directory).as_posix(),
            "digest": checkpoint.marker["weights_digest"],
        }
        for checkpoint in kept
    ]
    _write_json(stage.output("kept.json"), {"kept": entries, "probe": shapes})
    effective = json.loads((kept[-1].path / EFFECTIVE).read_text())
    _write_json(stage.output("effective.json"), effective)
    rows = metrics_stream.read(run.metrics, up_to=total)
    metrics_stream.write_tidy(rows, stage.output("metrics.parquet"))
    TensorboardMirror(run.metrics, stage.directory / TENSORBOARD).close()
    run.checkpoints.rotate(run.kept_steps, stage.options.keep_optimizer, newest=0)
    attempts.note(stage.directory, run.attempt, {"finished": True})
    if aside := sorted(path.name for path in run.checkpoints.directory.glob("set-aside-*")):
        stage.say(f"not needed any more, may be deleted: {', '.join(aside)} in {run.checkpoints.directory}")

    codes = Accounting.load(kept[-1].path).codes
    last = rows[total, "train"]
    facts = attempts.facts(stage.directory, metrics_stream.read_lines(stage.directory / metrics_stream.NAME))
    stage.record(
        **effective["run"],
        **facts,
        cost=cost(
            facts["attempts"],
            effective["run"]["parameters"],
            run.settings.method,
            facts["tokens_per_second"],
        ),
        steps=total,
        tokens_seen=last["tokens_seen"],
        supervised_tokens_seen=last["supervised_tokens_seen"],
        mixed=codes if len(codes) > 1 else None,
    )
    stage.summary(f"{total} steps, loss {last['loss']:.2g}, {facts['tokens_per_second']:,.0f} tokens/s")


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    run_stage(make, __doc__, add_options)
