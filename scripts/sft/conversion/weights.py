"""The tensors of a model directory, read one at a time from its safetensors files under the names of the files.

No model is built, so what is seen here is what is on disk, whatever a loader would make of it.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from sft.models.model_files import INDEX
from sft.stage import StageError


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
        index = self.directory / INDEX
        if index.is_file():
            declared = json.loads(index.read_text())["weight_map"]
            if declared != {name: file.name for name, file in self._file_of.items()}:
                raise StageError(f"{index}: does not say what is in the weight files")
        elif len(files) > 1:
            raise StageError(f"{self.directory}: {len(files)} weight files and no {INDEX}")

    def __getitem__(self, name: str) -> torch.Tensor:
        return self._handles[self._file_of[name]].get_tensor(name)

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
        return _TORCH_NAMES.get(kind, kind)


# safetensors' names of the types that weights have.
_TORCH_NAMES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
