"""Rows of a published table as dictionaries, a batch at a time, with errors that name the place.

| suffix | what is read |
| --- | --- |
| .parquet | pages of row groups, in batches of about 8 MiB |
| .arrow | Arrow's file and stream formats (`datasets` writes the stream, Feather is the file) |
| .jsonl | one object a line |
| .json | an array of objects, or one object a line, as the hub has them under this suffix too |
| .csv | a header and cells; all of them text |

However large the file, what is held at once is a batch of it (of parquet: a page, which writers end after 1024 rows).
"""

import csv
import difflib
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sft.runtime.stage import StageError

ROWS_PER_BATCH = 1000
BYTES_PER_BATCH = 8 * 2**20
CHARACTERS = 2**20
# A cell may be a whole document; csv's own limit is 128 KiB.
csv.field_size_limit(2**30)


# The column of ids where none is named.
USUAL_ID = "id"


class UnreadableRow(str):
    """What is wrong with a row that cannot be read, while the rows after it can."""


def read_rows(path: Path, columns: Sequence[str] | None = None) -> Iterator[tuple[int, dict[str, Any] | UnreadableRow]]:
    """(row number from 0, row) of a table; only `columns` where given, each of which must be there.

    A line that is no JSON object, a csv line with too few or too many cells and a later row of jsonl or json without
    a column that the first one has are an UnreadableRow each; a null stays None.
    """
    reader = {".parquet": _parquet, ".arrow": _arrow, ".jsonl": _jsonl, ".json": _json, ".csv": _csv}
    for number, row in enumerate(reader[path.suffix.lower()](path, columns)):
        if columns is not None and not isinstance(row, UnreadableRow):
            missing = next((column for column in columns if column not in row), None)
            if missing is not None and number == 0:
                raise StageError(f"{path.name}, row 0: " + missing_column(missing, row))
            if missing is not None:
                row = UnreadableRow(missing_column(missing, row))
        yield number, row


def id_column(path: Path, named: str | None) -> str | None:
    """The column of a table's ids: the one that is named; None where that is the usual one and there is none."""
    if named != USUAL_ID:
        return named
    first = next((row for _, row in read_rows(path)), None)
    return named if not isinstance(first, dict) or named in first else None


