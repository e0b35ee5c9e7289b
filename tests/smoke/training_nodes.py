"""Tokenised rows and runs to train, made in seconds from made-up pictures or texts, for the tests of train_model."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import small_runs
from sft.loading import load_processor
from sft.tokenization import Tokenization

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
    config = {"max_length": 256, "on_too_long": "error", "loss_on": "completion"}
    splits = {}
    for split, part in (("train", rows[validation:]), ("validation", rows[:validation])):
        tokenization = Tokenization(made, config, split)
        tokenised = list(tokenization.tokenise(part))
        if not any(row["images"] for row in tokenised):
            tokenised = [{name: row[name] for name in ("id", "input_ids", "labels")} for row in tokenised]
        pq.write_table(pa.Table.from_pylist(tokenised), directory / f"{split}.parquet")
        splits[split] = tokenization.audit()
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


def train(run: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Train to the end in a process of its own."""
    return subprocess.run(command(run, *options), capture_output=True, text=True, check=False, timeout=300)


def start(run: Path, *options: str) -> subprocess.Popen[str]:
    """Start training; its standard error is kept in `run`/log."""
    with (run / "log").open("a") as log:
        return subprocess.Popen(command(run, *options), stdout=subprocess.DEVNULL, stderr=log, text=True)


def kill(process: subprocess.Popen[str]) -> None:
    """SIGKILL, as the kernel does when memory runs out."""
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
