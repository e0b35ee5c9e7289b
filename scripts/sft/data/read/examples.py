"""The canonical example: one parquet schema from `prepare_dataset` to `tokenize_dataset` and `predict`.

    id           text, unique in its data set
    source_file  the published file that the row comes from
    prompt       the rendered user turn (of a conversation, the last one); null for text without roles
    completion   the assistant turn to learn; all of a text without roles
    choices      choice texts in the order of the letters A, B, ...; empty where there are none
    answer       the right choice's letter; "" where there are no choices
    images       encoded pictures, shown before the prompt; possibly none
    group        what must not straddle splits (a trajectory, a document); null where unknown
    system       the system message; null for none
    messages     all turns of a conversation, JSON (sft/data/read/turns.py); null for one question and its answer
    tools        definitions of the tools that the assistant may call, JSON; null for none

Reading and writing go batch by batch: a data set of pictures need not fit into memory.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow
import pyarrow.parquet

if TYPE_CHECKING:
    from types import TracebackType

SCHEMA = pyarrow.schema(
    {
        "id": pyarrow.string(),
        "source_file": pyarrow.string(),
        "prompt": pyarrow.string(),
        "completion": pyarrow.string(),
        "choices": pyarrow.list_(pyarrow.string()),
        "answer": pyarrow.string(),
        "images": pyarrow.list_(pyarrow.binary()),
        "group": pyarrow.string(),
        "system": pyarrow.string(),
        "messages": pyarrow.string(),
        "tools": pyarrow.string(),
    }
)
# In a mix, the name of the part that the row comes from.
PART = pyarrow.field("part", pyarrow.string())
ROWS_PER_BATCH = 1000
# Of rows with pictures, so many bytes in memory at once while reading, and of one row group while writing.
BYTES_PER_BATCH = 64 * 2**20
BYTES_PER_GROUP = 256 * 2**20


class Writer:
    """Writes rows (dictionaries) or record batches to one parquet file; a context manager."""

    def __init__(self, path: Path, schema: pyarrow.Schema = SCHEMA):
        self.schema = schema
        self.rows = 0
        self._bytes = 0
        self._waiting: list[dict[str, Any]] = []
        self._batches: list[pyarrow.RecordBatch] = []
        self._file = pyarrow.parquet.ParquetWriter(path, schema)

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self._flush()
        self._file.close()

    def add(self, row: dict[str, Any]) -> None:
        """Append one row."""
        self._waiting.append(row)
        self.rows += 1
        self._bytes += sum(map(len, row.get("images") or ()))
        if len(self._waiting) == ROWS_PER_BATCH or self._bytes >= BYTES_PER_GROUP:
            self._flush()

    def add_batch(self, batch: pyarrow.RecordBatch) -> None:
        """Append a record batch with the columns of the schema."""
        self._gather()
        if batch.num_rows:
            self._batches.append(batch.select(self.schema.names).cast(self.schema))
            self.rows += batch.num_rows
            self._bytes += batch.nbytes
        # A few rows a batch, as a filter leaves them, are no row group of their own: readers pay for each.
        if sum(waiting.num_rows for waiting in self._batches) >= ROWS_PER_BATCH or self._bytes >= BYTES_PER_GROUP:
            self._flush()

    def _gather(self) -> None:
        if self._waiting:
            self._batches.append(_batch(self._waiting, self.schema))
            self._waiting = []

    def _flush(self) -> None:
        self._gather()
        if self._batches:
            self._file.write_table(pyarrow.Table.from_batches(self._batches), row_group_size=2 * ROWS_PER_BATCH)
            self._batches = []
        self._bytes = 0


def _batch(rows: list[dict[str, Any]], schema: pyarrow.Schema) -> pyarrow.RecordBatch:
    """Rows as a record batch. Tokens are put together as arrays: pyarrow looks at each number of a list."""
    tokens = pyarrow.list_(pyarrow.int32())
    columns = []
    for field in schema:
        values = [row.get(field.name) for row in rows]
        arrays = [value for value in values if isinstance(value, array)] if field.type == tokens else []
        if field.type == tokens and len(arrays) == len(values):
            ends, numbers = array("i", [0]), array("i")
            for value in arrays:
                numbers.extend(value)
                ends.append(len(numbers))
            columns.append(pyarrow.ListArray.from_arrays(_int32(ends), _int32(numbers)))
        else:
            columns.append(pyarrow.array(values, field.type))
    return pyarrow.RecordBatch.from_arrays(columns, schema=schema)


def _int32(numbers: array) -> pyarrow.Array:
    return pyarrow.Array.from_buffers(pyarrow.int32(), len(numbers), [None, pyarrow.py_buffer(numbers)])


def rows_within(file: pyarrow.parquet.ParquetFile, limit: int) -> int:
    """How many rows of a file are read at once: ROWS_PER_BATCH, or fewer, that take about `limit` bytes."""
    size = sum(file.metadata.row_group(number).total_byte_size for number in range(file.num_row_groups))
    return min(ROWS_PER_BATCH, max(1, limit * file.metadata.num_rows // max(1, size)))


def batches(path: Path, columns: list[str] | None = None) -> Iterator[pyarrow.RecordBatch]:
    """The record batches of a parquet file, in order."""
    with pyarrow.parquet.ParquetFile(path) as file:
        yield from file.iter_batches(rows_within(file, BYTES_PER_BATCH), columns=columns)


def rows(path: Path, columns: list[str] | None = None) -> Iterator[dict[str, Any]]:
    """The rows of a parquet file as dictionaries, in order."""
    for batch in batches(path, columns):
        yield from batch.to_pylist()


def column_names(path: Path) -> list[str]:
    """The columns of a parquet file."""
    return pyarrow.parquet.read_schema(path).names


def write(path: Path, examples: Iterable[dict[str, Any]], schema: pyarrow.Schema = SCHEMA) -> int:
    """Write all rows to `path`; returns their number."""
    with Writer(path, schema) as writer:
        for example in examples:
            writer.add(example)
    return writer.rows
