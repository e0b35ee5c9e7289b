"""Whether a converted model's files are the trained model: tensors, configuration, files and processor.

Every function takes what is expected and what was got and returns faults, one sentence each, none when all is
well. They write nothing and ask no one, so a fault can be planted in a finished directory and must be found.
What each check is for (all of it has happened in released tools): adapters that were not applied, tensors
of size 0, tensors that are 1/world_size of the whole, a config that says bfloat16 over float32 weights, a
chat template or processor file left behind, the base model shipped as the result.
"""

import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

# What a merge may differ from its closed formula, relative to the tensor's largest entry. In float32 (24 bits, 6e-8)
# the two may round in another order; a last bit there can tip the cast to bfloat16 (8 bits) to its neighbour.
MERGE_TOLERANCES = {"float32": 1e-6, "bfloat16": 2**-7}
# Differ between any two savings of one model.
UNCOMPARED_CONFIG = {"dtype", "torch_dtype", "transformers_version", "_name_or_path"}


def tensor_faults(
    expected: Mapping[str, Tensor],
    got: Mapping[str, Tensor],
    dtype: str,
    tolerances: Mapping[str, float] | None = None,
) -> tuple[list[str], dict[str, Any]]:
    """Faults of the tensors of a reloaded model, and what was measured.

    `expected` is the trained state, cast here to `dtype`; `got` what a fresh load gave, under the same names.
    Equal means equal bytes, except for the names in `tolerances` (largest difference relative to the largest
    expected entry).
    """
    tolerances = tolerances or {}
    faults = _name_faults(expected, got)
    unequal: list[str] = []
    equal, largest = 0, 0.0
    for name in sorted(expected.keys() & got.keys()):
        found = got[name]
        wanted = expected[name].to(getattr(torch, dtype)) if expected[name].is_floating_point() else expected[name]
        if found.shape != wanted.shape:
            faults.append(f"{name}: {shape_fault(tuple(wanted.shape), tuple(found.shape))}")
            continue
        wanted = wanted.to(found.dtype)
        if same_bytes(wanted, found):
            equal += 1
        elif not torch.isfinite(found).all():
            faults.append(f"{name}: holds NaN or infinity")
        elif not found.any():
            faults.append(f"{name}: is all zeros, the trained tensor is not")
        elif part := _slice_of(wanted, found):
            faults.append(f"{name}: only {part} of the rows are filled, as in a shard saved as the whole")
        else:
            difference = (found.double() - wanted.double()).abs().max().item()
            relative = difference / max(wanted.double().abs().max().item(), 1e-30)
            if relative <= tolerances.get(name, 0.0):
                largest = max(largest, relative)
            else:
                unequal.append(name)
                faults.append(f"{name}: differs from the trained tensor by {difference:.3g} ({relative:.3g} relative)")
    faults += _swap_faults(unequal, expected, got)
    measured = {
        "tensors": len(got),
        "equal_bytes": equal,
        "may_round": len(tolerances),
        "largest_relative_difference": largest,
    }
    return faults, measured


def stored_faults(
    expected: Mapping[str, tuple[int, ...]], got: Mapping[str, tuple[tuple[int, ...], str]], dtype: str
) -> list[str]:
    """Faults of the weight files before any loader touches them: names, shapes and type of every stored tensor.

    `expected`: {name: shape} as the published base model stores them, tied weights once; `got`: {name: (shape, type)}.
    """
    faults = _name_faults(expected, got)
    for name in sorted(expected.keys() & got.keys()):
        shape, kind = got[name]
        if 0 in shape and 0 not in expected[name]:
            faults.append(f"{name}: is empty, shape {shape} instead of {expected[name]}")
        elif shape != expected[name]:
            faults.append(f"{name}: has shape {shape} instead of {expected[name]}")
        if kind != dtype:
            faults.append(f"{name}: is stored as {kind}, not {dtype}")
    return faults


def base_faults(base: Mapping[str, Tensor], got: Mapping[str, Tensor]) -> list[str]:
    """A fault when every tensor is the base model's: nothing was trained or merged, or the wrong files were saved."""
    if base.keys() == got.keys() and all(same_bytes(base[name].to(got[name].dtype), got[name]) for name in got):
        return ["the model is the base model: no tensor differs"]
    return []


def config_faults(expected: Mapping[str, Any], got: Mapping[str, Any]) -> list[str]:
    """A fault for every setting of a loaded configuration that differs from the base model's."""
    faults = []
    for key in sorted((expected.keys() | got.keys()) - UNCOMPARED_CONFIG):
        wanted, found = _comparable(expected.get(key)), _comparable(got.get(key))
        if wanted != found:
            faults.append(f"config.json: {key} is {found!r}, the base model's is {wanted!r}")
    return faults


