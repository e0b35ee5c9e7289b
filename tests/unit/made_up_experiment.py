"""Directories of made-up runs, as training and scoring leave them, to test what is made from runs.

Accuracies follow runs that were measured on handwritten digits (a tiny vision-language model, 360 test rows, seeds
0, 1, 2): inverted pictures learnt by full fine-tuning, by LoRA, and by full fine-tuning with 300 old rows. Losses and
gradient norms have the shape and scatter of such runs.
"""

import argparse
import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sft.config.nodes import Shown
from sft.evaluation.statistics import wilson_interval
from sft.runtime import manifest
from sft.runtime.canonical import digest
from sft.runtime.stage import Stage

ROOT = Path(__file__).resolve().parent.parent.parent
STEPS = (0, 20, 40, 60, 80)
NEW, OLD = "digits_inverted", "digits"
IDS = {"digits-invert-aaaa1111": NEW, "digits-bbbb2222": OLD}
ROWS = 360
SEEDS = (0, 1, 2)
# Correct rows of 360 at STEPS, by seed.
CORRECT = {
    "full": {
        NEW: [(30, 287, 325, 344, 348), (33, 291, 331, 340, 342), (21, 292, 328, 339, 341)],
        OLD: [(349, 241, 206, 189, 182), (344, 232, 208, 196, 190), (349, 262, 241, 229, 225)],
    },
    "lora": {
        NEW: [(30, 262, 318, 338, 342), (33, 248, 309, 331, 335), (21, 256, 322, 336, 339)],
        OLD: [(349, 159, 114, 109, 107), (344, 151, 124, 121, 119), (349, 170, 131, 122, 119)],
    },
    "replay": {
        NEW: [(30, 231, 320, 339, 341), (33, 240, 318, 336, 338), (21, 229, 315, 331, 333)],
        OLD: [(349, 281, 319, 331, 332), (344, 276, 312, 331, 334), (349, 288, 321, 336, 337)],
    },
}
TRAINABLE = {"full": 523968, "lora": 110592, "replay": 523968}


def write_node(directory: Path, rule: str, config: dict[str, Any], inputs: dict[str, Path]) -> Path:
    """A directory with `config.json`, ready for `scripts/<rule>.py`."""
    directory.mkdir(parents=True, exist_ok=True)
    node = {"rule": rule, "id": directory.name, "config": config, "identity": config}
    node["inputs"] = {name: path.as_posix() for name, path in inputs.items()}
    (directory / "config.json").write_text(json.dumps(node))
    return directory


def finish_node(directory: Path, rule: str, config: dict[str, Any], inputs: dict[str, Path], **more: Any) -> Path:
    """The manifest that makes the files in `directory` a finished result."""
    write_node(directory, rule, config, inputs)
    made_from = {}
    for name, path in inputs.items():
        made = manifest.read(path)
        made_from[name] = {"path": path.as_posix(), "key": made["key"], "content": made["content"]}
    files = {
        p.name: {"bytes": p.stat().st_size, "sha256": manifest.file_digest(p)} for p in directory.glob("*.parquet")
    }
    record = {
        "schema": 1,
        "rule": rule,
        "id": directory.name,
        "key": digest([rule, directory.name]),
        "config": config,
        "identity": config,
        "identity_digest": digest(config),
        "code": digest("train_model"),
        "environment": digest("environment"),
        "inputs": made_from,
        "outputs": files,
        "content": digest(files),
        "git": {"commit": None, "dirty": None},
        "machine": {"host": "secret-host", "python": "3.11"},
        "started": "2026-11-20T10:00:00+00:00",
        "ended": "2026-11-20T10:00:33+00:00",
        "wall_seconds": 33.2,
        "cpu_seconds": 32.5,
        "peak_rss_mib": 837,
        "facts": {},
    }
    manifest.write(directory, record | more)
    return directory


