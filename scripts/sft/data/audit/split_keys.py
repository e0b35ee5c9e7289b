"""What the rows of one split are compared by, read batch by batch into arrays: 50 bytes a row and 8 a picture."""

from array import array
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sft.data.read import examples, pictures, turns
from sft.data.split import row_keys
from sft.runtime.stage import StageError

Keys = tuple[np.ndarray, np.ndarray]
Batch = tuple[list[dict[str, Any]], int]
# Kinds that are the same when their keys are equal.
EQUAL = ("id", "content", "normalised", "picture", "group")
# A line of a turn is looked for in benchmarks when it has so many characters, or is the whole turn.
_LINE = 20


@dataclass
class SplitKeys:
    """The keys of a split's rows, by kind: (hashes uint64, row numbers int64), in the order of the rows."""

    name: str
    path: Path
    rows: int = 0
    pictures: int = 0
    repeated: int = 0
    contradictory: int = 0
    keys: dict[str, Keys] = field(default_factory=dict)
    sources: list[str] = field(default_factory=list)
    source: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))

    def distinct(self, kind: str) -> int:
        """How many different keys there are."""
        return len(np.unique(self.keys[kind][0]))

    def by_source(self, rows: np.ndarray) -> dict[str, int]:
        """How many of these rows come from each source file or part, the most first."""
        counts = np.bincount(self.source[rows], minlength=len(self.sources))
        return {self.sources[i]: int(counts[i]) for i in np.argsort(-counts, kind="stable") if counts[i]}


def read_split(
    path: Path, name: str, pool: Executor, each: Callable[[list[dict], int], None] | None = None
) -> SplitKeys:
    """The keys of a split's parquet file; `pool` decodes the pictures. StageError for one that cannot be decoded.

    `each` is called with every batch of rows and the number of its first row.
    """
    found: dict[str, tuple[array, array]] = {kind: (array("Q"), array("q")) for kind in (*EQUAL, "similar_picture")}
    sources: dict[str, int] = {}
    source, answers = array("i"), array("Q")
    split = SplitKeys(name, path)
    for rows, first in batches(path):
        shown = any(row["images"] for row in rows)
        looks = pool.map(lambda row: _seen(path, row), rows) if shown else [()] * len(rows)
        for number, (row, seen) in enumerate(zip(rows, looks, strict=True), first):
            pixels = [digest for digest, _ in seen]
            _add(found, "id", number, row_keys.hash64(row_keys.published_id(row)))
            _add(found, "content", number, row_keys.content_key(row, pixels))
            _add(found, "normalised", number, row_keys.normalised_key(row, pixels))
            if row["group"] is not None:
                _add(found, "group", number, row_keys.hash64(row["group"]))
            for digest, similar in seen:
                _add(found, "picture", number, int.from_bytes(digest[:8], "little"))
                if similar is not None:
                    _add(found, "similar_picture", number, similar)
            source.append(sources.setdefault(row.get("part") or row["source_file"], len(sources)))
            answers.append(row_keys.hash64(row["completion"]))
            split.pictures += len(seen)
        if each:
            each(rows, first)
        split.rows = first + len(rows)
    split.keys = {
        kind: (np.frombuffer(keys, np.uint64), np.frombuffer(at, np.int64)) for kind, (keys, at) in found.items()
    }
    split.sources, split.source = list(sources), np.array(source, np.int32)
    _count_inside(split, np.array(answers, np.uint64))
    return split


def batches(path: Path) -> Iterator[Batch]:
    """The rows of a split's file in batches, each with the number of its first row."""
    there = examples.column_names(path)
    columns = [name for name in (*row_keys.COLUMNS, "source_file", examples.PART.name) if name in there]
    first = 0
    for batch in examples.batches(path, columns):
        rows = batch.to_pylist()
        yield rows, first
        first += len(rows)


def said(row: dict[str, Any]) -> list[str]:
    """What a row says, one text a turn and one for each longer line of it: what a benchmark's question may equal."""
    if turns.is_text(row) or not row.get("messages"):
        texts = [text for text in (row["prompt"], row["completion"]) if text]
    else:
        texts = [turns.content_text(turn) for turn in turns.turns(row)]
    lines = [line for text in texts if "\n" in text for line in text.split("\n") if len(line) >= _LINE]
    return [text.strip() for text in (*texts, *lines)]


def _count_inside(split: SplitKeys, answers: np.ndarray) -> None:
    """Rows whose content stands in an earlier row, and contents that stand with more than one completion."""
    content = split.keys["content"][0]
    split.repeated = split.rows - len(np.unique(content))
    order = np.lexsort((answers, content))
    content, answers = content[order], answers[order]
    other_answer = (content[1:] == content[:-1]) & (answers[1:] != answers[:-1])
    split.contradictory = len(np.unique(content[1:][other_answer]))


def _add(found: dict[str, tuple[array, array]], kind: str, number: int, key: int) -> None:
    found[kind][0].append(key)
    found[kind][1].append(number)


def _seen(path: Path, row: dict[str, Any]) -> list[tuple[bytes, int | None]]:
    """(digest of the pixels, hash of what is seen) of each picture of a row; None where it is too small."""
    try:
        decoded = [pictures.decode(image) for image in row["images"]]
    except ValueError as error:
        raise StageError(f"{path}, id {row['id']}: {error}. Mend the picture in the source") from None
    return [(pictures.pixels_digest(picture), pictures.difference_hash(picture)) for picture in decoded]
