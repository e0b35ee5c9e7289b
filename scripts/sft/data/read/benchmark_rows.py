"""A published benchmark whose questions must not be in training: the texts of named columns of its files."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sft.data.read.rows import UnreadableRow, read_rows
from sft.runtime.stage import StageError
from sft.sources.source_files import tables


class Benchmark:
    """The tables below `directory`; `text_keys` are the columns of questions. Rows are counted as they are read."""

    def __init__(self, name: str, directory: Path, text_keys: Sequence[str]):
        self.name = name
        self.directory = directory
        self.text_keys = list(text_keys)
        self.rows = 0
        self.texts = 0
        self._first_rows: dict[str, int] = {}

    def read(self) -> Iterator[list[str]]:
        """The texts of each row, those that are not empty. StageError for a cell that is no text."""
        self.rows, self.texts, self._first_rows = 0, 0, {}
        for name in tables(self.directory):
            self._first_rows[name] = self.rows
            for number, row in read_rows(self.directory / name, self.text_keys):
                texts = self._texts(name, number, row)
                yield texts
                self.rows += 1
                self.texts += len(texts)
        if not self.rows:
            raise StageError(f"audit.benchmarks.{self.name}: {self.directory} has no row")

    def by_source(self, rows: np.ndarray) -> dict[str, int]:
        """How many of these rows come from each file, the most first."""
        names, starts = list(self._first_rows), list(self._first_rows.values())
        counts = np.bincount(np.searchsorted(starts, rows, side="right") - 1, minlength=len(names))
        return {names[i]: int(counts[i]) for i in np.argsort(-counts, kind="stable") if counts[i]}

    def rows_at(self, numbers: Sequence[int]) -> dict[int, dict[str, Any]]:
        """`{row: {"id", "prompt", "completion", "images"}}` of some rows, as they are shown."""
        wanted, found, name = set(numbers), {}, ""
        for place, texts in enumerate(self.read()):
            if place in wanted:
                begun = [one for one in self._first_rows if self._first_rows[one] <= place]
                name = max(begun, key=self._first_rows.__getitem__)
                identifier = f"{name}, row {place - self._first_rows[name]}"
                found[place] = {"id": identifier, "prompt": "\n".join(texts), "completion": "", "images": []}
        return found

    def _texts(self, name: str, number: int, row: dict[str, Any] | UnreadableRow) -> list[str]:
        if isinstance(row, UnreadableRow):
            raise StageError(f"audit.benchmarks.{self.name}: {name}, row {number}: {row}")
        texts = [row[key] for key in self.text_keys]
        for key, text in zip(self.text_keys, texts, strict=True):
            if text is not None and not isinstance(text, str):
                raise StageError(
                    f"audit.benchmarks.{self.name}: {name}, row {number}: column {key!r} holds a "
                    f"{type(text).__name__}, not text. Name the columns of questions with text_keys"
                )
        return [text for text in texts if text and text.strip()]
