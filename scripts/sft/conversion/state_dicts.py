"""Weights in torch's own files: a whole state dict (`full_weights.pt`), and DeepSpeed's ZeRO shards.

Files are mapped, so that of a file only the tensors that are asked for are read, and what was read is given back; and
only tensors and plain containers are unpickled (`weights_only`), so a file from elsewhere runs no code.
"""

from __future__ import annotations

import math
import pickle
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sft.conversion.mapped import Mapped
from sft.runtime.stage import StageError

# Where trainers put the model inside what they save.
NESTED = ("model", "module", "state_dict", "model_state_dict")


def load_tensors_only(path: Path) -> Any:
    """The content of a torch file, mapped; StageError when it is damaged or holds more than tensors and containers."""
    try:
        # DeepSpeed stores its loss scaler and stage beside the weights; here they become objects without behaviour.
        with torch.serialization.safe_globals([(_Inert, name) for name in _INERT] + [(_Number, _STAGE)]):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except FileNotFoundError:
        raise StageError(f"{path} is missing") from None
    except pickle.UnpicklingError as error:
        # torch's text recommends weights_only=False, which is what must not be done.
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        asked = f"it asks for {found[1]}" if found else "it is no file of tensors"
        raise StageError(f"{path}: refused, {asked}. Save the model's state dict alone") from None
    except (RuntimeError, EOFError, ValueError) as error:
        raise StageError(f"{path}: damaged ({str(error).splitlines()[0][:200]}). Copy it again") from None


class _Inert:
    """Stands for a class that is not looked into."""

    def __setstate__(self, _state: Any) -> None:
        """Keep nothing."""


class _Number(int):
    """Stands for a member of an enumeration of whole numbers."""


_STAGE = "deepspeed.runtime.zero.config.ZeroStageEnum"
_INERT = ("deepspeed.runtime.fp16.loss_scaler.LossScaler", "deepspeed.runtime.fp16.loss_scaler.DynamicLossScaler")


class StateDict(Mapping[str, Tensor]):
    """`{name: tensor}` of a torch file with a state dict, alone or under one of `NESTED`."""

    def __init__(self, path: Path):
        self.directory = path
        found = load_tensors_only(path)
        for name in NESTED:
            if isinstance(found, Mapping) and isinstance(found.get(name), Mapping):
                found = found[name]
        if not isinstance(found, Mapping):
            raise StageError(f"{path}: holds a {type(found).__name__}, no state dict")
        self._tensors = {str(name): value for name, value in found.items() if isinstance(value, Tensor)}
        if not self._tensors:
            raise StageError(f"{path}: no tensors in it (keys: {', '.join(map(str, list(found)[:5]))})")
        self._mapped = Mapped(path)

    def __getitem__(self, name: str) -> Tensor:
        read = self._tensors[name].clone(memory_format=torch.contiguous_format)
        self._mapped.give_back(self._tensors[name])
        return read

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        """The tensor's shape."""
        return tuple(self._tensors[name].shape)


