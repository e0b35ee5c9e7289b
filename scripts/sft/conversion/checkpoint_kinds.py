"""What a path holds, told by its files: any kind of trained weights, as `{name: tensor}` read one at a time."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from sft.conversion.merge import ADAPTER_FILES
from sft.conversion.state_dicts import StateDict, ZeroShards
from sft.models.dcp import DcpTensors, is_dcp
from sft.models.weight_files import WeightFiles
from sft.runtime.stage import StageError

# Where trainers put a sharded model inside a checkpoint: this workflow, accelerate's FSDP, RLinf.
DCP_INSIDE = ("weights", "pytorch_model_fsdp_0", "dcp_checkpoint", "actor/dcp_checkpoint")
FULL_INSIDE = ("full_weights.pt", "model_state_dict/full_weights.pt", "actor/model_state_dict/full_weights.pt")
TORCH_FILES = (".pt", ".pth", ".bin")


@dataclass(frozen=True)
class Source:
    """Trained weights: `kind` in words, their tensors, and the adapter settings that lie beside them."""

    kind: str
    path: Path
    tensors: Mapping[str, Tensor]
    adapter: dict[str, Any] | None = None


def find_source(path: Path) -> Source:
    """The weights at `path`; StageError that lists what was looked for when it is of no known kind."""
    if path.is_file():
        if path.suffix not in TORCH_FILES:
            raise StageError(f"{path}: a file of weights ends in {', '.join(TORCH_FILES)}; else give a directory")
        return Source("full state dict", path, StateDict(path), _adapter_settings(path.parent))
    if not path.is_dir():
        raise StageError(f"{path} does not exist")
    for directory in (path, *(path / name for name in DCP_INSIDE)):
        if is_dcp(directory):
            return Source("sharded checkpoint (DCP)", directory, DcpTensors(directory), _adapter_settings(path))
    if (path / ADAPTER_FILES[1]).is_file():
        return Source("PEFT adapter", path, WeightFiles(path, ADAPTER_FILES[1]), _adapter_settings(path))
    for directory in (path, *sorted(path.glob("global_step*"), key=lambda found: len(found.name))[-1:]):
        if any(directory.glob("*_optim_states.pt")):
            return Source("DeepSpeed ZeRO checkpoint", directory, ZeroShards(directory), _adapter_settings(path))
    for name in FULL_INSIDE:
        if (path / name).is_file():
            return Source("full state dict", path / name, StateDict(path / name), _adapter_settings(path))
    if any(path.glob("model*.safetensors")):
        return Source("Hugging Face weights", path, WeightFiles(path), None)
    raise StageError(
        f"{path}: no weights of a known kind. Looked for: a DCP checkpoint (.metadata, also in "
        f"{', '.join(DCP_INSIDE)}), {ADAPTER_FILES[1]}, DeepSpeed's *_optim_states.pt (also in global_step<N>), "
        f"full_weights.pt, model*.safetensors"
    )


def _adapter_settings(directory: Path) -> dict[str, Any] | None:
    path = directory / ADAPTER_FILES[0]
    return json.loads(path.read_text()) if path.is_file() else None
