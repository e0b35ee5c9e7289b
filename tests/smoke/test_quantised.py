"""Adapters on a base in 4 or 8 bit: trained, stopped, continued, and shipped as what was trained.

Tests: sft.models.quantisation_scheme
"""

import json
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import training_nodes as runs
from safetensors.torch import load_file

from sft.config.nodes import TrainSettings
from sft.conversion.convert import Request, convert
from sft.conversion.export import write_merged
from sft.conversion.gate import Gate
from sft.conversion.merge import with_adapter
from sft.models.loading import load_model
from sft.models.quantisation_scheme import Scheme
from sft.runtime.stage import StageError

pytestmark = pytest.mark.slow
LORA = runs.LORA | {"dropout": 0.0}
SHORT = {"max_steps": 6, "save_steps": 3, "eval_steps": None, "learning_rate": 1e-2}
# bfloat16 products and two scales in turn; a model with biases, which bitsandbytes would round in place.
KINDS = {
    "nf4": {"quantization": "nf4"},
    "nf4-bfloat16": {"quantization": "nf4", "precision": "bfloat16", "double_quantization": False},
    "int8": {"quantization": "int8"},
}


@pytest.fixture(scope="module")
def trained(vision_nodes, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A finished run of each kind."""
    root = tmp_path_factory.mktemp("quantised")
    return {
        name: runs.train_well(runs.write_run(root / name, vision_nodes, "lora", lora=LORA, **SHORT, **settings))
        for name, settings in KINDS.items()
    }


def gate_of(run: Path, nodes: dict[str, Path], dtype: str = "float32") -> tuple[Gate, Scheme]:
    settings = TrainSettings.read_back(json.loads((run / "config.json").read_text())["config"])
    scheme = Scheme.of(settings)
    base, processor = nodes["model"] / "model", nodes["processor"] / "processor"
    recorded = load_file(run / "probe.safetensors")
    return Gate(base, processor, "lora", dtype, settings.precision, recorded, scheme), scheme


def last(run: Path) -> tuple[Path, str, int]:
    entry = json.loads((run / "kept.json").read_text())["kept"][-1]
    return run / entry["path"], entry["digest"], entry["step"]


@pytest.mark.parametrize("name", KINDS)
def test_what_was_asked_is_what_trained(trained, name: str) -> None:
    effective = json.loads((trained[name] / "effective.json").read_text())
    made = effective["methods"]["quantization"]
    wanted = KINDS[name]
    assert made["kind"] == wanted["quantization"]
    assert made["double"] == wanted.get("double_quantization", True)
    assert made["compute"] == wanted.get("precision", "float32")
    # Two blocks of language with 7 layers and two of vision with 6 (qkv, proj, gate, up, down), merger and patches.
    assert made["layers"] >= 2 * 7 + 2 * 5
    share = made["bytes"] / made["weights"]
    assert share < (1.2 if made["kind"] == "int8" else 0.6)
    # TRL casts such adapters to bfloat16, whatever the precision.
    adapter = load_file(last(trained[name])[0] / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in adapter.values()} == {torch.float32}
    losses = [row["loss"] for row in runs.rows(trained[name]) if row["split"] == "train"]
    assert losses[-1] < losses[0]
    assert effective["run"]["parameters"] > 500_000


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", KINDS)
def test_the_shipped_model_is_the_trained_one(trained, vision_nodes, tmp_path: Path, name: str, dtype: str) -> None:
    gate, scheme = gate_of(trained[name], vision_nodes, dtype)
    assert gate.check_base()[0] == []
    assert gate.spread == 0.0
    checkpoint, digest, step = last(trained[name])
    write_merged(checkpoint, gate.base, gate.wanted_processor, dtype, tmp_path / "shipped", scheme)
    faults, measured = gate.check(step, checkpoint, digest, tmp_path / "shipped")
    assert faults == []
    assert measured["logits"]["checkpoint_against_trained"]["prompts"]["max_difference"] == 0.0
    config = json.loads((tmp_path / "shipped/config.json").read_text())
    assert "quantization_config" not in config
    both = measured["quantised"]
    assert set(both["loss_of_prompts"]) == {"trained", "shipped"}
    if (name, dtype) == ("nf4", "float32"):
        assert both["shipped_against_trained"]["prompts"]["relative"] < 1e-5
        assert both["loss_of_prompts"]["trained"] == pytest.approx(both["loss_of_prompts"]["shipped"], rel=1e-5)


@pytest.mark.parametrize("name", ["nf4", "nf4-bfloat16", "int8"])
def test_adapters_of_others_are_merged_into_the_values_they_were_trained_on(
    trained, vision_nodes, tmp_path: Path, name: str
) -> None:
    gate, scheme = gate_of(trained[name], vision_nodes)
    checkpoint, digest, step = last(trained[name])
    recorded = trained[name] / "probe.safetensors"
    request = Request(checkpoint, gate.base, None, gate.processor, None, recorded, step, False, 2**30, scheme)
    target = tmp_path / "model"
    target.mkdir()
    list(convert(request, target))
    assert json.loads((target / "conversion.json").read_text())["base_quantised"]["kind"] == scheme.kind
    faults, _ = gate.check(step, checkpoint, digest, target)
    # Also the conversion rule's own checks, but for the adapter that it ships beside the model.
    assert [fault for fault in faults if not fault.startswith("adapter/")] == []
    (tmp_path / "whole").mkdir()
    with pytest.raises(StageError, match="converted against recorded: logits differ"):
        list(convert(replace(request, quantised=None), tmp_path / "whole"))


def into_four_bit(checkpoint: Path, base: Path, scheme: Scheme, processor, target: Path) -> None:
    """PEFT's merge into the 4-bit layers themselves, which it allows; written out in ordinary layers."""
    import bitsandbytes

    from sft.models.quantised import Frozen4bit, dequantised, load_quantised

    merged = with_adapter(load_quantised(base, scheme), checkpoint).merge_and_unload()
    write_merged(checkpoint, base, processor, "float32", target, scheme)
    model = load_model(target)
    changed = 0
    for name, layer in merged.named_modules():
        if isinstance(layer, bitsandbytes.nn.Linear4bit):
            layer.__class__ = Frozen4bit  # PEFT made a new one
            model.get_submodule(name).weight.data = dequantised(layer)
            changed += 1
    assert changed > 20
    model.save_pretrained(target)


@pytest.mark.parametrize("wrong", ["into the original base", "into four bit"])
def test_a_wrong_merge_is_found(trained, vision_nodes, tmp_path: Path, wrong: str) -> None:
    gate, scheme = gate_of(trained["nf4"], vision_nodes)
    checkpoint, digest, step = last(trained["nf4"])
    if wrong == "into four bit":
        into_four_bit(checkpoint, gate.base, scheme, gate.wanted_processor, tmp_path / "wrong")
    else:
        write_merged(checkpoint, gate.base, gate.wanted_processor, "float32", tmp_path / "wrong")
    faults, measured = gate.check(step, checkpoint, digest, tmp_path / "wrong")
    assert any("differs from the trained tensor" in fault for fault in faults), faults
    assert any("merged against unmerged, prompts: logits differ" in fault for fault in faults), faults
    assert measured["quantised"]["shipped_against_trained"]["prompts"]["relative"] > 1e-3


def test_killed_and_continued_equals_uninterrupted(vision_nodes, tmp_path: Path) -> None:
    settings = SHORT | KINDS["nf4-bfloat16"]
    whole = runs.train_well(runs.write_run(tmp_path / "whole", vision_nodes, "lora", **settings), "--keep-optimizer")
    parts = runs.write_run(tmp_path / "parts", vision_nodes, "lora", **settings)
    assert runs.train(parts, "--keep-optimizer", patch=runs.killed_after(4)) == -signal.SIGKILL, runs.log(parts)
    runs.train_well(parts, "--keep-optimizer")
    runs.assert_same(whole, parts)


def test_a_layer_that_stays_whole_stops_the_run(text_nodes, tmp_path: Path) -> None:
    def keep_one_whole() -> None:
        from transformers import quantizers

        stock = quantizers.base.HfQuantizer.get_modules_to_not_convert
        quantizers.base.HfQuantizer.get_modules_to_not_convert = staticmethod(
            lambda *a, **k: [*stock(*a, **k), "q_proj"]
        )

    run = runs.write_run(tmp_path / "run", text_nodes, "lora", quantization="nf4", **SHORT)
    assert runs.train(run, patch=keep_one_whole) == 1
    assert "2 of 14 linear layers stayed whole (model.layers.0.self_attn.q_proj" in runs.log(run)
