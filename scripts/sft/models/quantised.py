"""A base model in 4 or 8 bit (bitsandbytes) for adapters to be trained on, and the same weights in float32 again.

Weights are quantised on the CPU, whatever device trains: the same bytes everywhere, so that a conversion on another
machine starts from them. What a quantised layer stands for is what `dequantised` gives; products with it are made in
float32 where logits are compared (`exact_products`), by bitsandbytes where it trains.

Two things of bitsandbytes 0.50 are kept away from the weights, or they would not be the same before and after a step:
its layers cast a bias in place to the type of whatever they are given, and on CPUs with AVX512-BF16 repack their
weights when they are asked without a gradient.
"""

from __future__ import annotations

import logging
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import bitsandbytes as bnb
import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from sft.models.loading import load_model
from sft.models.quantisation_scheme import Scheme
from sft.models.torch_setup import remind_peft_of_bitsandbytes
from sft.models.weight_check import check_loaded
from sft.runtime.stage import StageError


class Frozen4bit(bnb.nn.Linear4bit):
    """A 4-bit layer that no forward changes."""

    exact_products = False

    def forward(self, x: Tensor) -> Tensor:
        if self.exact_products:
            return linear(x, dequantised(self), self.bias)
        made = bnb.matmul_4bit(x.to(self.compute_dtype), self.weight, quant_state=_state(self)).to(x.dtype)
        return made if self.bias is None else made + self.bias.to(made.dtype)

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        # As bytes with their scales, whichever type they are stored as, whole or in shards: one digest for all.
        nn.Module._save_to_state_dict(self, destination, prefix, keep_vars)
        in_shards = hasattr(self.weight, "full_tensor")
        destination[f"{prefix}weight"] = BytesInShards(self.weight) if in_shards else _as_bytes(self.weight)
        scales = _state(self).as_dict(packed=True)
        destination.update({f"{prefix}weight.{name}": value for name, value in scales.items()})


class BytesInShards:
    """A 4-bit weight of which each rank has a shard, as a tensor of bytes that is put together when it is asked for."""

    dtype = torch.uint8

    def __init__(self, stored: Tensor):
        self.stored = stored
        self.shape = (stored.numel() * stored.itemsize, 1)

    def full_tensor(self) -> Tensor:
        """The whole, on every rank; all have to ask."""
        return _as_bytes(self.stored.full_tensor())


class Frozen8bit(bnb.nn.Linear8bitLt):
    """An 8-bit layer that no forward changes."""

    exact_products = False

    def forward(self, x: Tensor) -> Tensor:
        if self.weight.CB is not None:
            self.init_8bit_state()
        if self.exact_products:
            return linear(x, dequantised(self), self.bias)
        self.state.is_training = self.training
        made = bnb.matmul(x, self.weight, state=self.state)
        return made if self.bias is None else made + self.bias.to(made.dtype)


def load_quantised(directory: Path | str, scheme: Scheme, device: str = "cpu", storage: str = "uint8") -> nn.Module:
    """The model of `directory`, its linear layers but the head quantised by `scheme`, all else in float32.

    `storage`: the type as which torch sees the bytes of 4-bit weights.
    """
    from transformers import BitsAndBytesConfig

    if scheme.kind == "nf4":
        how = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=scheme.double,
            bnb_4bit_compute_dtype=getattr(torch, scheme.compute),
            bnb_4bit_quant_storage=storage,
        )
    else:
        how = BitsAndBytesConfig(load_in_8bit=True)
        # It says at every product that float32 is rounded to float16 first, which is how 8 bit works.
        logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
    remind_peft_of_bitsandbytes()
    model = load_model(directory, quantization=how)
    for module in model.modules():
        if isinstance(module, bnb.nn.Linear4bit):
            module.__class__ = Frozen4bit
            module.quant_state = module.weight.quant_state
        elif isinstance(module, bnb.nn.Linear8bitLt):
            module.__class__ = Frozen8bit
    if device != "cpu":
        model.to(device)
        model.hf_device_map = {"": torch.cuda.current_device()}  # where accelerate looks for it
    return model


def quantised_layers(model: nn.Module) -> dict[str, nn.Module]:
    """`{name: layer}` of the layers of `model` whose weights are quantised."""
    return {name: module for name, module in model.named_modules() if isinstance(module, (Frozen4bit, Frozen8bit))}


def dequantised(layer: nn.Module) -> Tensor:
    """The weight that a quantised layer stands for, in float32."""
    weight = layer.weight
    if isinstance(layer, Frozen4bit):
        return bnb.functional.dequantize_4bit(weight.data, _state(layer)).float()
    return _of_int8(weight.data, _scales(layer))


