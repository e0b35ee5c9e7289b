"""Merging a LoRA adapter into its base model, and the closed formula that a merge must agree with.

PEFT merges; `merged_by_formula` computes the same from the adapter's file alone, without PEFT, so that a merge
that was not applied, applied twice, or applied to another layer does not agree with itself.
"""

import json
import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sft.models.weight_files import WeightFiles
from sft.runtime.stage import StageError

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
PREFIX = "base_model.model."


def with_adapter(model: torch.nn.Module, adapter: Path) -> torch.nn.Module:
    """`model` (freshly loaded, changed in place) with the adapter of a directory on it, in evaluation mode."""
    from peft import PeftModel

    return PeftModel.from_pretrained(model, adapter, is_trainable=False).eval()


def change_last_bits(model: torch.nn.Module, seed: int, names: Collection[str] | None = None) -> torch.nn.Module:
    """The parameters of `names` become the next number up or down, at random; by default an adapter's base weights."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith(".base_layer.weight") if names is None else name in names:
                up = torch.rand(weight.shape, generator=draw).to(weight.device) < 0.5
                weight.copy_(torch.nextafter(weight, torch.where(up, torch.inf, -torch.inf).to(weight)))
    return model


def merged(model: torch.nn.Module) -> torch.nn.Module:
    """The adapter of a `with_adapter` model merged into its weights, in their type; StageError for NaN or infinity."""
    try:
        return model.merge_and_unload(safe_merge=True)
    except ValueError as error:
        raise StageError(f"the adapter cannot be merged: {error}") from None


def merged_by_formula(base: Mapping[str, Tensor], adapter: Path) -> tuple[dict[str, Tensor], set[str]]:
    """The merged state `{name: tensor}` and the names whose formula is not simple, to be judged by logits only.

    LoRA: W + s·B·A with s = alpha/r, or alpha/sqrt(r) with use_rslora (E. J. Hu et al., arXiv:2106.09685;
    D. Kalajdzievski, arXiv:2312.03732). DoRA: m · (W + s·B·A) / ||W + s·B·A|| per output row (S.-Y. Liu et al.,
    arXiv:2402.09353). Tensors that the adapter stores whole (modules_to_save) replace the base's.
    `base` has the names of a loaded model's state. StageError for an adapter whose tensors fit no base tensor.
    """
    config = json.loads((adapter / ADAPTER_FILES[0]).read_text())
    stored = WeightFiles(adapter, ADAPTER_FILES[1])
    parts: dict[str, dict[str, Tensor]] = {}
    state, hard = dict(base), set()
    for key in stored:
        # PEFT stores the base's own embeddings beside an adapter for them.
        name = key.removeprefix(PREFIX).replace(".base_layer.", ".")
        module, _, part = name.rpartition(".lora_")
        if module:
            parts.setdefault(f"{module}.weight", {})[part.removesuffix(".weight")] = stored[key]
        elif name in base:
            state[name] = stored[key].to(base[name].dtype)
        else:
            raise StageError(f"{adapter}: {key} fits no tensor of the base model")
    simple_config = not (config.get("alpha_pattern") or config.get("fan_in_fan_out") or config.get("lora_bias"))
    for name, found in parts.items():
        if name not in base:
            raise StageError(f"{adapter}: an adapter for {name}, which the base model has not")
        change = merged_weight(base[name], found, config) if simple_config else None
        if change is None:
            hard.add(name)
        else:
            state[name] = change.to(base[name].dtype)
    return state, hard


def changed_names(adapter: Path) -> set[str]:
    """Names of the base tensors that an adapter changes by a product."""
    modules = (name.rpartition(".lora_")[0] for name in _stored_names(adapter))
    return {f"{module}.weight" for module in modules if module}


def stored_whole(adapter: Path) -> set[str]:
    """Names of the base tensors that an adapter stores whole (modules_to_save)."""
    return {name for name in _stored_names(adapter) if ".lora_" not in name and ".base_layer." not in name}


def _stored_names(adapter: Path) -> list[str]:
    return [key.removeprefix(PREFIX) for key in WeightFiles(adapter, ADAPTER_FILES[1])]


def merged_weight(weight: Tensor, parts: Mapping[str, Tensor], config: Mapping[str, Any]) -> Tensor | None:
    """The merged tensor in float32, or None where no simple formula is known for these parts."""
    kinds = set(parts)
    if any(parts[kind].dim() < 2 for kind in kinds - {"magnitude_vector"}):
        return None
    if kinds == {"embedding_A", "embedding_B"}:
        first, second = parts["embedding_A"], parts["embedding_B"]
        if second.shape[1] != first.shape[0]:
            return None
        product = (second.float() @ first.float()).T
    elif kinds in ({"A", "B"}, {"A", "B", "magnitude_vector"}):
        first, second = parts["A"], parts["B"]
        if second.flatten(1).shape[1] != first.shape[0]:
            return None
        # A convolution's factors are kernels: (r, in, k...) and (out, r, 1...).
        product = second.float().flatten(1) @ first.float().flatten(1)
    else:
        return None
    if product.numel() != weight.numel():
        return None
    rank, alpha = first.shape[0], config["lora_alpha"]
    scaling = alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank
    whole = weight.float() + (product * scaling).reshape(weight.shape)
    if "magnitude_vector" not in kinds:
        return whole
    if weight.dim() != 2:
        return None
    magnitude = parts["magnitude_vector"].float().reshape(-1, 1)
    return magnitude / torch.linalg.vector_norm(whole, dim=1, keepdim=True) * whole
