"""Tokenised rows and runs to train, made in seconds from made-up pictures or texts, for the tests of train_model."""

import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import small_runs

from sft.config.training_settings import Tokens
from sft.data.tokens.tokenization import Tokenization
from sft.models.loading import load_processor
from sft.training import metrics_stream

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "train_model.py"
LORA = {
    "r": 4,
    "alpha": 8,
    "dropout": 0.1,  # draws random numbers in every step, so a resume must restore their state
    "target_modules": "all-linear",
    "use_rslora": False,
    "use_dora": False,
    "modules_to_save": [],
}


def training(**changes: Any) -> dict[str, Any]:
    """The `training` section of a resolved configuration: 8 rows a step, 12 steps."""
    return {
        "learning_rate": 2e-3,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 2,
        "weight_decay": 0.01,
        "adam_beta1": 0.9,
        "adam_beta2": 0.999,
        "adam_epsilon": 1e-8,
        "optim": "adamw_torch",
        "max_grad_norm": 1.0,
        "global_batch_size": 8,
        "max_steps": 12,
        "num_train_epochs": None,
        "save_steps": 4,
        "eval_steps": 4,
        "logging_steps": 1,
        "activation_checkpointing": False,
        "extra": {},
    } | changes


def write_tokens(directory: Path, processor: Path, rows: list[dict[str, Any]], validation: int = 12) -> Path:
    """A finished node of tokenised rows; the first `validation` of them are the validation split."""
    directory.mkdir(parents=True)
    made = load_processor(processor / "processor")
    settings = Tokens(max_length=256)
    splits = {}
    for split, part in (("train", rows[validation:]), ("validation", rows[:validation])):
        tokenization = Tokenization(made, settings, split)
        tokenised = [
            row | {name: list(row[name]) for name in ("input_ids", "labels")} for row in tokenization.tokenise(part)
        ]
        if not any(row["images"] for row in tokenised):
            tokenised = [{name: row[name] for name in ("id", "input_ids", "labels")} for row in tokenised]
        pq.write_table(pa.Table.from_pylist(tokenised), directory / f"{split}.parquet")
        splits[split] = tokenization.facts()
    (directory / "labels.json").write_text(json.dumps({"splits": splits}))
    return small_runs.finish(directory)


def text_rows(count: int) -> list[dict[str, Any]]:
    """Examples without pictures and of different lengths, so that batches are padded."""
    rows = small_runs.examples(count, pictures=False)
    return [row | {"prompt": row["prompt"] + " and" * (i % 7)} for i, row in enumerate(rows)]


def write_nodes(root: Path, family: str = "llama", rows: int = 52, validation: int = 12) -> dict[str, Path]:
    """Finished nodes: processor, model, tokens, audit. 40 training rows are 5 steps of 8 an epoch."""
    processor, model = small_runs.write_base(root, family)
    examples = small_runs.examples(rows) if family == "qwen2_5_vl" else text_rows(rows)
    tokens = write_tokens(root / "tokens", processor, examples, validation)
    (root / "audit").mkdir()
    return {"tokens": tokens, "model": model, "processor": processor, "audit": small_runs.finish(root / "audit")}


def write_run(directory: Path, nodes: dict[str, Path], method: str = "full", **changes: Any) -> Path:
    """A run to train. `changes` go into `training`, except seed, precision, lora and model_step."""
    top = {key: changes.pop(key) for key in ("seed", "precision", "lora", "model_step") if key in changes}
    config = {"method": method, "lora": LORA if method == "lora" else None, "seed": 0, "precision": "float32"}
    return small_runs.write_node(directory, "train_model", config | {"training": training(**changes)} | top, nodes)


def command(run: Path, *options: str) -> list[str]:
    """The command that trains `run` on the CPU."""
    return [sys.executable, str(SCRIPT), str(run), "--device", "cpu", *options]


class Child:
    """A trainer in a process of its own, forked from this one so that the libraries are imported once for all tests.

    It runs what the command runs, and dies of the signals that the command dies of.
    """

    def __init__(self, run: Path, *options: str, patch: Callable[[], None] | None = None):
        _import_libraries()
        self.run = run
        self.returncode: int | None = None
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            _child(run, options, patch)

    def poll(self) -> int | None:
        """The exit code (negative: the signal it died of), or None while it runs."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, seconds: float = 240) -> int:
        """The exit code, once it has ended."""
        self.wait_until(lambda: self.poll() is not None, seconds)
        return self.returncode

    def wait_until(self, condition: Callable[[], bool], seconds: float = 120) -> None:
        """Return when `condition` holds; fail when the trainer ends before, or after `seconds`."""
        deadline = time.monotonic() + seconds
        while not condition():
            if self.returncode is not None or time.monotonic() > deadline:
                pytest.fail(f"the trainer ended ({self.returncode}) or took too long:\n{log(self.run)}")
            self.poll()
            time.sleep(0.01)

    def wait_for(self, saved: int = 0, step: int = 0) -> None:
        """Return when the checkpoint of `saved` is complete and the row of `step` is in the stream."""
        self.wait_until(
            lambda: (not saved or max(saved_steps(self.run), default=0) >= saved) and last_step(self.run) >= step
        )

    def signal(self, number: int) -> None:
        """Send a signal; the process may have ended by itself."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> int:
        """SIGKILL, as the kernel does when memory runs out; returns the exit code."""
        self.signal(signal.SIGKILL)
        return self.wait()


