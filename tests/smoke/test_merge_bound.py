"""How far a merge may move logits: a constant, or what the trained model itself makes of other last bits.

Tests: sft.models.plain_arithmetic
"""

import pytest
import torch
from safetensors.torch import load_file
from small_runs import write_base, write_run

from sft.conversion import gate as gate_module
from sft.conversion.gate import Gate
from sft.conversion.logit_drift import LARGEST_MERGE_BOUND
from sft.conversion.merge import change_last_bits, merged, with_adapter
from sft.models.loading import load_model

STEP = 4


@pytest.fixture(scope="module")
def adapted(tmp_path_factory):
    """(gate, checkpoint, logits of the trained model) of a small LoRA run."""
    root = tmp_path_factory.mktemp("adapted")
    processor, model = write_base(root)
    run = write_run(root / "lora", processor, model, "lora")
    gate = Gate(
        model / "model", processor / "processor", "lora", "float32", "float32", load_file(run / "probe.safetensors")
    )
    checkpoint = run / f"checkpoints/checkpoint-{STEP}"
    return gate, checkpoint, gate._logits(gate._ordinary(checkpoint, "float32"))


def bounds(gate: Gate, checkpoint, trained, logits) -> dict[str, tuple[float, float]]:
    """{inputs: (how far the logits are from the trained model's, how far they may be)}"""
    drifts = gate._drifts(trained, logits)
    allowed = gate._merge_bounds(checkpoint, trained, drifts)
    return {name: (drift["relative"], allowed[name]) for name, drift in drifts.items()}


def test_a_right_merge_is_within_what_the_model_makes_of_rounding(adapted, monkeypatch):
    monkeypatch.setattr(gate_module, "MERGE_BOUND", 0.0)
    gate, checkpoint, trained = adapted
    logits = gate._logits(merged(with_adapter(load_model(gate.base, "float32"), checkpoint)))
    for relative, bound in bounds(gate, checkpoint, trained, logits).values():
        assert 0 < relative <= bound < 1e-4


def test_a_merge_that_is_off_by_a_thousandth_is_not(adapted):
    gate, checkpoint, trained = adapted
    model = with_adapter(load_model(gate.base, "float32"), checkpoint)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.mul_(1.001)
    for relative, bound in bounds(gate, checkpoint, trained, gate._logits(merged(model))).values():
        assert relative > bound
        assert bound <= LARGEST_MERGE_BOUND


def test_last_bits_change_by_one_and_only_of_adapted_weights(adapted):
    gate, checkpoint, _ = adapted
    before = dict(gate._ordinary(checkpoint, "float32").named_parameters())
    after = dict(change_last_bits(gate._ordinary(checkpoint, "float32"), seed=0).named_parameters())
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if name.endswith(".base_layer.weight")} != set()
    for name in changed:
        steps = before[name].view(torch.int32) - after[name].view(torch.int32)
        assert set(steps.abs().unique().tolist()) == {1}
