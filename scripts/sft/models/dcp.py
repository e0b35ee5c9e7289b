"""Sharded checkpoints (torch.distributed.checkpoint, DCP): read without a process group, one whole tensor at a time.

A DCP directory is `.metadata` (a pickle: names, shapes, which piece lies where) and `*.distcp` files of pieces.
torch reads `.metadata` with plain pickle, so a checkpoint from elsewhere could run code. Here it is read through a
list of the exact classes that DCP writes, most of them replaced by ones that hold values and have no code; pieces are
read as tensors and nothing else, and no path may leave the directory. A tensor whose pieces do not cover it is refused:
that is what one rank's shard saved as the whole is.
"""

from __future__ import annotations

import io
import itertools
import math
import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from sft.runtime.stage import StageError

METADATA = ".metadata"
_DCP = "torch.distributed.checkpoint.metadata"


class _Described:
    """What stands for an object of DCP's: its values, whatever the version of torch that wrote them calls them."""

    transform_descriptors = None  # older ones do not have it

    def __init__(self, *_values: Any):
        """Enumerations are pickled as calls."""


class TensorProperties(_Described):
    """DCP pickles these without names, the type first."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """As pickle does."""
        self.dtype = state[0]


def _stand_in(name: str) -> type:
    return type(name, (_Described,), {})


# Seen in checkpoints of torch 2.13, full and sharded, of models and optimizers. Exact pairs: a prefix would let in
# whatever else its module imports. DCP's own classes are replaced: importing them takes half a second.
STAND_INS = {
    **{(_DCP, n): _stand_in(n) for n in ("Metadata", "TensorStorageMetadata", "BytesStorageMetadata")},
    **{(_DCP, n): _stand_in(n) for n in ("ChunkStorageMetadata", "MetadataIndex", "StorageMeta")},
    (_DCP, "_MEM_FORMAT_ENCODING"): _stand_in("_MEM_FORMAT_ENCODING"),
    (_DCP, "TensorProperties"): TensorProperties,
    ("torch.distributed.checkpoint.filesystem", "_StorageInfo"): _stand_in("_StorageInfo"),
}
ALLOWED = {
    ("torch", "Size"),
    ("torch.serialization", "_get_layout"),
    ("pathlib", "PosixPath"),
    *(("torch", name) for name in ("float64", "float32", "float16", "bfloat16", "int64", "int32", "uint8", "bool")),
    *(("torch", name) for name in ("int16", "int8", "float8_e4m3fn", "float8_e5m2")),
}


def is_dcp(directory: Path) -> bool:
    """Whether a directory is a DCP checkpoint."""
    return (directory / METADATA).is_file()


class DcpTensors(Mapping[str, torch.Tensor]):
    """`{name: tensor}` of a DCP directory, each put together from its pieces when it is asked for.

    StageError for a directory that is none, or is damaged, incomplete or hostile, with the file and the reason.
    """

    def __init__(self, directory: Path | str):
        self.directory = Path(directory)
        metadata = _read_metadata(self.directory / METADATA)
        self._tensors: dict[str, Any] = {}
        self._pieces: dict[str, dict[tuple[int, ...], Any]] = {}
        for name, described in metadata.state_dict_metadata.items():
            if type(described).__name__ != "TensorStorageMetadata":
                raise StageError(
                    f"{self.directory}: {name} is stored as a pickled object, which is not read: it could run code. "
                    f"Save the model's tensors alone"
                )
            self._tensors[name] = described
        for index, info in metadata.storage_data.items():
            path = self.directory / info.relative_path
            if path.resolve().parent != self.directory.resolve():
                raise StageError(f"{self.directory}: {info.relative_path} is outside of the checkpoint. Do not use it")
            if info.transform_descriptors:
                raise StageError(
                    f"{self.directory}: pieces are stored by {info.transform_descriptors}; save them plain"
                )
            if index.fqn in self._tensors:
                self._pieces.setdefault(index.fqn, {})[tuple(index.offset or ())] = info

    def __getitem__(self, name: str) -> torch.Tensor:
        described = self._tensors[name]
        kind, shape = described.properties.dtype, tuple(described.size)
        chunks = [(tuple(chunk.offsets), tuple(chunk.sizes)) for chunk in described.chunks]
        self._require_cover(name, shape, chunks)
        whole = None
        for offsets, sizes in chunks:
            piece = self._piece(name, offsets)
            if tuple(piece.shape) != sizes or piece.dtype != kind:
                raise StageError(
                    f"{self.directory}: a piece of {name} is {piece.dtype} {tuple(piece.shape)} instead of "
                    f"{kind} {sizes}"
                )
            if sizes == shape:
                return piece  # of one process, or of a parameter that was not cut
            whole = torch.empty(shape, dtype=kind) if whole is None else whole
            target = whole
            for dimension, (start, length) in enumerate(zip(offsets, sizes, strict=True)):
                target = target.narrow(dimension, start, length)
            target.copy_(piece)
        return torch.empty(shape, dtype=kind) if whole is None else whole  # no pieces: a tensor without values

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        """The whole tensor's shape, without reading it."""
        return tuple(self._tensors[name].size)

    def dtype(self, name: str) -> str:
        """The tensor's type as torch names it ("float32"), without reading it."""
        return str(self._tensors[name].properties.dtype).removeprefix("torch.")

    def _piece(self, name: str, offsets: tuple[int, ...]) -> torch.Tensor:
        pieces = self._pieces.get(name, {})
        info = pieces.get(offsets) or (pieces.get(()) if not any(offsets) else None)
        if info is None:
            raise StageError(f"{self.directory}: the piece of {name} at {offsets} is nowhere stored")
        path = self.directory / info.relative_path
        try:
            with path.open("rb", buffering=0) as file:
                if path.stat().st_size < info.offset + info.length:
                    raise StageError(f"{path}: ends before the piece of {name} does. Copy the checkpoint again")
                piece = torch.load(_Part(file, info.offset, info.length), map_location="cpu", weights_only=True)
        except FileNotFoundError:
            raise StageError(f"{path} is missing: {name} has a piece in it. Copy the whole checkpoint") from None
        except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
            raise StageError(f"{path}: the piece of {name} cannot be read as a tensor ({_first_line(error)})") from None
        if not isinstance(piece, torch.Tensor):
            raise StageError(f"{path}: the piece of {name} is a {type(piece).__name__}, no tensor")
        return piece

    def _require_cover(self, name: str, size: tuple[int, ...], chunks: list[tuple[tuple, tuple]]) -> None:
        for (start, length), (other, extent) in itertools.combinations(chunks, 2):
            if all(a < b + n and b < a + m for a, m, b, n in zip(start, length, other, extent, strict=True)):
                raise StageError(f"{self.directory}: pieces of {name} overlap at {start} and {other}")
        covered = sum(math.prod(length) for _, length in chunks)
        if covered != math.prod(size):
            raise StageError(
                f"{self.directory}: the pieces of {name} are {covered} of its {math.prod(size)} values. A rank's part "
                f"was not saved or not copied"
            )


