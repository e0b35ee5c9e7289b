"""Columns of published tables: what there is, and whether the tables of a source belong together.

A repository may publish tables of several kinds side by side (documents, an index of them, a manifest). Read as one
data set, rows of all of them would be rows; so tables have to have the same columns, or their names have to be given.
"""

from collections.abc import Mapping
from itertools import islice
from os.path import commonprefix
from pathlib import Path
from typing import Any

from sft.data.read.rows import UnreadableRow, arrow_batches, parquet_file, read_rows
from sft.runtime.stage import StageError

# Objects of JSON may leave keys out: so many rows are looked at to learn which there are.
ROWS_SEEN = 100
OPEN = (".json", ".jsonl")


def columns(path: Path) -> dict[str, str]:
    """`{column: type in words}` of a table; of JSON, those of its first rows, their types not looked at."""
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        with parquet_file(path) as file:
            return {field.name: _type(field.type) for field in file.schema_arrow}
    if suffix == ".arrow":
        with arrow_batches(path) as (schema, _):
            return {field.name: _type(field.type) for field in schema}
    rows = (row for _, row in read_rows(path) if not isinstance(row, UnreadableRow))
    return dict.fromkeys((name for row in islice(rows, ROWS_SEEN) for name in row), "any")


def check_same_columns(what: str, tables: Mapping[str, Path], rows: Mapping[str, int]) -> None:
    """StageError naming two tables of `{name: path}` that differ, how, and the `files:` that would part them.

    `rows` are those of each table; the line to add names the tables of the kind that has most.
    """
    known = {name: columns(path) for name, path in tables.items() if rows[name]}
    for first, one in known.items():
        for second, other in known.items():
            found = _difference(first, one, second, other)
            if found:
                kind = _largest_kind(known, rows)
                raise StageError(
                    f"source {what}: {first} and {second} do not have the same columns ({found}). If they do not "
                    f"belong together, name those that do: files: [{_pattern(kind, list(tables))}]"
                )
        break  # all are compared with the first one


def _difference(first: str, one: dict[str, str], second: str, other: dict[str, str]) -> str:
    """How the columns of two tables differ, in words; nothing where they can be read as one."""
    missing, more = [n for n in one if n not in other], [n for n in other if n not in one]
    # A key that JSON leaves out is no other kind of row, unless each side has keys of its own.
    if Path(first).suffix.lower() in OPEN or Path(second).suffix.lower() in OPEN:
        differs = bool(missing and more)
    else:
        differs = bool(missing or more)
    words = [f"{_few(missing)} only in {first}"] if missing and differs else []
    words += [f"{_few(more)} only in {second}"] if more and differs else []
    words += [
        f"{name} is {kind} in {first}, {other[name]} in {second}"
        for name, kind in one.items()
        if name in other and kind != other[name] and not {"any", "null"} & {kind, other[name]}
    ]
    return "; ".join(words)


def _largest_kind(known: Mapping[str, dict[str, str]], rows: Mapping[str, int]) -> list[str]:
    kinds: dict[tuple[str, ...], list[str]] = {}
    for name, there in known.items():
        kinds.setdefault(tuple(sorted(there)), []).append(name)
    return max(kinds.values(), key=lambda names: sum(rows[name] for name in names))


def _pattern(chosen: list[str], every: list[str]) -> str:
    """Names, or one pattern for several that matches no other."""
    if len(chosen) > 1:
        begin, end = commonprefix(chosen), Path(chosen[0]).suffix  # noqa: RUF071 (characters, not folders)
        others = [name for name in every if name not in chosen]
        if begin and not any(name.startswith(begin) and name.endswith(end) for name in others):
            return f'"{begin}*{end}"'
    return ", ".join(f'"{name}"' for name in chosen[:5])


def _few(names: list[str]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")


def _type(kind: Any) -> str:
    """An Arrow type in words, the same for all that Python reads as the same."""
    from pyarrow import types

    if types.is_dictionary(kind):
        return _type(kind.value_type)
    words = {
        "null": types.is_null,
        "text": lambda k: types.is_string(k) or types.is_large_string(k),
        "bytes": lambda k: types.is_binary(k) or types.is_large_binary(k),
        "whole number": types.is_integer,
        "number": types.is_floating,
    }
    if named := next((word for word, fits in words.items() if fits(kind)), None):
        return named
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return f"list of {_type(kind.value_type)}"
    if types.is_struct(kind):
        return "{" + ", ".join(sorted(field.name for field in kind)) + "}"
    return str(kind)