def stands_for(weight: Tensor, scheme: Scheme) -> Tensor:
    """The values in float32 that a weight (outputs, inputs) has once it is quantised by `scheme`."""
    made = _quantised(weight.float(), scheme)
    if scheme.kind == "int8":
        return _of_int8(made.data, made.SCB)
    return bnb.functional.dequantize_4bit(made.data, made.quant_state).float()


def load_dequantised(directory: Path | str, scheme: Scheme, dtype: str = "float32") -> nn.Module:
    """The model of `directory` with the values that its quantised layers stand for, in ordinary layers of `dtype`."""
    model = load_model(directory, dtype)
    with torch.no_grad():
        for name, layer in quantised_layers(load_quantised(directory, scheme)).items():
            model.get_submodule(name).weight.copy_(dequantised(layer))
    return model


def check_quantised(model: nn.Module, directory: Path, scheme: Scheme) -> dict[str, Any]:
    """Hold a freshly loaded model against the files of `directory`, and say what of it is quantised: JSON values.

    Every weight has to be the file's, or what quantising the file's gives, byte for byte; and every linear layer has to
    be quantised that is not the output layer. StageError otherwise.
    """
    plain = load_model(directory)
    check_loaded(plain, directory)
    layers, stored = quantised_layers(model), plain.state_dict()
    head = plain.get_output_embeddings()
    linears = {name for name, module in plain.named_modules() if isinstance(module, nn.Linear) and module is not head}
    if whole := sorted(linears - layers.keys()):
        raise StageError(
            f"training.quantization: {scheme.kind} was asked for, but {len(whole)} of {len(linears)} linear layers "
            f"stayed whole ({', '.join(whole[:3])}). Report this with the versions of transformers and bitsandbytes"
        )
    different = [name for name, layer in layers.items() if not _same(layer, stored[f"{name}.weight"], scheme)]
    parts = tuple(f"{name}.weight" for name in layers)
    for name, tensor in model.state_dict().items():
        if name in stored and name not in parts and not torch.equal(tensor.cpu(), stored[name]):
            different.append(name)
    if different:
        raise StageError(
            f"{directory}: {len(different)} tensors in memory are not those of the files in {scheme.kind} "
            f"({', '.join(different[:3])}). Report this with the versions of transformers and bitsandbytes"
        )
    weights = sum(math.prod(stored[f"{name}.weight"].shape) for name in layers)
    return {
        **asdict(scheme),
        "layers": len(layers),
        "weights": weights,
        "whole": sum(tensor.numel() for tensor in plain.parameters()) - weights,
        "bytes": sum(_bytes(layer) for layer in layers.values()),
    }


def _same(layer: nn.Module, stored: Tensor, scheme: Scheme) -> bool:
    """Whether a layer's weight is what quantising `stored` gives."""
    weight = layer.weight
    again = _quantised(stored, scheme)
    if scheme.kind == "int8":
        return torch.equal(again.data, weight.data.cpu()) and torch.equal(again.SCB, _scales(layer).cpu())
    both = (again.quant_state, weight.quant_state)
    same = torch.equal(_as_bytes(again), _as_bytes(weight).cpu())
    same &= torch.equal(both[0].absmax, both[1].absmax.cpu())
    if scheme.double:
        same &= torch.equal(both[0].state2.absmax, both[1].state2.absmax.cpu())
        same &= torch.equal(both[0].offset, both[1].offset.cpu())
    return same and weight.quant_type == "nf4" and both[0].nested == both[1].nested


def _quantised(weight: Tensor, scheme: Scheme) -> Any:
    if scheme.kind == "int8":
        return bnb.nn.Int8Params(weight.clone(), requires_grad=False).to("cpu")
    made = bnb.nn.Params4bit(weight.clone(), requires_grad=False, compress_statistics=scheme.double, quant_type="nf4")
    return made.to("cpu")


def _of_int8(values: Tensor, scales: Tensor) -> Tensor:
    """int8 of a row is its share of the row's largest value, in 127 steps (T. Dettmers et al., arXiv:2208.07339)."""
    return values.float() * (scales.float() / 127).unsqueeze(1)


def _as_bytes(weight: Tensor) -> Tensor:
    """What a 4-bit weight holds, in the form that bitsandbytes gives it, whichever type it is stored as."""
    return weight.data.view(torch.uint8).reshape(-1, 1)


def _state(layer: nn.Module) -> Any:
    """Scales and shape of a 4-bit layer's weight; a weight that comes from shards has none of its own."""
    return getattr(layer.weight, "quant_state", None) or layer.quant_state


def _scales(layer: nn.Module) -> Tensor:
    return layer.state.SCB if layer.state.SCB is not None else layer.weight.SCB


def _bytes(layer: nn.Module) -> int:
    """Of a layer's weight with its scales."""
    state: dict[str, Tensor] = layer.state_dict()
    return sum(tensor.numel() * tensor.itemsize for name, tensor in state.items() if name != "bias")
