"""The tensors of a model directory, read one at a time from its safetensors files under the names of the files.

No model is built, so what is seen here is what is on disk, whatever a loader would make of it. safetensors checks the
files and tells names, shapes and types; the values are read, not mapped: pages of a mapped file count as memory of
the process for as long as it has the file open, and a model would be in it whole in the end.
"""

import json
import math
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from sft.runtime.stage import StageError
from sft.terms.model_names import INDEX


class WeightFiles(Mapping[str, torch.Tensor]):
    """`{name on disk: tensor}` of a directory's weight files, lazily, so a large model is never held whole.

    StageError when there are no weights, a file is damaged, or the index and the files do not agree.
    """

    def __init__(self, directory: Path | str, pattern: str = "model*.safetensors"):
        self.directory = Path(directory)
        files = sorted(self.directory.glob(pattern))
        if not files:
            raise StageError(f"{self.directory}: no weights ({pattern})")
        self._handles = {}
        self._file_of: dict[str, Path] = {}
        self._start: dict[str, int] = {}
        self._lent = torch.empty(0, dtype=torch.uint8)
        for file in files:
            try:
                self._handles[file] = safe_open(file, "pt")
            except SafetensorError as error:
                raise StageError(f"{file}: damaged ({error})") from None
            names = self._handles[file].keys()
            for name in names:
                if name in self._file_of:
                    raise StageError(f"{file}: {name} is in {self._file_of[name].name} as well")
                self._file_of[name] = file
            self._start |= _starts(file)
        index = self.directory / INDEX
        if index.is_file():
            declared = json.loads(index.read_text())["weight_map"]
            if declared != {name: file.name for name, file in self._file_of.items()}:
                raise StageError(f"{index}: does not say what is in the weight files")
        elif len(files) > 1:
            raise StageError(f"{self.directory}: {len(files)} weight files and no {INDEX}")

    def __getitem__(self, name: str) -> torch.Tensor:
        tensor = torch.empty(self.shape(name), dtype=getattr(torch, self.dtype(name)))
        read_into(tensor, self._file_of[name], self._start[name])
        return tensor

    def lend(self, name: str) -> torch.Tensor:
        """The tensor in memory that the next one overwrites: fresh memory costs more than reading."""
        shape, kind = self.shape(name), getattr(torch, self.dtype(name))
        size = math.prod(shape) * kind.itemsize
        if size > self._lent.numel():
            self._lent = torch.empty(size, dtype=torch.uint8)
        tensor = self._lent[:size].view(kind).reshape(shape)
        read_into(tensor, self._file_of[name], self._start[name])
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._file_of)

    def __len__(self) -> int:
        return len(self._file_of)

    def shape(self, name: str) -> tuple[int, ...]:
        """The tensor's shape, without reading it."""
        return tuple(self._handles[self._file_of[name]].get_slice(name).get_shape())

    def dtype(self, name: str) -> str:
        """The tensor's type as torch names it ("float32"), without reading it."""
        kind = self._handles[self._file_of[name]].get_slice(name).get_dtype()
        if kind not in _TORCH_NAMES:
            raise StageError(f"{self._file_of[name]}: {name} is stored as {kind}, which is not known here")
        return _TORCH_NAMES[kind]


def read_into(tensor: torch.Tensor, file: Path, start: int) -> None:
    """Fill a contiguous tensor with the bytes of `file` from `start` on; StageError when the file ends before."""
    if not tensor.numel():
        return
    into = memoryview(tensor.reshape(-1).view(torch.uint8).numpy())
    with file.open("rb", buffering=0) as opened:
        opened.seek(start)
        while into:
            # One read gives 2 GiB at most (man 2 read).
            count = opened.readinto(into)
            if not count:
                raise StageError(f"{file}: ends before its last tensor does. Copy it again")
            into = into[count:]


def _starts(file: Path) -> dict[str, int]:
    """Where each tensor of a safetensors file begins: after 8 bytes of length and a JSON header of that length."""
    with file.open("rb") as opened:
        (length,) = struct.unpack("<Q", opened.read(8))
        header = json.loads(opened.read(length))
    return {name: 8 + length + told["data_offsets"][0] for name, told in header.items() if name != "__metadata__"}


# safetensors' names of the types that weights have.
_TORCH_NAMES = {
    **{"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "BOOL": "bool"},
    **{"I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8"},
    **{"F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2"},
}