def write_scores(directory: Path, correct: dict[str, tuple[int, ...]], steps: tuple[int, ...] = STEPS) -> None:
    """scores.parquet and right.parquet: three readings of each answer, the strict one a little lower.

    Of n right answers it is the first n rows that are right.
    """
    rows, right_rows = [], []
    for dataset, name in IDS.items():
        for step, right in zip(steps, correct.get(name, ()), strict=False):
            for metric, less in (("accuracy_likelihood", 0), ("accuracy_lenient", 0), ("accuracy_strict", 2)):
                count = max(right - less, 0)
                low, high = wilson_interval(count, ROWS)
                rows.append((dataset, step, metric, count, ROWS, count / ROWS, low, high, 0, 0.95, "wilson"))
            for row in range(ROWS):
                truths = (row < max(right - 2, 0), row < right, row < right)
                right_rows.append((dataset, step, f"row-{row:03}", *truths, False))
    names = ["dataset", "step", "metric", "numerator", "denominator", "value", "low", "high"]
    names += ["errors", "confidence", "method"]
    directory.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows, columns=names).to_parquet(directory / "scores.parquet")
    names = ["dataset", "step", "id", "accuracy_strict", "accuracy_lenient", "accuracy_likelihood", "error"]
    pd.DataFrame(right_rows, columns=names).to_parquet(directory / "right.parquet")


