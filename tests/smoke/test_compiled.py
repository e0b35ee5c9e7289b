"""Blocks compiled in place: the losses of the uncompiled ones, stops that go on, and the names and proof of any run."""

import json
import os
import signal
from pathlib import Path

import pytest
import small_runs
import training_nodes as runs
from safetensors.torch import load_file
from spread_runs import BOUND, assert_close

pytestmark = pytest.mark.slow
SHORT = {"max_steps": 6, "save_steps": 3, "eval_steps": 3}
COMPILED = SHORT | {"compile": "default"}


@pytest.fixture(scope="module")
def trained(text_nodes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = runs.write_run(tmp_path_factory.mktemp("compiled") / "run", text_nodes, **COMPILED)
    return runs.train_well(run, "--keep-optimizer")


def test_losses_are_those_of_the_uncompiled(trained, text_nodes, tmp_path: Path) -> None:
    """A compiler adds in another order: measured over these steps, 1e-7 in the loss, 3e-7 in the gradient norm."""
    plain = runs.train_well(runs.write_run(tmp_path / "plain", text_nodes, **SHORT))
    assert_close(plain, trained, BOUND)
    told = json.loads((trained / "effective.json").read_text())["methods"]["compile"]
    assert told == {"mode": "default", "blocks": 2, "classes": ["LlamaDecoderLayer"]}


def test_killed_and_continued_equals_uninterrupted(trained, text_nodes, tmp_path: Path) -> None:
    run = runs.write_run(tmp_path / "parts", text_nodes, **COMPILED)
    assert runs.train(run, "--keep-optimizer", patch=runs.killed_after(4)) == -signal.SIGKILL, runs.log(run)
    runs.assert_same(trained, runs.train_well(run, "--keep-optimizer"))


def test_the_checkpoint_is_that_of_any_run(trained, text_nodes, tmp_path: Path) -> None:
    names = load_file(trained / "checkpoints/checkpoint-6/model.safetensors").keys()
    assert "model.layers.1.mlp.up_proj.weight" in names
    assert not any("_orig_mod" in name for name in names)
    target = small_runs.converted(trained, text_nodes, "full", tmp_path / "float32")
    report = json.loads((target / "parity.json").read_text())["steps"]["6"]
    assert report["logits"]["converted_against_trained"]["prompts"]["max_difference"] == 0.0


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("TORCHDYNAMO_DISABLE", "1", "training.compile: the first forward pass compiled nothing"),
        ("PATH", "/no/such/folder", "training.compile: no C++ compiler was found. Install g++"),
    ],
)
def test_what_would_not_be_compiled_stops(text_nodes, tmp_path: Path, variable: str, value: str, says: str) -> None:
    run = runs.write_run(tmp_path / "run", text_nodes, **COMPILED)
    assert runs.train(run, patch=lambda: os.environ.update({variable: value})) == 1
    assert says in runs.log(run)
    assert "Traceback" not in runs.log(run)
