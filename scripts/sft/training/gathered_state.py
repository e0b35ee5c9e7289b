"""Checkpoints of strategies whose shards only their own library can read (FSDP 1, DeepSpeed): weights are put together
by the first process and written whole, as an unspread run writes them, so whoever reads a checkpoint need not know.

FSDP 1 has its optimizer state put together too (`optimizer.pt`: any strategy can go on from it). DeepSpeed keeps it in
its own layout (`global_step<N>/`, a file a process), from which only the same strategy on as many processes can go on.
Putting weights together takes memory for the whole model in the first process: in host memory, tensor by tensor.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sft.runtime.stage import StageError
from sft.training.deepspeed_config import STAGES
from sft.training.sharded_state import clean_name

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer

DEEPSPEED_STATE = "global_step*"  # the names that transformers looks for


def whole_weights(strategy: str, wrapped: Any, main: bool) -> dict[str, Tensor] | None:
    """The whole state of the model by its names, in the first process; None in others. All processes call it."""
    if strategy == "fsdp1":
        with _fsdp1_whole(wrapped):
            state = wrapped.state_dict()
    elif strategy == "deepspeed_zero3":
        # The name is DeepSpeed's; tensors keep the type that they are trained in.
        state = wrapped._zero3_consolidated_16bit_state_dict()
    else:
        state = wrapped.module.state_dict()
    return {name: tensor.detach().cpu() for name, tensor in state.items()} if main else None


def write_weights(model: nn.Module, whole: dict[str, Tensor], directory: Path) -> None:
    """Write the whole state as an unspread model is saved: tied weights once, or an adapter only."""
    if not hasattr(model, "peft_config"):
        tied = set(getattr(model, "all_tied_weights_keys", None) or ())
        model.save_pretrained(directory, state_dict={name: kept for name, kept in whole.items() if name not in tied})
        return
    from peft import get_peft_model_state_dict
    from peft.utils import SAFETENSORS_WEIGHTS_NAME
    from safetensors.torch import save_file

    # PEFT 0.21 looks for an adapter's tensors below the modules that have one, by names with FSDP's wrappers in them.
    # Where the state has none, `save_pretrained` writes a file without a tensor, and says nothing.
    wrapped = {name: whole[clean_name(name)] for name, _ in model.named_parameters()}
    adapter = get_peft_model_state_dict(model, state_dict=wrapped)
    model.save_pretrained(directory, state_dict=wrapped)
    # For the same reason it leaves the adapter's own name in those of FSDP 1.
    stored = {
        re.sub(r"(\.lora_[AB])\.default\b", r"\1", clean_name(name)): tensor.contiguous()
        for name, tensor in adapter.items()
    }
    save_file(stored, directory / SAFETENSORS_WEIGHTS_NAME, metadata={"format": "pt"})


def save_state(strategy: str, wrapped: Any, optimizer: Optimizer, staging: Path, step: int, main: bool) -> None:
    """Write what the optimizer needs to go on. All processes call it."""
    if strategy == "fsdp1":
        _save_fsdp1_optimizer(wrapped, optimizer, staging / "optimizer.pt", main)
        return
    # One folder down, since DeepSpeed also writes a script and a pointer that we do not want in every checkpoint.
    wrapped.save_checkpoint(str(staging), tag=DEEPSPEED_STATE.replace("*", str(step)), exclude_frozen_parameters=True)
    if main:
        (staging / "zero_to_fp32.py").unlink(missing_ok=True)


def require_same_layout(checkpoint: Path, saved_by: tuple[str, int], strategy: str, processes: int) -> None:
    """StageError when what was `saved_by` (strategy, processes) cannot be gone on from as the run is now spread."""
    if saved_by == (strategy, processes):
        return
    for side, one in (("was saved by", saved_by[0]), ("would be continued by", strategy)):
        if one in STAGES:
            raise StageError(
                f"{checkpoint}: it {side} {one}, whose optimizer state fits the same strategy on as many processes "
                f"only ({saved_by[0]} on {saved_by[1]} saved it; asked for is {strategy} on {processes}). Set "
                f"training.distributed as it was, or delete {checkpoint.parent} to train the run again"
            )


def load_fsdp1_optimizer(
    wrapped: Any, optimizer: Optimizer, states: dict[str, dict[str, Tensor]], groups: list[dict[str, Any]]
) -> None:
    """Give the optimizer of an FSDP 1 model the whole `states` by name; `groups` are its groups by parameter names."""
    from torch.distributed.fsdp import FullyShardedDataParallel

    with _fsdp1_whole(wrapped):
        sharded = FullyShardedDataParallel.optim_state_dict_to_load(
            wrapped, optimizer, {"state": states, "param_groups": groups}
        )
    optimizer.load_state_dict(sharded)


def _save_fsdp1_optimizer(wrapped: Any, optimizer: Optimizer, file: Path, main: bool) -> None:
    """As torch saves the optimizer of an unspread model: states and groups by the number of the parameter."""
    import torch
    from torch.distributed.fsdp import FullyShardedDataParallel

    with _fsdp1_whole(wrapped):
        named = FullyShardedDataParallel.optim_state_dict(wrapped, optimizer)
    if not main:
        return
    names = [name for group in named["param_groups"] for name in group["params"]]
    number = {name: place for place, name in enumerate(names)}
    groups = [group | {"params": [number[name] for name in group["params"]]} for group in named["param_groups"]]
    torch.save({"state": {number[name]: kept for name, kept in named["state"].items()}, "param_groups": groups}, file)


def _fsdp1_whole(wrapped: nn.Module) -> Any:
    """Within it, states of an FSDP 1 model are whole ones."""
    import torch
    from torch.distributed.fsdp import (
        FullOptimStateDictConfig,
        FullStateDictConfig,
        FullyShardedDataParallel,
        StateDictType,
    )

    # On a CPU, torch 2.13 frees the storage that the "offloaded" copy shares; there is nothing to offload there.
    offload = torch.cuda.is_available()
    return FullyShardedDataParallel.state_dict_type(
        wrapped,
        StateDictType.FULL_STATE_DICT,
        FullStateDictConfig(offload_to_cpu=offload, rank0_only=offload),
        FullOptimStateDictConfig(offload_to_cpu=offload, rank0_only=offload),
    )
