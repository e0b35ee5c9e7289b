"""A sharded model's checkpoint: each rank writes its own shards, and what stock tools leave out is beside them.

`weights/` and `optimizer/` are DCP directories of tensors only; config, generation settings, processor and template
make the directory complete. Reading does not depend on how many ranks wrote: each rank reads what it needs.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sft.models.dcp import DcpTensors
from sft.models.sharded_weights import WEIGHTS
from sft.runtime.stage import StageError

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer

OPTIMIZER = "optimizer"


def is_sharded(model: nn.Module) -> bool:
    """Whether any parameter is in shards."""
    return any(hasattr(parameter, "full_tensor") for parameter in model.parameters())


def put_in_shards(model: nn.Module) -> None:
    """Let every part of a sharded model hold its shards again.

    What was used last in a forward pass without a backward pass (evaluation, probe) stays whole, and the model
    then shows plain tensors that are not the ones that the optimizer trains.
    """
    for module in model.modules():
        if hasattr(module, "reshard"):
            module.reshard()


def whole(tensor: Tensor) -> Tensor:
    """The tensor of which each rank has a shard, on every rank (all have to ask); a plain one as it is."""
    # Only a DTensor has this; importing its class costs whoever has no shards half a second.
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def save_weights(model: nn.Module, directory: Path) -> None:
    """Write the weights in shards under their names in the model, tied ones once. All ranks call it."""
    import torch.distributed.checkpoint as dcp

    tied = set(getattr(model, "all_tied_weights_keys", None) or ())
    state = {name: tensor for name, tensor in model.state_dict().items() if name not in tied}
    dcp.save(state, checkpoint_id=directory / WEIGHTS)


def adapter_state(model: nn.Module) -> dict[str, Tensor]:
    """The whole of what is trained of a sharded PEFT model, by its names in the model; on every rank."""
    # By name first: gathering the frozen base as well would cost a whole model.
    named = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    return {name: whole(parameter.detach()).cpu().contiguous() for name, parameter in named.items()}


def save_optimizer(model: nn.Module, optimizer: Optimizer, directory: Path) -> None:
    """Write the optimizer's state in shards, named PARAMETER/STATE. All ranks call it."""
    import torch.distributed.checkpoint as dcp

    names = {parameter: name for name, parameter in model.named_parameters()}
    state = {
        f"{names[parameter]}/{key}": value
        for parameter, kept in optimizer.state.items()
        for key, value in kept.items()
        if value is not None
    }
    dcp.save(state, checkpoint_id=directory / OPTIMIZER)


def load_optimizer(model: nn.Module, optimizer: Optimizer, directory: Path) -> None:
    """Give a fresh optimizer the state in a checkpoint, whether that is in shards or whole (`optimizer.pt`).

    Learning rates are the scheduler's business. StageError unless every trained tensor gets a state.
    """
    from torch.distributed.tensor import DTensor, distribute_tensor

    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    if (directory / OPTIMIZER).is_dir():
        state = _stored_by_name(model, directory / OPTIMIZER)
    else:
        state = _stored_by_place(trained, directory / "optimizer.pt")
    if len(state) != len(trained) or any(parameter not in state for parameter in trained):
        raise StageError(f"{directory}: optimizer state for {len(state)} tensors, and {len(trained)} are trained")
    for parameter in trained:
        for key, value in state[parameter].items():
            if isinstance(parameter, DTensor) and value.shape == parameter.shape:
                # Every rank has read the whole, so nothing needs to be sent.
                state[parameter][key] = distribute_tensor(
                    value.to(parameter.device), parameter.device_mesh, parameter.placements, src_data_rank=None
                )
        optimizer.state[parameter] = state[parameter]


def clean_name(name: str) -> str:
    """A parameter's name without what FSDP 1 puts into it."""
    return name.replace("_fsdp_wrapped_module.", "")


def states_by_name(trained: list[str], checkpoint: Path) -> dict[str, dict[str, Tensor]]:
    """The optimizer state of each trained parameter in a checkpoint, whether in shards or whole; `trained` in order."""
    if not (checkpoint / OPTIMIZER).is_dir():
        return _stored_by_place(trained, checkpoint / "optimizer.pt")
    stored = DcpTensors(checkpoint / OPTIMIZER)
    state: dict[str, dict[str, Tensor]] = {}
    for key in stored:
        name, _, part = key.rpartition("/")
        state.setdefault(name, {})[part] = stored[key]
    return state


def _stored_by_name(model: nn.Module, directory: Path) -> dict[Any, dict[str, Tensor]]:
    stored, named = DcpTensors(directory), dict(model.named_parameters())
    state: dict[Any, dict[str, Tensor]] = {}
    for key in stored:
        name, _, part = key.rpartition("/")
        if name not in named:
            raise StageError(f"{directory}: state of {name}, which the model has not")
        state.setdefault(named[name], {})[part] = stored[key]
    return state


def _stored_by_place(trained: list[Any], file: Path) -> dict[Any, dict[str, Tensor]]:
    import torch

    state = torch.load(file, map_location="cpu", weights_only=True)["state"]
    return {trained[place]: dict(kept) for place, kept in state.items() if place < len(trained)}