class ZeroShards(Mapping[str, Tensor]):
    """`{name: float32 tensor}` of a DeepSpeed ZeRO checkpoint (stage 1, 2 or 3), each put together when asked for.

    As DeepSpeed 0.19 documents the layout in the zero_to_fp32.py that it puts into each checkpoint: every rank has a
    flat float32 partition per parameter group. Stages 1 and 2 cut the group's concatenated parameters into ranks;
    stage 3 cuts every parameter. `param_shapes` of the model states gives names, shapes and order. Weights that were
    frozen lie in the model states. Tensor parallelism is not read.
    """

    def __init__(self, directory: Path):
        self.directory = directory
        optimizer = sorted(directory.glob("*_optim_states.pt"), key=_rank)
        models = sorted(directory.glob("*_model_states.pt"), key=_rank)
        if not optimizer or not models:
            raise StageError(f"{directory}: no *_optim_states.pt or no *_model_states.pt: no ZeRO checkpoint")
        if others := [path.name for path in models if not re.search(r"mp_rank_00_", path.name)]:
            raise StageError(f"{directory}: {others[0]}: tensor parallel checkpoints are not read")
        states = [load_tensors_only(path)["optimizer_state_dict"] for path in optimizer]
        self.stage = int(states[0]["zero_stage"])
        world = states[0]["partition_count"]
        self.world = int(max(world) if isinstance(world, (list, tuple)) else world)
        if len(states) != self.world:
            raise StageError(f"{directory}: {len(states)} of {self.world} ranks' *_optim_states.pt are there")
        key = "fp32_flat_groups" if self.stage == 3 else "single_partition_of_fp32_groups"
        # A rank's partitions by group; of stage 3 they follow each other as one.
        self._flat: list[list[Tensor]] = [list(state[key]) for state in states]
        self._models = [load_tensors_only(path) for path in models]
        self._mapped = [Mapped(path) for path in (*optimizer, *models)]
        self._where: dict[str, tuple[int, int, tuple[int, ...]]] = {}
        self._place()

    def _place(self) -> None:
        """Note group, offset and shape of every parameter, and see that the partitions hold all of them."""
        shapes = self._models[0]["param_shapes"]
        offset = 0
        for group, named in enumerate(shapes):
            if self.stage != 3:
                offset = 0
            for name, shape in named.items():
                self._where[name] = (0 if self.stage == 3 else group, offset, tuple(shape))
                count = math.prod(shape)
                offset += math.ceil(count / self.world) if self.stage == 3 else count
            if self.stage != 3:
                self._require(sum(flat[group].numel() for flat in self._flat), offset, f"group {group}")
        if self.stage == 3:
            for rank, flat in enumerate(self._flat):
                self._require(sum(part.numel() for part in flat), offset, f"rank {rank}")

    def _require(self, there: int, needed: int, what: str) -> None:
        if there < needed:
            raise StageError(
                f"{self.directory}: {what} has {there} of {needed} float32 values. A rank's file is cut off, or of "
                f"another step"
            )

    @property
    def _frozen(self) -> Mapping[str, Any]:
        return self._models[0].get("frozen_param_shapes") or {}

    @property
    def _shared(self) -> Mapping[str, str]:
        return self._models[0].get("shared_params") or {}

    def __getitem__(self, name: str) -> Tensor:
        parts, shape = self._parts(self._shared.get(name, name))
        whole = torch.cat(parts) if parts else torch.empty(0)
        for part in parts:
            for mapped in self._mapped:
                mapped.give_back(part)
        # Without the padding at the end.
        return whole[: math.prod(shape)].reshape(shape)

    def _parts(self, name: str) -> tuple[list[Tensor], tuple[int, ...]]:
        """Where a tensor's values lie, in their order, and its shape."""
        if name in self._frozen:
            found = [model["frozen_param_fragments"][name].reshape(-1) for model in self._models]
            return found, tuple(self._frozen[name])
        if name not in self._where:
            found = self._models[0]["module"][name]
            return [found.reshape(-1)], tuple(found.shape)
        group, offset, shape = self._where[name]
        count = math.prod(shape)
        if self.stage == 3:
            each = math.ceil(count / self.world)
            return [part for flat in self._flat for part in _between(flat, offset, offset + each)], shape
        return _between([flat[group] for flat in self._flat], offset, offset + count), shape

    def __iter__(self) -> Iterator[str]:
        yield from self._where
        yield from self._frozen
        yield from self._shared
        yield from (name for name in self._models[0].get("buffer_names") or () if name in self._models[0]["module"])

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def shape(self, name: str) -> tuple[int, ...]:
        """The whole tensor's shape."""
        name = self._shared.get(name, name)
        if name in self._where:
            return self._where[name][2]
        return tuple(self._frozen[name] if name in self._frozen else self._models[0]["module"][name].shape)


def _between(flat: list[Tensor], first: int, last: int) -> list[Tensor]:
    """The values from `first` to before `last` of tensors that follow each other, as parts of them."""
    parts, start = [], 0
    for one in flat:
        end = start + one.numel()
        if max(first, start) < min(last, end):
            parts.append(one.reshape(-1)[max(first, start) - start : min(last, end) - start])
        start = end
    return parts


def _rank(path: Path) -> tuple[int, str]:
    """Rank 10 comes after rank 9."""
    found = re.search(r"zero_pp_rank_(\d+)_", path.name)
    return (int(found[1]) if found else 0, path.name)
