"""Which row belongs to which split, and which rows a mix takes: pure functions of names, ids and groups.

Whatever is drawn is drawn by the hash of a row's group (its id where it has none), never by its place in a
file: rows of one group stay together, and adding rows to a data set does not reshuffle the others.
"""

import hashlib
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import Any

from sft.stage import StageError

SPLITS = ("train", "validation", "test")


def split_of_files(names: Sequence[str], rule: Mapping[str, Any]) -> dict[str, str | None]:
    """`{file name: split or None}` by the rule's patterns; None where no pattern matches.

    A pattern matches the whole name below the source ("data/train-*") or its last part ("train-*").
    StageError for a file that two patterns match and for a pattern that matches no file.
    """
    patterns = {split: rule[split] for split in ("train", "test") if rule.get(split)}
    validation = rule.get("validation") or {}
    if "pattern" in validation:
        patterns["validation"] = validation["pattern"]
    chosen: dict[str, str | None] = {}
    for name in names:
        matching = [
            split
            for split, pattern in patterns.items()
            if fnmatchcase(name, pattern) or fnmatchcase(PurePosixPath(name).name, pattern)
        ]
        if len(matching) > 1:
            named = " and ".join(f"{split} ({patterns[split]})" for split in matching)
            raise StageError(f"split: file {name} is in {named}; change the patterns so that one matches")
        chosen[name] = matching[0] if matching else None
    for split, pattern in patterns.items():
        if split not in chosen.values():
            raise StageError(f"split.{split}: no file matches {pattern!r}; the files are {', '.join(names)}")
    return chosen


def draw_validation(units: Sequence[str], rule: Mapping[str, Any]) -> set[str]:
    """The units (one entry per training row: its group or id) that become validation.

    {"fraction": f}: every unit whose hash is below f; a unit's side never depends on the others.
    {"rows": n}: units in the order of their hash until there are n rows; n rows exactly when units are single rows.
    """
    if "fraction" in rule:
        bound = rule["fraction"] * 2**64
        drawn = {unit for unit in units if hash64("validation", unit) < bound}
    elif "rows" in rule:
        if rule["rows"] >= len(units):
            raise StageError(
                f"split.validation.rows: {rule['rows']} of {len(units)} training rows leave none to train on"
            )
        sizes: dict[str, int] = {}
        for unit in units:
            sizes[unit] = sizes.get(unit, 0) + 1
        drawn, rows = set(), 0
        for unit in sorted(sizes, key=lambda unit: (hash64("validation", unit), unit)):
            if rows >= rule["rows"]:
                break
            drawn.add(unit)
            rows += sizes[unit]
    else:
        return set()
    if not drawn or len(drawn) == len(set(units)):
        raise StageError(
            f"split.validation {dict(rule)}: takes {'no' if not drawn else 'every'} row of {len(units)} "
            f"({len(set(units))} groups or ids). Choose another size"
        )
    return drawn


def draw_rows(ids: Sequence[str], count: int, seed: int) -> set[str]:
    """`count` of the ids: those with the smallest hash under `seed`. A larger count contains the smaller ones."""
    if count > len(ids):
        raise StageError(f"{count} rows wanted, {len(ids)} training rows there")
    return set(sorted(ids, key=lambda identifier: (hash64(f"mix-{seed}", identifier), identifier))[:count])


def hash64(purpose: str, text: str) -> int:
    """The first 64 bits of sha256 of `text`, drawn anew for each purpose."""
    return int.from_bytes(hashlib.sha256(f"{purpose}\0{text}".encode()).digest()[:8], "big")
