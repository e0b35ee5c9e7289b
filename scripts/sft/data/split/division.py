"""One pass over canonical rows that decides for each which split it belongs to, or why it is left out.

What is kept of a row is a few numbers (hashes and codes, about 40 bytes), whatever it holds.
"""

from array import array
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from sft.config.split_settings import Slice, Split, Validation
from sft.data.read import examples, pictures, turns
from sft.data.read.cells import Row, published_columns
from sft.data.read.rows import UnreadableRow, id_column, read_rows
from sft.data.split import row_keys
from sft.data.split.splitting import SPLITS, draw_slice, hash64, published_split, split_of_names
from sft.runtime.stage import StageError
from sft.sources.source_files import tables

# What a row's side says besides the number of its split in SPLITS.
NO_SPLIT, TOO_SHORT, TOO_LONG, DUPLICATE = -1, -2, -3, -4
REMOVED = {TOO_SHORT: "too_short", TOO_LONG: "too_long", DUPLICATE: "duplicate"}


class Division:
    """Reads `examples_file` once by the `rule` of its split; `values` gives each row's published columns, in order."""

    def __init__(
        self,
        examples_file: Path,
        rule: Split,
        values: Iterator[dict[str, Any]] | None = None,
    ):
        self.rule = rule
        self.seed = f"-{rule.seed}" if rule.seed else ""
        self.files: list[str] = []
        self.file = array("i")
        self.named: list[str] = []
        self._name = array("i")
        self._strata: dict[str, int] = {}
        self._stratum = array("i")
        self._whole = array("Q")
        self._length = array("q")
        self._units = {name: array("Q") for name in ("test", "validation")}
        self._read(examples_file, values)
        self.sides = self._divide()

    def counts(self) -> dict[str, dict[str, int]]:
        """`{what: {source file: rows}}`: rows of each split, rows in none, and rows removed for each reason."""
        names = {**dict(enumerate(SPLITS)), NO_SPLIT: "unused", **REMOVED}
        pairs = Counter(zip(self.sides.tolist(), self.file, strict=True))
        made: dict[str, dict[str, int]] = {name: {} for name in names.values()}
        for (side, file), rows in sorted(pairs.items(), key=lambda item: self.files[item[0][1]]):
            made[names[side]][self.files[file]] = rows
        return made

    def names(self) -> dict[str, str | None]:
        """`{file, published split or value of the column: split that it goes to}`."""
        what = {"file_name": "file", "published": "published split", "column": f"value of {self.rule.column}"}
        return split_of_names(sorted(self.named), self.rule, what[self.rule.by])

    def _read(self, path: Path, published: Iterator[dict[str, Any]] | None) -> None:
        rule = self.rule
        deduplicate, by_length = rule.deduplicate, self._bounds() != (None, None)
        columns = ["id", "source_file", "group"]
        columns += ["answer"] if rule.stratify_by == "answer" else []
        if by_length or deduplicate != "none":
            columns += ["prompt", "completion", "choices", "system", "messages", "tools"]
        columns += ["images"] if deduplicate != "none" else []
        files: dict[str, int] = {}
        names: dict[str, int] = {}
        of_group: dict[str, int] = {}
        slices = [name for name, given in (("test", rule.test), ("validation", rule.validation)) if _is_slice(given)]
        there = set(examples.column_names(path))
        for row in examples.rows(path, [name for name in columns if name in there]):
            extra = next(published) if published else {}
            file = row["source_file"]
            self.file.append(files.setdefault(file, len(files)))
            self._name.append(names.setdefault(self._label(file, extra), len(names)))
            unit = row["group"] if row["group"] is not None else row["id"]
            for name in slices:
                self._units[name].append(hash64(name + self.seed, unit))
            if rule.stratify_by:
                self._add_stratum(row, extra, of_group)
            if by_length:
                self._length.append(len(turns.written_text(row)))
            if deduplicate != "none":
                pixels = [pictures.pixels_digest(pictures.decode(image)) for image in row["images"]]
                self._whole.append(row_keys.whole_key(row, pixels, normal=deduplicate == "normalised"))
        self.files, self.named = list(files), list(names)

    @staticmethod
    def named_columns(rule: Split) -> list[str]:
        """The columns of the published rows that the rule reads."""
        named = [rule.column, None if rule.stratify_by == "answer" else rule.stratify_by]
        return list(dict.fromkeys(name for name in named if name))

    def _bounds(self) -> tuple[int | None, int | None]:
        return self.rule.minimum_characters, self.rule.maximum_characters

    def _label(self, file: str, extra: dict[str, Any]) -> str:
        if self.rule.by == "column":
            return str(extra[self.rule.column or ""])
        if self.rule.by == "published":
            return published_split(file) or f"none ({file})"
        return file

    def _add_stratum(self, row: dict[str, Any], extra: dict[str, Any], of_group: dict[str, int]) -> None:
        by = self.rule.stratify_by or ""
        value = row["answer"] if by == "answer" else str(extra[by])
        if by == "answer" and not value:
            raise StageError(f"split.stratify_by: row {row['id']} has no choices; name a published column instead")
        stratum = self._strata.setdefault(value, len(self._strata))
        self._stratum.append(stratum)
        if row["group"] is not None and of_group.setdefault(row["group"], stratum) != stratum:
            raise StageError(
                f"split.stratify_by: rows of group {row['group']} differ in {by}, and a group is never divided. "
                f"Remove stratify_by, or the data set's group_key"
            )

    def _divide(self) -> np.ndarray:
        """The side of each row: the number of its split in SPLITS, or one of the negative reasons."""
        place = {split: number for number, split in enumerate(SPLITS)} | {None: NO_SPLIT}
        of_name = self.names()
        sides = np.array([place[of_name[name]] for name in self.named], np.int8)[np.frombuffer(self._name, np.int32)]
        least, most = self._bounds()
        length = np.frombuffer(self._length, np.int64)
        used = sides >= 0
        if least is not None:
            sides[used & (length < least)] = TOO_SHORT
        if most is not None:
            sides[used & (length > most)] = TOO_LONG
        if len(self._whole):
            whole = np.frombuffer(self._whole, np.uint64)
            for side in range(len(SPLITS)):
                inside = np.flatnonzero(sides == side)
                first = np.unique(whole[inside], return_index=True)[1]
                again: np.ndarray = np.ones(len(inside), bool)
                again[first] = False
                sides[inside[again]] = DUPLICATE
        # Test before validation: the share of validation is one of what is left to train on.
        for split, rule in (("test", self.rule.test), ("validation", self.rule.validation)):
            if isinstance(rule, str) or not _is_slice(rule):
                continue
            source = rule.of if isinstance(rule, Validation) else "train"
            inside = np.flatnonzero(sides == place[source])
            if not len(inside):
                raise StageError(f"split.{split}: no {source} row is left that it could be taken from")
            strata = np.frombuffer(self._stratum, np.int32)[inside] if self.rule.stratify_by else None
            drawn = draw_slice(np.frombuffer(self._units[split], np.uint64)[inside], rule, split, strata)
            sides[inside[drawn]] = place[split]
        return sides


