"""FP8, another attention, chosen layers, 8-bit optimizers: what is asked runs, stops and goes on.

Tests: sft.training.float8
"""

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import training_nodes as runs
from safetensors.torch import load_file

pytestmark = pytest.mark.slow
SHORT = {"max_steps": 6, "save_steps": 3, "eval_steps": None}
EMULATED = {"float8": "tensorwise", "float8_emulated": True}


def methods_of(run: Path) -> dict[str, Any]:
    return json.loads((run / "effective.json").read_text())["methods"]


def killed_and_continued(run: Path) -> Path:
    assert runs.train(run, "--keep-optimizer", patch=runs.killed_after(4)) == -signal.SIGKILL, runs.log(run)
    return runs.train_well(run, "--keep-optimizer")


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("full", EMULATED),
        ("lora", EMULATED | {"float8": "rowwise"}),
        ("full", {"optim": "adamw_8bit"}),
        ("full", {"optim": "paged_adamw_8bit"}),
    ],
    ids=["float8", "float8-lora", "adamw_8bit", "paged_adamw_8bit"],
)
def test_killed_and_continued_equals_uninterrupted(
    text_nodes, tmp_path: Path, method: str, settings: dict[str, Any]
) -> None:
    whole = runs.write_run(tmp_path / "whole", text_nodes, method, **SHORT, **settings)
    parts = runs.write_run(tmp_path / "parts", text_nodes, method, **SHORT, **settings)
    runs.train_well(whole, "--keep-optimizer")
    runs.assert_same(whole, killed_and_continued(parts))
    if "float8" in settings:
        told = methods_of(whole)["float8"]
        # Two blocks of seven layers; the first (q_proj) and the last (down_proj) are left, and so is the head.
        assert (told["layers"], told["left"]) == (12, {"first or last": 2, "output layer": 1})
    names = load_file(next((whole / "checkpoints/checkpoint-6").glob("*.safetensors")))
    assert not any("_orig_mod" in name or "scale" in name for name in names)


def test_losses_are_near_those_of_stock(text_nodes, tmp_path: Path) -> None:
    """FP8 rounds to 3 bits, another attention adds in another order; each is another run, and a near one."""
    asked = {"stock": {}, "float8": EMULATED, "eager": {"attention": "eager"}}
    losses = {}
    for name, settings in asked.items():
        run = runs.train_well(runs.write_run(tmp_path / name, text_nodes, **SHORT, **settings))
        losses[name] = [row["loss"] for row in runs.rows(run) if row["split"] == "train"]
    assert losses["eager"] == pytest.approx(losses["stock"], rel=1e-5)
    assert losses["float8"] == pytest.approx(losses["stock"], rel=3e-2)
    assert losses["float8"] != pytest.approx(losses["stock"], rel=1e-5)
    ran = json.loads((tmp_path / "eager/effective.json").read_text())["run"]["attention"]
    assert ran == "eager"


def test_only_the_chosen_layers_get_adapters(text_nodes, tmp_path: Path) -> None:
    lora = runs.LORA | {"target_modules": ["q_proj", "v_proj"], "layers": [1]}
    run = runs.train_well(runs.write_run(tmp_path / "run", text_nodes, "lora", lora=lora, **SHORT))
    adapter = load_file(run / "checkpoints/checkpoint-6/adapter_model.safetensors")
    assert {name.split(".layers.")[1][0] for name in adapter} == {"1"}
    assert len(adapter) == 4


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"kernels": "liger"}, "liger-kernel is not installed, and training is configured to use it"),
        ({"float8": "tensorwise"}, "training.float8: a CPU has no FP8"),
        ({"attention": "flex_attention"}, "training.attention: flex_attention has no backward pass on a CPU"),
        ({"activation_offloading": True}, "training.activation_offloading: needs CUDA"),
    ],
)
def test_what_cannot_run_here_stops(text_nodes, tmp_path: Path, settings: dict[str, Any], says: str) -> None:
    run = runs.write_run(tmp_path / "run", text_nodes, **SHORT, **settings)
    assert runs.train(run) == 1
    assert says in runs.log(run)
    assert "Traceback" not in runs.log(run)
