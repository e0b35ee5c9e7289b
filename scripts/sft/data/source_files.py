"""Published files: finding them, and reading their rows as dictionaries, with errors that name the place.

Tables are parquet, jsonl, json (one array of objects) or csv (all cells are text). Pictures that rows name by
a path must lie in the source directory, so that their bytes are recorded with it.
"""

import csv
import difflib
import glob
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from sft.stage import StageError

TABLES = (".parquet", ".jsonl", ".json", ".csv")
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
DOCUMENTS = (".md", ".markdown")
ROWS_PER_BATCH = 1000


def find_files(source: str) -> dict[str, Path]:
    """`{name inside the source: absolute path}` of a file, a directory (with its pictures) or a glob of tables.

    Sorted by name. StageError when nothing is there or no table is among it.
    """
    path = Path(source)
    if path.is_dir():
        wanted = [p for p in path.rglob("*") if p.is_file() and p.suffix.lower() in TABLES + PICTURES]
        # Dot files and folders are caches (.cache/huggingface) or the leavings of an editor.
        named = {p.relative_to(path): p for p in wanted}
        files = {name.as_posix(): p for name, p in named.items() if not any(part[0] == "." for part in name.parts)}
        what = f"directory {source}"
    elif path.is_file():
        if path.suffix.lower() not in TABLES:
            raise StageError(f"source {source}: {path.suffix or 'no suffix'} is not one of {', '.join(TABLES)}")
        files, what = {path.name: path}, f"file {source}"
    else:
        matches = [Path(match) for match in glob.glob(source, recursive=True)]  # noqa: PTH207 (source may be absolute)
        base = Path(*_fixed_parts(path))
        files = {p.relative_to(base).as_posix(): p for p in matches if p.is_file() and p.suffix.lower() in TABLES}
        if not matches:
            raise StageError(
                f"source {source}: no such directory or file, and no file matches it. Check the data set's source.path"
            )
        what = f"pattern {source}"
    if not any(Path(name).suffix.lower() in TABLES for name in files):
        raise StageError(f"source: the {what} has no table ({', '.join(TABLES)})")
    return {name: files[name].absolute() for name in sorted(files)}


def find_documents(patterns: Sequence[str]) -> dict[str, Path]:
    """`{name: path}` of the Markdown documents that files and globs name, sorted.

    Names are relative to where Snakemake runs, or, for documents elsewhere, to the folder that holds them all.
    StageError for a file that is no Markdown, and for none.
    """
    matches = {match for pattern in patterns for match in glob.glob(pattern, recursive=True)}  # noqa: PTH207 (as above)
    found = sorted(path for path in map(Path, matches) if path.is_file())
    if strange := [path.as_posix() for path in found if path.suffix.lower() not in DOCUMENTS]:
        raise StageError(f"source.markdown: {', '.join(strange[:3])}: not one of {', '.join(DOCUMENTS)}")
    if not found:
        raise StageError(f"source.markdown: no document at {', '.join(patterns)}")
    elsewhere = any(path.is_absolute() or ".." in path.parts for path in found)
    root = Path(os.path.commonpath([path.absolute().parent for path in found])) if elsewhere else Path.cwd()
    return {path.absolute().relative_to(root).as_posix(): path for path in found}


def tables(directory: Path) -> list[str]:
    """Names of the tables below `directory`, sorted."""
    found = (p for p in directory.rglob("*") if p.suffix.lower() in TABLES and p.is_file())
    return sorted(p.relative_to(directory).as_posix() for p in found)


class UnreadableRow(str):
    """What is wrong with a row that cannot be read, while the rows after it can."""


def read_rows(path: Path, columns: Sequence[str] | None = None) -> Iterator[tuple[int, dict[str, Any] | UnreadableRow]]:
    """(row number from 0, row) of a table; only `columns` where given, each of which must be there.

    A line that is no JSON object, a csv line with too few or too many cells and a later row of jsonl or json without
    a column that the first one has are an UnreadableRow each; a null stays None.
    """
    reader = {".parquet": _parquet, ".jsonl": _jsonl, ".json": _json, ".csv": _csv}[path.suffix.lower()]
    for number, row in enumerate(reader(path, columns)):
        if columns is not None and not isinstance(row, UnreadableRow):
            missing = next((column for column in columns if column not in row), None)
            if missing is not None and number == 0:
                raise StageError(f"{path.name}, row 0: " + missing_column(missing, row))
            if missing is not None:
                row = UnreadableRow(missing_column(missing, row))
        yield number, row


def count_rows(path: Path) -> int:
    """Number of rows of a table."""
    if path.suffix.lower() == ".parquet":
        return _parquet_file(path).metadata.num_rows
    return sum(1 for _ in read_rows(path))


def missing_column(column: str, there: Iterable[str]) -> str:
    """The message for a column that is not there: the nearest name, and the columns there are."""
    names = list(there)
    near = difflib.get_close_matches(column, names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"no column {column!r}; {hint}The columns are: {', '.join(names)}. Set the data set's *_key to one of them"


def _fixed_parts(pattern: Path) -> list[str]:
    """The leading parts of a glob pattern that hold no wildcard."""
    fixed = []
    for part in pattern.parts[:-1]:
        if any(sign in part for sign in "*?["):
            break
        fixed.append(part)
    return fixed


def _parquet_file(path: Path):
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.ParquetFile(path)
    except pyarrow.ArrowInvalid as error:
        raise StageError(f"{path.name}: not a parquet file ({error}). Fetch it again") from None


def _parquet(path: Path, columns: Sequence[str] | None) -> Iterator[dict[str, Any]]:
    with _parquet_file(path) as file:
        names = file.schema_arrow.names
        for column in columns or ():
            if column not in names:
                raise StageError(f"{path.name}: " + missing_column(column, names))
        for batch in file.iter_batches(ROWS_PER_BATCH, columns=list(columns) if columns is not None else None):
            yield from batch.to_pylist()


def _jsonl(path: Path, columns: Sequence[str] | None) -> Iterator[dict[str, Any] | UnreadableRow]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                row = UnreadableRow(f"line {number} is not JSON ({error})")
            if not isinstance(row, (dict, UnreadableRow)):
                row = UnreadableRow(f"line {number} is a {type(row).__name__}, not an object")
            yield row


def _json(path: Path, columns: Sequence[str] | None) -> Iterator[dict[str, Any]]:
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        hint = ". One object a line is jsonl: rename the file" if error.msg == "Extra data" else ""
        raise StageError(f"{path.name}: not JSON ({error}){hint}") from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise StageError(
            f"{path.name}: not an array of objects, one per row. If it is no table, name the tables by a pattern"
        )
    yield from rows


def _csv(path: Path, columns: Sequence[str] | None) -> Iterator[dict[str, Any] | UnreadableRow]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        for column in columns or ():
            if column not in (reader.fieldnames or []):
                raise StageError(f"{path.name}: " + missing_column(column, reader.fieldnames or []))
        try:
            for row in reader:
                # DictReader files surplus cells under None and fills missing ones with None.
                if None in row or None in row.values():
                    cells = len(reader.fieldnames or [])
                    row = UnreadableRow(f"line {reader.line_num} has not {cells} cells, as many as the header")
                yield row
        except csv.Error as error:
            raise StageError(f"{path.name}, line {reader.line_num}: not csv ({error})") from None
