"""Which row belongs to which split, and which rows a mix takes: pure functions of names and hashes.

Whatever is drawn is drawn by the hash of a row's group (its id where it has none), never by its place in a
file: rows of one group stay together, and adding rows to a data set does not reshuffle the others. Rows are known
here by that hash alone (8 bytes a row), so that a million of them are divided in little memory.
"""

import hashlib
import math
import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import Literal

import numpy as np

from sft.config.fields import key_fields
from sft.config.split_settings import Slice, Split, Validation
from sft.runtime.stage import StageError

SPLITS = ("train", "validation", "test")
# Names of splits as the Hub reads them from names of files and folders: https://huggingface.co/docs/hub/datasets-file-names-and-splits
_SHARD = re.compile(r"(?P<split>\w+(?:\.\w+)*)-\d{5}-of-\d{5}")
_KEYWORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}


def patterns_of(rule: Split) -> dict[str, str]:
    """The patterns that a split's rule gives: `{split: pattern}` for those that are not slices of train."""
    given = {"train": rule.train, "test": rule.test, "validation": rule.validation.pattern}
    return {split: pattern for split, pattern in given.items() if isinstance(pattern, str)}


def split_of_names(names: Sequence[str], rule: Split, what: str = "file") -> dict[str, str | None]:
    """`{name: split or None}` by the rule's patterns; None where no pattern matches.

    A pattern matches the whole name below the source ("data/train-*") or its last part ("train-*").
    StageError for a name that two patterns match and for a pattern that matches none.
    """
    patterns = patterns_of(rule)
    chosen: dict[str, str | None] = {}
    for name in names:
        matching = [
            split
            for split, pattern in patterns.items()
            if fnmatchcase(name, pattern) or fnmatchcase(PurePosixPath(name).name, pattern)
        ]
        if len(matching) > 1:
            named = " and ".join(f"{split} ({patterns[split]})" for split in matching)
            raise StageError(f"split: {what} {name} is in {named}; change the patterns so that one matches")
        chosen[name] = matching[0] if matching else None
    for split, pattern in patterns.items():
        if split not in chosen.values():
            raise StageError(f"split.{split}: no {what} matches {pattern!r}; the {what}s are {', '.join(names)}")
    return chosen


def published_split(name: str) -> str | None:
    """The split that a file's name publishes: train of data/train-00000-of-00005.parquet, train.jsonl, train/0.csv.

    The name before -00000-of-00005 is a split's name, whatever it is; otherwise a word of the file's name, or of the
    nearest folder that has one, that means train, validation or test. None where there is none; StageError for two.
    """
    path = PurePosixPath(name)
    if shard := _SHARD.fullmatch(path.stem):
        return shard["split"]
    for part in (path.stem, *(folder.name for folder in path.parents)):
        words = re.split(r"[\W_]+", part.lower())
        found = [split for split, keywords in _KEYWORDS.items() if any(word in keywords for word in words)]
        if len(found) > 1:
            raise StageError(f"split: file {name} names {' and '.join(found)}; write by: file_name and patterns")
        if found:
            return found[0]
    return None


def draw_slice(hashes: np.ndarray, rule: Slice | Validation, name: str, strata: np.ndarray | None = None) -> np.ndarray:
    """Which of the rows a slice takes (a mask), by `hashes` (uint64 per row: `hash64` of its group or id).

    {"fraction": f}: every unit whose hash is below f; a unit's side never depends on the others.
    {"rows": n}: units in the order of their hash until there are n rows; n rows exactly when units are single rows.
    With `strata` (a whole number per row) each stratum gives its share, to the nearest row or group.
    """
    total, units = len(hashes), len(np.unique(hashes))
    left = "test" if isinstance(rule, Validation) and rule.of == "test" else "training"
    if rule.rows is not None and rule.rows >= total:
        raise StageError(f"split.{name}.rows: {rule.rows} of {total} {left} rows leave none")
    if strata is not None:
        drawn = _stratified(hashes, rule, strata)
    elif rule.fraction is not None:
        drawn = hashes < _bound(rule.fraction)
    else:
        assert rule.rows is not None, "one of the two is given (Slice, Validation)"
        drawn = _lowest(hashes, rule.rows)
    if not drawn.any() or drawn.all():
        raise StageError(
            f"split.{name} {key_fields(rule)}: takes {'every' if drawn.any() else 'no'} row of {total} "
            f"({units} groups or ids). Choose another size"
        )
    return drawn


def draw_rows(hashes: np.ndarray, amount: Literal["all"] | int | float, what: str = "training rows") -> np.ndarray:
    """Which of the rows a mix takes (a mask): "all", a count (those with the smallest hash), or a share below 1.

    A larger count or share contains the smaller ones. StageError when there are not so many.
    """
    if amount == "all":
        return np.ones(len(hashes), bool)
    if isinstance(amount, float):
        return hashes < _bound(amount)
    if amount > len(hashes):
        raise StageError(f"{amount} rows wanted, {len(hashes)} {what} there")
    drawn: np.ndarray = np.zeros(len(hashes), bool)
    drawn[np.argsort(hashes, kind="stable")[:amount]] = True
    return drawn


def rows_by_weight(weights: Sequence[float], rows: int) -> list[int]:
    """`rows` divided in proportion to `weights`: whole numbers that add up, the largest remainders rounded up."""
    exact = [rows * weight / sum(weights) for weight in weights]
    counts = [int(share) for share in exact]
    order = sorted(range(len(weights)), key=lambda i: (counts[i] - exact[i], i))
    for i in order[: rows - sum(counts)]:
        counts[i] += 1
    return counts


def hash64(purpose: str, text: str) -> int:
    """The first 64 bits of sha256 of `text`, drawn anew for each purpose."""
    return int.from_bytes(hashlib.sha256(f"{purpose}\0{text}".encode()).digest()[:8], "big")


def _bound(fraction: float) -> np.uint64:
    """The hash below which `fraction` (less than 1) of all hashes lie."""
    return np.uint64(math.ceil(fraction * 2**64))


def _lowest(hashes: np.ndarray, rows: int) -> np.ndarray:
    """The units of the smallest hashes, until they have `rows` rows."""
    if rows <= 0:
        return np.zeros(len(hashes), bool)
    units, sizes = np.unique(hashes, return_counts=True)
    last = min(int(np.searchsorted(np.cumsum(sizes), rows)), len(units) - 1)
    return hashes <= units[last]


def _stratified(hashes: np.ndarray, rule: Slice | Validation, strata: np.ndarray) -> np.ndarray:
    kinds, sizes = np.unique(strata, return_counts=True)
    if rule.rows is not None:
        wanted = rows_by_weight(sizes.tolist(), rule.rows)
    else:
        wanted = [round((rule.fraction or 0) * size) for size in sizes.tolist()]
    drawn: np.ndarray = np.zeros(len(hashes), bool)
    for kind, rows in zip(kinds, wanted, strict=True):
        inside = np.flatnonzero(strata == kind)
        drawn[inside] = _lowest(hashes[inside], rows)
    return drawn