def train(run: Path, *options: str, patch: Callable[[], None] | None = None) -> int:
    """Train to the end; the exit code."""
    return Child(run, *options, patch=patch).wait()


def train_well(run: Path, *options: str) -> Path:
    """Train to the end, successfully; returns `run`."""
    code = train(run, *options)
    assert code == 0, log(run)
    return run


def killed_after(step: int) -> Callable[[], None]:
    """A `patch` by which the trainer is killed at the end of `step`, however busy the machine is."""

    def patch() -> None:
        from sft.training.trainer import RunTrainer

        stock = RunTrainer.end_step

        def dying(self: Any) -> bool:
            stopping = stock(self)
            if self.state.global_step == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return stopping

        RunTrainer.end_step = dying

    return patch


def log(run: Path) -> str:
    """What the trainers of `run` wrote to standard output and error."""
    path = run / "log"
    return path.read_text() if path.exists() else ""


@cache
def _import_libraries() -> None:
    from sft.models import torch_setup

    torch_setup.prepare(threads=1, needs_bitsandbytes=False)
    import sft.training.effective
    import sft.training.probe
    import sft.training.token_rows
    import sft.training.trainer  # noqa: F401


def _child(run: Path, options: tuple[str, ...], patch: Callable[[], None] | None) -> NoReturn:
    code = 1
    try:
        output = os.open(run / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115 (a descriptor)
        sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
        sys.argv = command(run, *options)[1:]
        if patch:
            patch()
        import train_model
        from sft.runtime.stage import run_stage

        run_stage(train_model.make, train_model.__doc__, train_model.add_options)
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


# What came out


def rows(run: Path) -> list[dict[str, Any]]:
    """The rows of the metrics stream that count, without what may differ between two executions."""
    return [metrics_stream.comparable(row) for row in metrics_stream.read(run / "metrics.jsonl").values()]


def last_step(run: Path) -> int:
    """The newest training step in the stream; 0 before the first."""
    lines = metrics_stream.read_lines(run / "metrics.jsonl")
    return max((row["step"] for row in lines if row["split"] == "train"), default=0)


def saved_steps(run: Path) -> list[int]:
    """Steps of the checkpoints that have a marker."""
    return sorted(int(path.parent.name.split("-")[1]) for path in run.glob("checkpoints/checkpoint-*/complete.json"))


def attempts(run: Path) -> list[dict[str, Any]]:
    """The attempts in the manifest of a finished run."""
    return json.loads((run / "manifest.json").read_text())["facts"]["attempts"]


def assert_same(one: Path, other: Path) -> None:
    """Fail unless two finished runs (trained with --keep-optimizer) are the same bit for bit."""
    import torch

    assert rows(one) == rows(other)
    assert saved_steps(one) == saved_steps(other)
    for step in saved_steps(one):
        pair = [run / "checkpoints" / f"checkpoint-{step}" for run in (one, other)]
        weights = [path.name for path in pair[0].glob("*.safetensors")]
        assert weights
        for name in weights:
            assert (pair[0] / name).read_bytes() == (pair[1] / name).read_bytes(), f"{name} of step {step}"
        for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
            # The random states hold numpy arrays, which weights_only refuses; the files are this test's own.
            first, second = (torch.load(path / name, weights_only=False) for path in pair)
            assert _equal(first, second), f"{name} of step {step}"
        markers = [json.loads((path / "complete.json").read_text()) for path in pair]
        assert markers[0]["weights_digest"] == markers[1]["weights_digest"]
    for name in ("metrics.parquet", "probe.safetensors", "kept.json", "effective.json"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


def _equal(one: Any, other: Any) -> bool:
    import torch

    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(_equal(a, b) for a, b in zip(one, other, strict=True))
    if torch.is_tensor(one):
        return torch.equal(one, other)
    if isinstance(one, np.ndarray):
        return np.array_equal(one, other)
    return one == other
