"""What is trained in shards is converted, proven and frozen as what is not.

Tests: sft.models.sharded_weights, sft.training.gathered_state, sft.training.sharded_state, sft.training.sharding
"""

import json
from pathlib import Path

import pytest
import small_runs
import torch
import training_nodes as runs
from forked_ranks import fork_ranks
from spread_runs import assert_close, digest, run_of, spread_over, stopped, train_spread

from sft.conversion.convert import Request, convert
from sft.conversion.merge import ADAPTER_FILES
from sft.models.loading import load_model
from sft.models.sharded_weights import load_trained
from sft.models.weight_files import WeightFiles

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("kind", "strategy"), [("text", "fsdp2"), ("vision", "fsdp2"), ("vision", "fsdp1")])
def test_shards_are_converted_and_shown_to_be_the_trained_model(few_rows, tmp_path: Path, kind, strategy) -> None:
    """Two processes in shards, conversion through the gate, and an answer from what came out."""
    nodes = few_rows[kind]
    run = train_spread(run_of(tmp_path / "run", nodes, "full"), strategy)
    target = small_runs.converted(run, nodes, "full", tmp_path / "float32")
    report = json.loads((target / "parity.json").read_text())["steps"]["4"]
    assert report["logits"]["converted_against_trained"]["prompts"]["relative"] <= 1e-5
    assert report["tensors"]["equal_bytes"] == report["tensors"]["tensors"]
    # The same from outside: the tool for anybody's checkpoints finds the shards in the checkpoint.
    model = tmp_path / "by-hand"
    model.mkdir()
    base = nodes["model"] / "model"
    list(convert(Request(run / "checkpoints/checkpoint-4", base, None, None, None, None, None, False, 2**30), model))
    files = [WeightFiles(target / "step-4"), WeightFiles(model)]
    assert all(torch.equal(files[0][name], files[1][name]) for name in files[0])


def test_whole_copies_beside_an_adapter_are_saved_and_gone_on_from(few_rows, tmp_path: Path) -> None:
    nodes, lora = few_rows["text"], runs.LORA | {"dropout": 0.0, "target_modules": ["q_proj"]}
    settings = {"lora": lora | {"modules_to_save": ["norm"]}}
    one = runs.train_well(run_of(tmp_path / "one", nodes, "lora", **settings), "--micro-batch-size", "4")
    whole = train_spread(run_of(tmp_path / "whole", nodes, "lora", **settings), "fsdp2")
    assert_close(one, whole)
    stored = [WeightFiles(run / "checkpoints/checkpoint-4", ADAPTER_FILES[1]) for run in (one, whole)]
    assert stored[0].keys() == stored[1].keys()
    norm = "base_model.model.model.norm.weight"
    torch.testing.assert_close(stored[0][norm], stored[1][norm], rtol=1e-5, atol=1e-6)
    assert not torch.equal(stored[1][norm], WeightFiles(nodes["model"] / "model")["model.norm.weight"])
    parts = stopped(run_of(tmp_path / "parts", nodes, "lora", **settings), "fsdp2")
    assert digest(train_spread(parts, "fsdp2")) == digest(whole)


def test_a_whole_copy_of_one_of_two_tied_layers_is_refused_in_shards(few_rows, tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", few_rows["text"], "lora", lora=runs.LORA | {"modules_to_save": ["lm_head"]})
    assert runs.train(run, *spread_over("fsdp2"), patch=fork_ranks) != 0
    assert "are one tensor (tied embeddings)" in runs.log(run)
    assert "Traceback" not in runs.log(run)


@pytest.mark.parametrize("strategy", ["fsdp2", "fsdp1"])
def test_frozen_parameters_stay_what_they_were(few_rows, tmp_path: Path, strategy: str) -> None:
    nodes = few_rows["vision"]
    run = run_of(tmp_path / "run", nodes, "full", frozen=["visual"])
    train_spread(run, strategy)
    base = load_model(nodes["model"] / "model").state_dict()
    trained = load_trained(run / "checkpoints/checkpoint-4", nodes["model"] / "model").state_dict()
    unchanged = {name for name in base if torch.equal(base[name], trained[name])}
    assert unchanged == {name for name in base if "visual" in name}
    told = json.loads((run / "effective.json").read_text())["run"]
    assert told["trainable_parameters"] < told["parameters"]
