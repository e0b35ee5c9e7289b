"""Rows (dictionaries) to and from parquet, without pandas: importing it takes longer than most tables take to write."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet


def write_rows(rows: Sequence[Mapping[str, Any]], schema: pyarrow.Schema, path: Path) -> None:
    """Write `rows` as one parquet file of `schema`; a key that the schema lacks is a KeyError."""
    for row in rows:
        if unknown := row.keys() - set(schema.names):
            raise KeyError(f"{path.name} has no column {', '.join(sorted(unknown))}")
    _settle_pandas()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows), schema=schema), path)


def read_rows(path: Path, columns: Sequence[str]) -> list[dict[str, Any]]:
    """The rows of a parquet file, these columns only."""
    _settle_pandas()
    with pyarrow.parquet.ParquetFile(path) as file:
        return file.read(columns=list(columns)).to_pylist()


class _WithoutPandas:
    """A finder that finds no pandas, whatever is installed."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        if name == "pandas":
            raise ImportError("not looked for")


def _settle_pandas() -> None:
    """Let pyarrow look for pandas now, once, and find none unless it is imported already.

    It looks at its first conversion of Python objects, only to recognise Series, of which there are none here.
    """
    if "pandas" in sys.modules:
        return
    sys.meta_path.insert(0, _WithoutPandas)
    try:
        pyarrow.array([])
    finally:
        sys.meta_path.remove(_WithoutPandas)