def _is_slice(rule: str | Slice | Validation) -> bool:
    return not isinstance(rule, str) and (rule.rows is not None or rule.fraction is not None)


def published_values(
    directory: Path, examples_file: Path, id_key: str | None, columns: list[str], renamed: dict[str, str]
) -> Iterator[dict[str, Any]]:
    """The values of published `columns` for each row of `examples_file`, in its order; `renamed`: see data/cells.py.

    Both are in the order of files and rows, and rows that preparation dropped are passed over. StageError where a row
    is not found again.
    """
    rows = _published_rows(directory, id_key, columns, renamed)
    for example in examples.rows(examples_file, ["id"]):
        for identifier, cells in rows:
            if identifier == example["id"]:
                for column in columns:
                    if cells[column] is None:
                        raise StageError(f"split: column {column!r} of row {identifier} is empty (null)")
                yield cells
                break
        else:
            raise StageError(
                f"split: row {example['id']} is not found again in the source, so that {', '.join(columns)} of it is "
                "not known. Rows that are made from others cannot be divided by a published column"
            )


def _published_rows(
    directory: Path, id_key: str | None, columns: list[str], renamed: dict[str, str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """(id that preparation gives the row, its cells) of every row that can be read."""
    for file in tables(directory):
        ids = id_column(directory / file, id_key)
        names = [*columns, *([ids] if ids else [])]
        places = {name: renamed[name] for name in names if name in renamed}
        for number, published in read_rows(directory / file, published_columns(names, renamed)):
            if isinstance(published, UnreadableRow):
                continue  # preparation dropped it, or there would be nothing to divide
            row = Row(published, {"id_key": ids}, places)
            identifier = row.name("id_key")
            yield f"{PurePosixPath(file).with_suffix('')}-{number:07d}" if identifier is None else identifier, row.cells
