"""Full weights in shards inside a checkpoint (`weights/`, a DCP directory), into a whole model of any one process."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sft.runtime.stage import StageError

if TYPE_CHECKING:
    from torch import nn

WEIGHTS = "weights"


def has_shards(checkpoint: Path) -> bool:
    """Whether a checkpoint holds its weights in shards."""
    return (checkpoint / WEIGHTS).is_dir()


def load_shards(model: nn.Module, checkpoint: Path) -> int:
    """Fill a whole `model` from the shards in a checkpoint; returns how many tensors. StageError unless all fit."""
    import torch

    from sft.models.dcp import DcpTensors

    stored = DcpTensors(checkpoint / WEIGHTS)
    tied = set(getattr(model, "all_tied_weights_keys", None) or ())
    state = {name: tensor for name, tensor in model.state_dict().items() if name not in tied}
    if missing := sorted(state.keys() ^ stored.keys()):
        raise StageError(f"{checkpoint / WEIGHTS}: {len(missing)} tensors are missing or too many ({missing[0]}, …)")
    with torch.no_grad():
        for name, tensor in state.items():
            if tuple(tensor.shape) != stored.shape(name):
                raise StageError(f"{checkpoint / WEIGHTS}: {name} has shape {stored.shape(name)}")
            tensor.copy_(stored[name])
    return len(state)


def load_trained(checkpoint: Path, base: Path, dtype: str = "float32") -> nn.Module:
    """The fully trained model of a checkpoint, in shards or whole; a sharded one gets class and settings of `base`."""
    from sft.models.loading import load_model

    if not has_shards(checkpoint):
        return load_model(checkpoint, dtype)
    model = load_model(base, dtype)
    load_shards(model, checkpoint)
    return model