def type_faults(config: Mapping[str, Any], dtype: str) -> list[str]:
    """Faults of what config.json (as written) says of the weights' type, for the text and vision parts too."""
    declared = _declared_types(config)
    faults = [f"config.json: {place} says {kind}, the weights are {dtype}" for place, kind in declared if kind != dtype]
    if "dtype" not in dict(declared):
        faults.append("config.json: does not say the weights' type (dtype)")
    return faults


def file_faults(required: Collection[str], directory: Path) -> list[str]:
    """A fault for every required file that is missing or empty."""
    faults = []
    for name in sorted(required):
        path = directory / name
        if not path.is_file():
            faults.append(f"{name}: missing")
        elif path.stat().st_size == 0:
            faults.append(f"{name}: empty")
    return faults


def processor_faults(expected: Any, got: Any) -> list[str]:
    """Faults of the reloaded tokenizer or processor: class, vocabulary, special tokens, chat template, pictures."""
    faults = []
    if type(expected).__name__ != type(got).__name__:
        return [f"processor: loads as {type(got).__name__}, the run used {type(expected).__name__}"]
    if getattr(expected, "chat_template", None) != getattr(got, "chat_template", None):
        faults.append("processor: the chat template is not the one that the run was trained with")
    wanted, found = (getattr(one, "tokenizer", one) for one in (expected, got))
    if wanted.get_vocab() != found.get_vocab():
        faults.append("tokenizer: the vocabulary differs from the run's")
    if wanted.special_tokens_map != found.special_tokens_map:
        faults.append(f"tokenizer: special tokens are {found.special_tokens_map}, not {wanted.special_tokens_map}")
    if wanted.chat_template != found.chat_template:
        faults.append("tokenizer: the chat template is not the one that the run was trained with")
    if hasattr(expected, "image_processor"):
        wanted, found = expected.image_processor.to_dict(), got.image_processor.to_dict()
        changed = sorted(key for key in wanted.keys() | found.keys() if wanted.get(key) != found.get(key))
        if changed:
            faults.append(f"image processor: {', '.join(changed)} differ from the run's")
    return faults


def _name_faults(expected: Mapping[str, Any], got: Mapping[str, Any]) -> list[str]:
    missing, extra = sorted(expected.keys() - got.keys()), sorted(got.keys() - expected.keys())
    return [f"{name}: missing" for name in missing] + [f"{name}: should not be stored" for name in extra]


def same_bytes(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are equal in shape, type and every bit."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    # As numbers, NaN is unequal to itself and -0 equal to 0; bytes are neither.
    first, second = (tensor.contiguous().reshape(-1) for tensor in (one, other))
    sizes = [size for flat in (first, second) for size in (flat.nbytes, flat.storage_offset() * flat.itemsize)]
    # Eight bytes at once take a fifth of the time.
    word = torch.int64 if all(size % 8 == 0 for size in sizes) else torch.uint8
    return torch.equal(first.view(word), second.view(word))


def shape_fault(wanted: tuple[int, ...], found: tuple[int, ...]) -> str:
    """What is wrong with a shape, and what it looks like."""
    count, whole = math.prod(found), math.prod(wanted)
    if count == 0:
        return f"is empty, shape {found} instead of {wanted}"
    fault = f"has shape {found} instead of {wanted}"
    if found == wanted[::-1]:
        return f"{fault}: it is transposed"
    if whole % count == 0 and whole > count:
        fault += f", 1/{whole // count} of it, as in a shard saved as the whole"
    return fault


def _slice_of(wanted: Tensor, found: Tensor) -> str:
    """ "1/2" when the first dimension holds one block of 1/2 of the rows and zeros else, where all was filled."""
    if wanted.dim() < 2:
        return ""
    filled = found.flatten(1).any(1)
    count = int(filled.sum())
    if not count or count == len(filled) or not wanted.flatten(1).any(1).all():
        return ""
    places = filled.nonzero().flatten()
    if int(places[-1] - places[0]) + 1 != count or len(filled) % count:
        return ""
    return f"1/{len(filled) // count}"


def _swap_faults(unequal: list[str], expected: Mapping[str, Tensor], got: Mapping[str, Tensor]) -> list[str]:
    """Which of the unequal tensors hold another one's values."""
    faults = []
    for name in unequal:
        for other in unequal:
            if other != name and same_bytes(expected[other].to(got[name].dtype), got[name]):
                faults.append(f"{name}: holds the values of {other}")
    return faults


def _declared_types(config: Mapping[str, Any], place: str = "") -> list[tuple[str, str]]:
    """(key, type) of every dtype in a config, nested ones (text, vision) included."""
    found = []
    for key, value in config.items():
        if key in ("dtype", "torch_dtype") and value is not None:
            found.append((f"{place}{key}", str(value).removeprefix("torch.")))
        elif isinstance(value, Mapping):
            found += _declared_types(value, f"{place}{key}.")
    return found


def _comparable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _comparable(item) for key, item in value.items() if key not in UNCOMPARED_CONFIG}
    return value