def write_metrics(directory: Path, cell: str, seed: int, last: int = 80, every: int = 1) -> None:
    """metrics.parquet: loss, gradient norm and learning rate that fall as they do when such a model learns."""
    random = np.random.default_rng([len(cell), seed])
    steps = np.arange(every, last + 1, every)
    speed = {"full": 11.0, "lora": 17.0, "replay": 14.0}.get(cell, 13.0)
    trend = 0.055 + 4.6 * np.exp(-steps / speed) + 0.5 * np.exp(-steps / (3 * speed))
    loss = trend * random.lognormal(0, 0.12, len(steps))
    norm = 0.25 + 14 * np.exp(-steps / (0.8 * speed)) * random.lognormal(0, 0.2, len(steps))
    norm *= random.lognormal(0, 0.35, len(steps)) * (0.45 if cell == "lora" else 1.0)
    rows = []
    for step, value, grad in zip(steps.tolist(), loss.tolist(), norm.tolist(), strict=True):
        rows.append((step, "train", "loss", value * 192, 192.0, value))
        rows.append((step, "train", "grad_norm", None, None, grad))
        rows.append((step, "train", "learning_rate", None, None, 1e-3 * (1 + np.cos(np.pi * step / last)) / 2))
    for step in range(max(1, last // 8), last + 1, max(1, last // 8)):
        value = float(
            (0.09 + 4.4 * np.exp(-step / speed) + 0.5 * np.exp(-step / (3 * speed))) * random.lognormal(0, 0.05)
        )
        rows.append((step, "validation", "loss", value * 600, 600.0, value))
    directory.mkdir(parents=True, exist_ok=True)
    names = ["step", "split", "metric", "numerator", "denominator", "value"]
    pd.DataFrame(rows, columns=names).to_parquet(directory / "metrics.parquet")


def write_runs(
    root: Path, cells: tuple[str, ...] = ("full", "lora", "replay"), seeds: tuple[int, ...] = SEEDS
) -> tuple[list[dict[str, Any]], dict[str, Path]]:
    """The runs and their scores below `root`; returns what the ledger's config.json says about them."""
    described, inputs = [], {}
    base = root / "models" / "base"
    base.mkdir(parents=True, exist_ok=True)
    finish_node(base, "download_model", {"source": {"path": "somewhere"}}, {})
    for cell in cells:
        for seed in seeds:
            run = root / "runs" / f"digits-{cell}-s{seed}"
            write_metrics(run, cell, seed)
            config = {"method": cell, "seed": seed, "training": {"max_grad_norm": 1.0}}
            facts = {"trainable_parameters": TRAINABLE[cell], "parameters": 523968, "tokens_per_second": 6400.0 + seed}
            # Energy was measured for all seeds but the first.
            joules = 2500.0 if seed else "not measured"
            facts["cost"] = {"device_hours": 0.00922, "joules": joules, "model_flops_utilisation": "not measured"}
            finish_node(run, "train_model", config, {"model": base}, facts=facts)
            scores = run / "evaluations" / "both-cccc3333" / "scores"
            write_scores(scores, {name: by_seed[seed] for name, by_seed in CORRECT[cell].items()})
            finish_node(scores, "score", {"datasets": list(IDS)}, {})
            i = len(described)
            inputs |= {f"run-{i}": run, f"scores-{i}": scores}
            described.append({"cell": cell, "seed": seed, "run": run.name, "settings": {"method": cell}})
    return described, inputs


def write_baseline(root: Path, label: str, correct: dict[str, int], cells: tuple[str, ...]) -> dict[str, Any]:
    """A fitted baseline and its scores; returns `{"baseline": …, "inputs": [baseline, its scores]}`."""
    directory = root / "baselines" / f"bag_of_words-{label}"
    directory.mkdir(parents=True)
    finish_node(directory, "fit_baseline", {"method": "bag_of_words"}, {})
    scores = directory / "scores"
    write_scores(scores, {name: (right,) for name, right in correct.items()}, steps=(0,))
    finish_node(scores, "score", {"datasets": list(IDS)}, {})
    return {"baseline": {"name": "words", "label": label, "cells": list(cells)}, "inputs": [directory, scores]}


def run_script(rule: str, directory: Path, **how: Any) -> subprocess.CompletedProcess:
    """`python scripts/<rule>.py DIRECTORY` from the repository root."""
    command = [sys.executable, str(ROOT / "scripts" / f"{rule}.py"), str(directory)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False, **how)


def make_here(rule: str, directory: Path) -> Path:
    """What `scripts/<rule>.py` makes of `directory`, within this process; returns where its outputs lie."""
    stage = Stage(directory, argparse.Namespace(threads=1))
    stage.attempt.mkdir()
    importlib.import_module(rule).make(stage)
    stage.attempt.joinpath("facts.json").write_text(json.dumps(stage.facts))
    return stage.attempt


def shown(cells: tuple[str, ...], seeds: tuple[int, ...] = SEEDS, **more: Any) -> dict[str, Any]:
    """The config of a figure or table node."""
    return {
        "experiment": "digits_shift",
        "title": "Learning inverted digits: full fine-tuning, LoRA, and old rows mixed in",
        "description": "What is learnt and what is forgotten.",
        "cells": list(cells),
        "datasets": [NEW, OLD],
        "metric": "accuracy_likelihood",
        "chance": 0.1,
        "seeds": list(seeds),
    } | more


def typed(cells: tuple[str, ...], seeds: tuple[int, ...] = SEEDS, **more: Any) -> Shown:
    """The same as scripts read it."""
    return Shown.read_back(shown(cells, seeds, **more))


def write_experiment(root: Path, baselines: tuple[dict[str, Any], ...] = (), split: str = "", **how: Any) -> Path:
    """The collected ledger of `write_runs(root, **how)` and of `write_baseline`s; returns its directory."""
    cells, inputs = write_runs(root, **how)
    config = {"experiment": "digits_shift", "cells": cells, "datasets": IDS} | ({"split": split} if split else {})
    for i, one in enumerate(baselines):
        inputs |= {f"baseline-{i}": one["inputs"][0], f"baseline-scores-{i}": one["inputs"][1]}
        config["baselines"] = [*config.get("baselines", []), one["baseline"]]
    directory = write_node(root / "experiments" / "digits_shift" / "ledger", "collect_metrics", config, inputs)
    done = run_script("collect_metrics", directory)
    assert done.returncode == 0, done.stderr
    return directory
