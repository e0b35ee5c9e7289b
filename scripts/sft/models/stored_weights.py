"""One digest for the weights of a model directory, however they are cut into files."""

import hashlib
from pathlib import Path

from sft.models.model_files import weight_files


def stored_weights_digest(directory: Path) -> str:
    """sha256 over name, type, shape and bytes of every tensor, by name: the same however the tensors are sharded."""
    from safetensors import safe_open

    where: dict[str, Path] = {}
    for path in weight_files(directory):
        with safe_open(path, framework="pt") as file:
            where |= dict.fromkeys(file.keys(), path)
    whole = hashlib.sha256()
    for name in sorted(where):
        with safe_open(where[name], framework="pt") as file:
            tensor = file.get_tensor(name).contiguous()
        whole.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        # bfloat16 has no numpy type; its bytes have.
        whole.update(memoryview(tensor.view(-1).view(_uint8()).numpy()))
    return whole.hexdigest()


def _uint8():
    import torch

    return torch.uint8
