"""Weights as bytes: one digest for what a model holds in memory, and the comparison with the files it came from."""

from __future__ import annotations

import hashlib
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING

from sft.runtime.stage import StageError

if TYPE_CHECKING:
    from torch import Tensor, nn


def weights_digest(state: dict[str, Tensor]) -> str:
    """sha256 over name, dtype, shape and bytes of every tensor of a model's `state_dict()`, sorted by name.

    Frozen weights count too: an adapter on another base is another model. Shards are put together one tensor at a
    time, which takes all ranks; the digest is that of the model in one piece.
    """
    import torch

    sha = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        # Only a tensor in shards (DTensor) has this; importing its class costs whoever has none half a second.
        tensor = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
        plain = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        sha.update(memoryview(plain.numpy()))
    return sha.hexdigest()


def check_loaded(model: nn.Module, directory: Path) -> int:
    """Compare the weights in memory with the safetensors files of `directory`; returns how many tensors agree.

    Names must be the same and values equal, after the cast to the dtype in memory. StageError names what is
    missing, unexpected or different. A tied weight that the files hold once only counts as present.
    """
    import torch

    from sft.models.weight_files import WeightFiles

    loaded, stored = _names_as_published(model), WeightFiles(directory)
    ignored = [re.compile(pattern) for pattern in getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ()]
    unexpected = [
        name for name in stored if name not in loaded and not any(pattern.search(name) for pattern in ignored)
    ]
    seen = [name for name in stored if name in loaded]
    different = []
    for name in seen:
        ours = loaded[name].detach().cpu()
        if not torch.equal(ours, stored[name].to(ours.dtype)):
            different.append(name)
    present = {loaded[name].data_ptr() for name in seen}
    missing = [name for name, tensor in loaded.items() if tensor.data_ptr() not in present]
    faults = {"not in the files": missing, "not in the model": unexpected, "with another value": different}
    if any(faults.values()):
        found = "; ".join(f"{len(names)} {kind} ({', '.join(names[:3])})" for kind, names in faults.items() if names)
        raise StageError(
            f"{directory}: the model in memory is not the one in the files: {found}. "
            f"Make the model again, or report this with the versions of transformers and safetensors"
        )
    return len(seen)


def _names_as_published(model: nn.Module) -> dict[str, Tensor]:
    """The state of a model under the names that its files use, which transformers renames on loading."""
    from transformers.core_model_loading import revert_weight_conversion

    ignored = set(getattr(model, "_keys_to_ignore_on_save", None) or ())
    state = {name: tensor for name, tensor in model.state_dict().items() if name not in ignored}
    return revert_weight_conversion(model, state)


def parameter_counts(model: nn.Module) -> tuple[int, int]:
    """`(all, trainable)` parameters; tied ones count once, quantised ones as what they stand for."""
    parameters = list(model.parameters())
    return sum(map(_count, parameters)), sum(_count(p) for p in parameters if p.requires_grad)


def _count(parameter: Tensor) -> int:
    # Two values of 4 bit are in a byte; bitsandbytes keeps the shape beside it.
    state = getattr(parameter, "quant_state", None)
    return parameter.numel() if state is None else math.prod(state.shape)
