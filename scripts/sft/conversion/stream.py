"""Writes published weights shard by shard: never more in memory than two output shards, one of which is being
written, and two tensors.

Shards are planned from the base model's shapes before anything is read; `model-0000k-of-0000n.safetensors` with an
index, or one `model.safetensors`. Values are cast once, at the end of float32 arithmetic.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from sft.conversion.parity import same_bytes
from sft.models.weight_files import WeightFiles
from sft.runtime.stage import StageError
from sft.terms.model_names import INDEX

SHARD_BYTES = 4 * 2**30


def write_weights(
    shapes: dict[str, tuple[int, ...]],
    tensor_of: Callable[[str], Tensor],
    dtype: str,
    target: Path,
    shard_bytes: int = SHARD_BYTES,
) -> list[str]:
    """Write `tensor_of(name)` for every name of `shapes` as `dtype` into `target`; returns the files' names.

    Every file is read back and held against what was in memory, byte for byte, while the next one is put together;
    StageError where it differs.
    """
    kind = getattr(torch, dtype)
    shards = list(_shards(shapes, kind.itemsize, shard_bytes))
    names = [
        "model.safetensors" if len(shards) == 1 else f"model-{i:05}-of-{len(shards):05}.safetensors"
        for i in range(1, len(shards) + 1)
    ]
    with ThreadPoolExecutor(1) as writer:
        written: Future[None] | None = None
        for file, shard in zip(names, shards, strict=True):
            content = {name: _as(tensor_of(name), kind) for name in shard}
            if written is not None:
                written.result()
            written = writer.submit(_write, target, file, content)
            del content
        if written is not None:
            written.result()
    if len(shards) > 1:
        where = {name: file for file, shard in zip(names, shards, strict=True) for name in shard}
        total = sum(math.prod(shape) for shape in shapes.values()) * kind.itemsize
        index: dict[str, Any] = {"metadata": {"total_size": total}, "weight_map": where}
        (target / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")
    return names


def _write(target: Path, file: str, content: dict[str, Tensor]) -> None:
    try:
        save_file(content, target / file, {"format": "pt"})
    except SafetensorError as error:  # of a full disk as well
        raise StageError(f"{target / file}: cannot be written ({error}). Make room, or give another place") from None
    stored = WeightFiles(target, file)
    if stored.keys() != content.keys():
        raise StageError(f"{target / file}: what was written has other tensors than it should")
    for name, tensor in content.items():
        if not same_bytes(stored.lend(name), tensor):
            raise StageError(f"{target / file}: {name}: what was written is not what was read")


def _as(tensor: Tensor, kind: torch.dtype) -> Tensor:
    return (tensor.to(kind) if tensor.is_floating_point() else tensor).contiguous()


def _shards(shapes: dict[str, tuple[int, ...]], width: int, largest: int) -> Iterator[list[str]]:
    shard: list[str] = []
    size = 0
    for name, shape in shapes.items():
        here = math.prod(shape) * width
        if shard and size + here > largest:
            yield shard
            shard, size = [], 0
        shard.append(name)
        size += here
    yield shard
