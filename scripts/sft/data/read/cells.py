"""Cells of a published row, by the keys of the configuration, with errors that name the column."""

from collections.abc import Mapping
from typing import Any

from sft.runtime.stage import StageError


class Row:
    """One published row: `columns` says which column each key of the data set means ("prompt_key": "question").

    `renamed`: {name that keys and templates use: published column, or a.b for a field of a column}. `padded`: mappings
    in it may have null entries that its table added.
    """

    def __init__(
        self, cells: Mapping[str, Any], columns: Mapping[str, Any], renamed: Mapping[str, str], padded: bool = False
    ):
        self.cells = dict(cells)
        self.padded = padded
        self.columns = columns
        for name, place in renamed.items():
            self.cells[name] = _inside(cells, place)

    def required(self, key: str) -> Any:
        """The cell of a key; StageError where the data set names no column, ValueError where the cell is null."""
        column = self.columns.get(key)
        if not column:
            raise StageError(f"the data set has no {key}; its format needs it")
        if self.cells[column] is None:
            raise ValueError(f"column {column!r} is empty (null)")
        return self.cells[column]

    def optional(self, key: str) -> Any:
        """The cell of a key, None where the data set names no column or the cell is null."""
        column = self.columns.get(key)
        return self.cells[column] if column else None

    def text(self, key: str) -> str:
        """The cell of a key as text with something in it."""
        value = self.required(key)
        if not isinstance(value, str):
            raise ValueError(f"column {self.columns[key]!r} holds a {type(value).__name__}, not text")
        if not value.strip():
            raise ValueError(f"column {self.columns[key]!r} is empty")
        return value

    def name(self, key: str) -> str | None:
        """The cell of a key as the text of an id, group or the like: text or a whole number; None where null."""
        value = self.optional(key)
        if value is not None and not isinstance(value, (str, int)):
            raise ValueError(f"column {self.columns[key]!r} holds a {type(value).__name__}, not text")
        return None if value is None else str(value)


def published_columns(names: list[str], renamed: Mapping[str, str]) -> list[str]:
    """The published columns behind `names`, without repetition."""
    return list(dict.fromkeys(renamed[name].split(".")[0] if name in renamed else name for name in names))


def _inside(cells: Mapping[str, Any], place: str) -> Any:
    first, *rest = place.split(".")
    value = cells[first]
    for field in rest:
        if value is None:
            return None
        if not isinstance(value, Mapping) or field not in value:
            there = ", ".join(value) if isinstance(value, Mapping) else f"a {type(value).__name__}"
            raise ValueError(f"columns: {place!r} is not there; {field!r} is looked for in: {there}")
        value = value[field]
    return value
