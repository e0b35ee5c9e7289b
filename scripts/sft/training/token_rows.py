"""The tokenised rows of a split as the trainer's data set, mapped into memory and counted against what was prepared.

Rows of pictures may be larger than memory, and parquet cannot be read row by row. So the rows are written once more,
uncompressed, in Arrow's own format, to `<tokens>/.rows/<split>-<form>-<parquet's digest>-<this file's digest>.arrow`;
all runs and all their processes map that one file, and the kernel keeps of it what there is room for. It is a copy:
nothing is lost when it is deleted, no manifest knows it, and it takes as much disk as the rows do without compression.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from sft.data.read import examples
from sft.runtime import manifest
from sft.runtime.claim import Claim, ClaimError
from sft.runtime.stage import StageError

if TYPE_CHECKING:
    from datasets import Dataset

COLUMNS = ("id", "input_ids", "labels")
ROWS = ".rows"
# Part of the name of a copy, raised when `_write` makes another one of the same parquet.
FORM = 1
# What is in memory at once while the copy is written; a row that is larger is a batch of its own.
BYTES_PER_BATCH = 16 * 2**20
DIGITS = 32
WAIT_SECONDS = 0.5


def prepare_rows(tokens: Path, split: str, say: Callable[[str], None]) -> None:
    """Make the copy of `<tokens>/<split>.parquet` that is mapped, or hold the one that is there against its digest.

    Called by one process of a run, before any of them reads rows.
    """
    path = _copy(tokens, split, say)
    if not path.name.endswith(f"-{manifest.file_digest(path)[:DIGITS]}.arrow"):
        say(f"{path} is not what was written; making it again")
        path.unlink(missing_ok=True)
        _copy(tokens, split, say)


def longest_row(rows: Dataset) -> int:
    """Tokens of the longest row, from the offsets of the mapped lists; no token is read."""
    import pyarrow.compute as pc

    return pc.max(pc.list_value_length(rows.data.column("input_ids"))).as_py()


def load_rows(tokens: Path, split: str) -> Dataset:
    """`<tokens>/<split>.parquet` as a mapped data set: id, input_ids, labels; images or seq_lengths (of packs).

    StageError for missing columns and for another number of rows than the label audit (labels.json) counted.
    """
    from datasets import Dataset

    path = tokens / f"{split}.parquet"
    rows = Dataset.from_file(str(_copy(tokens, split, lambda text: None)))
    missing = [name for name in COLUMNS if name not in rows.column_names]
    if missing:
        raise StageError(f"{path}: no column {', '.join(missing)}. Delete {tokens / 'manifest.json'} to make it again")
    labels = json.loads((tokens / "labels.json").read_text())
    packed = labels.get("packed") if "seq_lengths" in rows.column_names else None
    prepared = packed["packs"] if packed else labels["splits"][split]["rows_kept"]
    if len(rows) != prepared:
        raise StageError(f"{path}: {len(rows)} rows, but {prepared} were prepared (labels.json)")
    return rows


def _copy(tokens: Path, split: str, say: Callable[[str], None]) -> Path:
    """The copy of a split's rows; made by whoever holds the claim on it, while all others wait."""
    folder = tokens / ROWS
    made = manifest.read(tokens)
    if made is None:
        raise StageError(f"{tokens}: the tokens are not finished (no manifest.json). Make them first")
    wanted = f"{split}-{FORM}-{made['outputs'][f'{split}.parquet']['sha256'][:DIGITS]}-"
    told = False
    while not (found := sorted(folder.glob(f"{wanted}*.arrow"))):
        folder.mkdir(exist_ok=True)
        try:
            with Claim(folder, say) as claim:
                if not list(folder.glob(f"{wanted}*.arrow")):
                    _write(tokens / f"{split}.parquet", folder, split, wanted, claim)
        except ClaimError as error:
            if not told:
                say(f"waiting for the rows of {split}: {error}")
            told = True
            time.sleep(WAIT_SECONDS)
    return found[0]


def _write(path: Path, folder: Path, split: str, wanted: str, claim: Claim) -> None:
    """Write the copy beside its place and rename it there when it is whole and on the disk."""
    import pyarrow
    import pyarrow.parquet

    for left in (*folder.glob("*.part"), *folder.glob(f"{split}-*.arrow")):
        left.unlink(missing_ok=True)  # of a process that was killed, and of rows that were made again since
    part = folder / f"{split}-{uuid.uuid4().hex}.part"
    try:
        with pyarrow.parquet.ParquetFile(path, pre_buffer=False, buffer_size=2**20) as file:
            rows = examples.rows_within(file, BYTES_PER_BATCH)
            with pyarrow.OSFile(str(part), "wb") as sink, pyarrow.ipc.new_stream(sink, file.schema_arrow) as stream:
                for batch in file.iter_batches(rows):
                    stream.write_batch(batch)
        with part.open("rb") as written:
            os.fsync(written.fileno())
        final = folder / f"{wanted}{manifest.file_digest(part)[:DIGITS]}.arrow"
        claim.require()
        part.rename(final)
        manifest.fsync_directory(folder)
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(part)) from error  # Arrow does not tell where
    finally:
        part.unlink(missing_ok=True)