def missing_column(column: str, there: Iterable[str]) -> str:
    """The message for a column that is not there: the nearest name, and the columns there are."""
    names = list(there)
    near = difflib.get_close_matches(column, names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"no column {column!r}; {hint}The columns are: {', '.join(names)}. Set the data set's *_key to one of them"


def count_rows(path: Path) -> int:
    """Number of rows of a table; StageError for a file without a byte, which is no table of any kind."""
    if path.stat().st_size == 0:
        raise StageError(f"{path.name}: the file is empty (0 bytes). Fetch it again, or leave it out")
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        with parquet_file(path) as file:
            return file.metadata.num_rows
    if suffix == ".arrow":
        with arrow_batches(path) as (_, batches):
            return sum(batch.num_rows for batch in batches)
    return sum(1 for _ in read_rows(path))


def parquet_file(path: Path):
    """The opened file, to be used in `with`; StageError for what is none."""
    import pyarrow
    import pyarrow.parquet

    try:
        # So pages are read as they are decoded, and not the whole column of a row group before (measured on a group of
        # 300 MB in pages of 8 MB: 153 MiB at the peak, and 415 with the defaults of pyarrow 26).
        return pyarrow.parquet.ParquetFile(path, buffer_size=2**20, pre_buffer=False)
    except pyarrow.ArrowInvalid as error:
        raise StageError(f"{path.name}: not a parquet file ({error}). Fetch it again") from None


@contextmanager
def arrow_batches(path: Path):
    """`(schema, iterator of record batches)` of an Arrow file or stream, mapped and not read whole."""
    import pyarrow

    with pyarrow.memory_map(str(path)) as source:
        magic = source.read(6)
        source.seek(0)
        try:
            if magic == b"ARROW1":
                file = pyarrow.ipc.open_file(source)
                yield file.schema, (file.get_batch(i) for i in range(file.num_record_batches))
            else:
                stream = pyarrow.ipc.open_stream(source)
                yield stream.schema, iter(stream)
        except pyarrow.ArrowInvalid as error:
            raise StageError(f"{path.name}: not an Arrow file or stream ({error}). Fetch it again") from None


def _parquet(path: Path, columns: Sequence[str] | None) -> Iterator[dict[str, Any] | UnreadableRow]:
    with parquet_file(path) as file:
        _check(path, columns, file.schema_arrow.names)
        groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
        per_row = max((group.total_byte_size / max(group.num_rows, 1) for group in groups), default=0)
        rows = max(1, min(ROWS_PER_BATCH, int(BYTES_PER_BATCH / max(per_row, 1))))
        chosen = list(columns) if columns is not None else None
        for number, group in enumerate(groups):
            read = 0
            try:
                # Threads hold more at once.
                for batch in file.iter_batches(rows, row_groups=[number], columns=chosen, use_threads=False):
                    for row in batch.to_pylist():
                        yield row
                        read += 1
            except (OSError, ValueError) as error:  # a damaged page: what follows it in its row group cannot be found
                reason = UnreadableRow(
                    f"row group {number} of the file is damaged ({str(error).partition(chr(10))[0]})"
                )
                yield from [reason] * (group.num_rows - read)


def _arrow(path: Path, columns: Sequence[str] | None) -> Iterator[dict[str, Any]]:
    with arrow_batches(path) as (schema, batches):
        _check(path, columns, schema.names)
        for batch in batches:
            chosen = batch if columns is None else batch.select(list(columns))
            per_row = chosen.nbytes / max(chosen.num_rows, 1)
            rows = max(1, min(ROWS_PER_BATCH, int(BYTES_PER_BATCH / max(per_row, 1))))
            for first in range(0, chosen.num_rows, rows):
                yield from chosen.slice(first, rows).to_pylist()


def _check(path: Path, columns: Sequence[str] | None, there: Sequence[str]) -> None:
    for column in columns or ():
        if column not in there:
            raise StageError(f"{path.name}: " + missing_column(column, there))


def _lines(path: Path) -> Iterator[str]:
    """The lines of a text in UTF-8, decoded one by one: an error is in the line that it names."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise StageError(f"{path.name}, line {number}: not UTF-8 ({error.reason})") from None


def _pieces(path: Path, characters: int) -> Iterator[str]:
    with path.open("rb") as raw, io.TextIOWrapper(raw, encoding="utf-8-sig", newline="") as file:
        try:
            while piece := file.read(characters):
                yield piece
        except UnicodeDecodeError as error:
            raise StageError(f"{path.name}, about byte {raw.tell()}: not UTF-8 ({error.reason})") from None


def _jsonl(path: Path, columns: Sequence[str] | None) -> Iterator[dict[str, Any] | UnreadableRow]:
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line, object_pairs_hook=once)
        except (ValueError, RecursionError) as error:  # also a number of 10,000 digits, or nesting without end
            row = UnreadableRow(f"line {number} is not JSON ({error})")
        if not isinstance(row, (dict, UnreadableRow)):
            row = UnreadableRow(f"line {number} is a {type(row).__name__}, not an object")
        yield row


def _json(path: Path, columns: Sequence[str] | None) -> Iterator[dict[str, Any] | UnreadableRow]:
    first = next((text.strip()[0] for text in _pieces(path, 64) if text.strip()), "")
    if first == "[":
        yield from _array(path)
    elif first == "{":
        for number, row in enumerate(_jsonl(path, columns)):
            if isinstance(row, UnreadableRow) and number == 0:
                # The first line is no object by itself: this is one object, set over several lines.
                raise StageError(f"{path.name}: {row}; {_NO_TABLE}")
            yield row
    else:
        raise StageError(f"{path.name}: {_NO_TABLE}")


_NO_TABLE = (
    "not an array of objects, one per row, and not one object a line. If it is no table, name the tables by a pattern"
)


def _array(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of an array, decoded one by one from a window on the text."""
    pieces = _pieces(path, CHARACTERS)
    decode = json.JSONDecoder(object_pairs_hook=once).raw_decode
    window, at, before, ended = "", 0, 0, False

    def moved(wanted: int) -> bool:
        """Drop what was read from the window, and add `wanted` characters; False where there are no more."""
        nonlocal window, at, before, ended
        before += window.count("\n", 0, at)
        parts, size = [window[at:]], 0
        while size < wanted and not ended:
            part = next(pieces, None)
            ended = part is None
            parts.append(part or "")
            size += len(parts[-1])
        window, at = "".join(parts), 0
        return size > 0

    def sign() -> str:
        """The next character that is no space, without taking it; "" at the end."""
        nonlocal at
        while True:
            while at < len(window) and window[at] in " \t\r\n\ufeff":
                at += 1
            if at < len(window):
                return window[at]
            if not moved(CHARACTERS):
                return ""

    def fail(reason: str) -> StageError:
        return StageError(f"{path.name}, line {before + window.count(chr(10), 0, at) + 1}: not JSON ({reason})")

    sign()
    at += 1  # the opening bracket
    first = True
    while sign() != "]" or not first:
        if not first:
            if sign() == "]":
                break
            if sign() != ",":
                raise fail("a comma or ] expected" if sign() else "the array is not closed")
            at += 1
        if sign() != "{":
            raise StageError(f"{path.name}: {_NO_TABLE}") if sign() else fail("the array is not closed")
        while True:
            try:
                row, at = decode(window, at)
                break
            except json.JSONDecodeError as error:
                # What is there may be the beginning of an object: look again with ever more of the text.
                broken = error.pos < len(window) - 16 and not error.msg.startswith("Unterminated")
                if broken or not moved(max(CHARACTERS, len(window) - at)):
                    at = error.pos if broken else at
                    raise fail(error.msg) from None
            except (ValueError, RecursionError) as error:
                raise fail(str(error)) from None
        yield row
        first = False
    at += 1
    if sign():
        raise fail("something follows the array")


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object whose keys are there once each; ValueError for one that is there twice: which counts is unsaid."""
    made = dict(pairs)
    if len(made) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} is there twice")
    return made


def _csv(path: Path, columns: Sequence[str] | None) -> Iterator[dict[str, Any] | UnreadableRow]:
    reader = csv.DictReader(_lines(path), strict=True)
    try:
        names = reader.fieldnames or []
        _check(path, columns, names)
        for row in reader:
            # DictReader files surplus cells under None and fills missing ones with None.
            if None in row or None in row.values():
                yield UnreadableRow(f"line {reader.line_num} has not {len(names)} cells, as many as the header")
            else:
                yield row
    except csv.Error as error:
        raise StageError(f"{path.name}, line {reader.line_num}: not csv ({error})") from None