class _Part(io.RawIOBase):
    """A part of an open file as a file of its own, so that torch reads values to where they stay, without a copy."""

    def __init__(self, file: io.FileIO, start: int, length: int):
        self._file, self._start, self._length, self._at = file, start, length, 0

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """As of any file."""
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._length}[whence]
        return self._at

    def tell(self) -> int:
        """As of any file."""
        return self._at

    def seekable(self) -> bool:
        """It is."""
        return True

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer, as far as the part goes."""
        into = memoryview(buffer).cast("B")[: max(0, self._length - self._at)]
        self._file.seek(self._start + self._at)
        filled = 0
        # One read gives 2 GiB at most (man 2 read).
        while filled < len(into) and (count := self._file.readinto(into[filled:])):
            filled += count
        self._at += filled
        return filled


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in STAND_INS:
            return STAND_INS[module, name]
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no DCP checkpoint needs")
        return super().find_class(module, name)


def _read_metadata(path: Path) -> Any:
    try:
        found = _Unpickler(io.BytesIO(path.read_bytes())).load()
    except FileNotFoundError:
        raise StageError(f"{path} is missing: {path.parent} is no complete DCP checkpoint") from None
    except Exception as error:  # a pickle can fail in any way; none of it may end in a traceback
        raise StageError(f"{path}: refused ({_first_line(error)}). It is damaged, or not what it says it is") from None
    if type(found).__name__ != "Metadata" or found.storage_data is None:
        raise StageError(f"{path}: holds a {type(found).__name__}, not the description of a checkpoint")
    return found


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
