"""Runs of this workflow on a device: in shards, under DeepSpeed, compiled, with Unsloth; each against the plain run.

By their real commands, as many processes as there are devices (two on a CPU). What is not installed is skipped, saying
so; DeepSpeed and Unsloth are in environments of their own (locks/deepspeed.txt, locks/unsloth.txt).
"""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from device_tools import ROOT, needed

WHOLE = "needs the workflow's environment: make setup TORCH=cuda"
runs = pytest.importorskip("training_nodes", reason=WHOLE)
spread_runs = pytest.importorskip("spread_runs", reason=WHOLE)
exclusions = pytest.importorskip("sft.config.exclusions", reason=WHOLE)
training_settings = pytest.importorskip("sft.config.training_settings", reason=WHOLE)
absent = [name for name in ("trl", "peft", "accelerate") if importlib.util.find_spec(name) is None]
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(bool(absent), reason=f"{', '.join(absent)} not there; {WHOLE}"),
]
# Kernels of a GPU add in another order for another number of rows; float32, no TF32.
GPU_BOUND = 1e-4
# Unsloth's own kernels were not seen by us on a GPU.
UNSLOTH_GPU_BOUND = 1e-2


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Path]]:
    """A tiny text and a tiny vision model, each with 20 training rows."""
    root = tmp_path_factory.mktemp("nodes")
    return {
        kind: runs.write_nodes(root / kind, family, rows=26, validation=6)
        for kind, family in (("text", "llama"), ("vision", "qwen2_5_vl"))
    }


@pytest.fixture(scope="module")
def plain(nodes, tmp_path_factory: pytest.TempPathFactory):
    """The run that others are held against, on a device: made once for each kind and method."""
    root, made = tmp_path_factory.mktemp("plain"), {}

    def of(device: str, kind: str, method: str, *options: str) -> Path:
        key = (device, kind, method, *options)
        if key not in made:
            made[key] = trained(spread_runs.run_of(root / str(len(made)), nodes[kind], method), device, *options)
        return made[key]

    return of


def trained(run: Path, device: str, *options: str, python: str = sys.executable) -> Path:
    command = [python, *runs.command(run, "--device", device, *options)[1:]]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stderr[-6000:]
    return run


def bound(device: str) -> float:
    return spread_runs.BOUND if device == "cpu" else GPU_BOUND


def told(run: Path) -> dict[str, Any]:
    return json.loads((run / "effective.json").read_text())


@pytest.mark.parametrize("strategy", ["fsdp2", "fsdp1", "deepspeed_zero2", "deepspeed_zero3"])
def test_spread_runs_take_the_steps_of_one_process(device: str, nodes, plain, tmp_path: Path, strategy: str) -> None:
    torch = needed("torch")
    if strategy.startswith("deepspeed") and importlib.util.find_spec("deepspeed") is None:
        pytest.skip("DeepSpeed is in an environment of its own: make test-gpu PYTHON=… of locks/deepspeed.txt")
    processes = 2 if device == "cpu" else min(2, torch.cuda.device_count())
    alone = plain(device, "text", "full", "--micro-batch-size", "4")
    options = ("--strategy", strategy, "--processes", str(processes), "--micro-batch-size", "4")
    spread = trained(spread_runs.run_of(tmp_path / "run", nodes["text"], "full"), device, *options)
    spread_runs.assert_close(alone, spread, bound(device))
    found = told(spread)["distributed"]
    assert (found["strategy"], found["world_size"]) == (strategy, processes)
    assert ("nccl" if device == "cuda" else "gloo") in found["backend"]


@pytest.mark.parametrize("mode", ["default", "reduce-overhead", "max-autotune"])
def test_compiled_blocks_take_the_steps_of_plain_ones(device: str, nodes, plain, tmp_path: Path, mode: str) -> None:
    asked = training_settings.Optimization(learning_rate=1, global_batch_size=1, compile=mode)
    for _, problem, _ in exclusions.on_device(asked, device):
        pytest.skip(f"only on a CUDA device: compile {problem}")
    settings = {"compile": mode, "activation_checkpointing": True}
    run = trained(spread_runs.run_of(tmp_path / "run", nodes["vision"], "lora", **settings), device)
    spread_runs.assert_close(plain(device, "vision", "lora"), run, bound(device))
    assert told(run)["methods"]["compile"]["blocks"] == 4


@pytest.mark.parametrize("kind", ["text", "vision"])
def test_unsloth_takes_the_steps_of_trl(device: str, nodes, plain, tmp_path: Path, kind: str) -> None:
    here = ROOT / f".venv-{'cpu-' if device == 'cpu' else ''}unsloth/bin/python"
    python = Path(os.environ.get("SFT_UNSLOTH_PYTHON", here))
    if not python.exists():
        pytest.skip("Unsloth is in an environment of its own: SFT_UNSLOTH_PYTHON names a Python that has it")
    if device == "cpu" and kind == "vision":
        pytest.skip("only on a CUDA device: Unsloth trains no vision tower on a CPU")
    run = spread_runs.run_of(tmp_path / "run", nodes[kind], "lora", backend="unsloth")
    trained(run, device, python=str(python))
    spread_runs.assert_close(
        plain(device, kind, "lora"), run, spread_runs.BOUND if device == "cpu" else UNSLOTH_GPU_BOUND
    )
