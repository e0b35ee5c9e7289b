"""Trained weights as other trainers leave them: one state, saved in every layout that conversion reads."""

from __future__ import annotations

import math
from collections import OrderedDict
from pathlib import Path

import torch
from torch import Tensor

QUERY = "model.layers.{}.self_attn.q_proj.weight"


def as_full_state_dict(state: dict[str, Tensor], path: Path, prefix: str = "", nested: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    named = {f"{prefix}{name}": tensor.clone() for name, tensor in state.items()}
    torch.save({"model": named, "step": 7} if nested else named, path)
    return path


def as_dcp(state: dict[str, Tensor], directory: Path, prefix: str = "") -> Path:
    import torch.distributed.checkpoint as dcp

    dcp.save(
        {f"{prefix}{name}": tensor.clone() for name, tensor in state.items()}, checkpoint_id=directory, no_dist=True
    )
    return directory


def as_zero(
    state: dict[str, Tensor], directory: Path, stage: int, world: int = 2, frozen: tuple[str, ...] = ()
) -> Path:
    """The layout that DeepSpeed's zero_to_fp32.py documents: two parameter groups, float32 partitions a rank."""
    step = directory / "global_step7"
    step.mkdir(parents=True)
    trained = [name for name in state if name not in frozen]
    groups = [trained[::2], trained[1::2]]
    shapes = [OrderedDict((name, state[name].shape) for name in group) for group in groups]
    flat: list[list[Tensor]] = [[] for _ in range(world)]
    for group in groups:
        if stage == 3:
            parts: list[list[Tensor]] = [[] for _ in range(world)]
            for name in group:
                for rank, piece in enumerate(_padded(state[name], world).chunk(world)):
                    parts[rank].append(piece)
            whole = [torch.cat(part) for part in parts]
        else:
            whole = list(_padded(torch.cat([state[name].reshape(-1) for name in group]), 2 * world).chunk(world))
        for rank in range(world):
            flat[rank].append(whole[rank].float().clone())
    key = "fp32_flat_groups" if stage == 3 else "single_partition_of_fp32_groups"
    for rank in range(world):
        optimizer = {"zero_stage": stage, "partition_count": world, key: flat[rank]}
        torch.save({"optimizer_state_dict": optimizer}, step / f"zero_pp_rank_{rank}_mp_rank_00_optim_states.pt")
        if stage == 3 or rank == 0:
            name = f"zero_pp_rank_{rank}_mp_rank_00" if stage == 3 else "mp_rank_00"
            # Stage 3 leaves empty tensors in the module, which must never become the model.
            module = {n: torch.empty(0) if stage == 3 else t.bfloat16() for n, t in state.items()}
            fragments = {n: (_padded(state[n], world).chunk(world)[rank] if stage == 3 else state[n]) for n in frozen}
            told = {
                "module": module,
                "param_shapes": shapes,
                "buffer_names": [],
                "shared_params": {},
                "frozen_param_shapes": {n: state[n].shape for n in frozen} or None,
                "frozen_param_fragments": fragments or None,
                "ds_version": "0.19.8",
            }
            torch.save(told, step / f"{name}_model_states.pt")
    return directory


def _padded(tensor: Tensor, multiple: int) -> Tensor:
    flat = tensor.reshape(-1)
    length = math.ceil(flat.numel() / multiple) * multiple
    return torch.cat([flat, flat.new_zeros(length - flat.numel())])
