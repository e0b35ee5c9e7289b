"""The tokenised rows of a split as the trainer's data set, counted against what was prepared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from sft.stage import StageError

if TYPE_CHECKING:
    from datasets import Dataset

COLUMNS = ("id", "input_ids", "labels")


def load_rows(tokens: Path, split: str) -> Dataset:
    """`<tokens>/<split>.parquet` as a data set in memory: id, input_ids, labels; images or seq_lengths (of packs).

    StageError for missing columns and for another number of rows than the label audit (labels.json) counted.
    """
    import pyarrow.parquet as pq
    from datasets import Dataset
    from datasets.table import InMemoryTable

    path = tokens / f"{split}.parquet"
    table = pq.read_table(path)
    missing = [name for name in COLUMNS if name not in table.column_names]
    if missing:
        raise StageError(f"{path}: no column {', '.join(missing)}. Delete {tokens / 'manifest.json'} to make it again")
    labels = json.loads((tokens / "labels.json").read_text())
    packed = labels.get("packed") if "seq_lengths" in table.column_names else None
    prepared = packed["packs"] if packed else labels["splits"][split]["rows_kept"]
    if table.num_rows != prepared:
        raise StageError(f"{path}: {table.num_rows} rows, but {prepared} were prepared (labels.json)")
    return Dataset(InMemoryTable(table))
