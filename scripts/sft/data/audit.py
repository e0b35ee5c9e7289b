"""Overlap between splits: which rows of one split are also in another, by five readings of "the same".

    id          the same id (the id before mixing, where a mix had to prefix it)
    content     the same prompt, choices, system message and picture pixels, byte for byte
    normalised  the same pictures and the same prompt after Unicode NFKC, case folding and dropping punctuation
                and white space
    picture     the same pixels in any picture, whatever the text
    group       the same group

A row of pictures is the same content only with the same pictures: one question asked about every picture of a
data set is no leak. Pixels are compared, not files, so another encoding of a picture is the same picture.
"""

import hashlib
import json
import unicodedata
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sft.data import examples, pictures
from sft.stage import StageError

KINDS = ("id", "content", "normalised", "picture", "group")
EXAMPLES_SHOWN = 5


@dataclass
class SplitKeys:
    """What the rows of one split are compared by."""

    name: str
    rows: int = 0
    pictures: int = 0
    repeated: int = 0
    contradictory: int = 0
    # {kind: {key: id of its first row}} and, for each row, (id, {kind: keys}).
    first: dict[str, dict[str, str]] = field(default_factory=lambda: {kind: {} for kind in KINDS})
    each: list[tuple[str, dict[str, list[str]]]] = field(default_factory=list)


def read_split(path: Path, name: str, pool: Executor) -> SplitKeys:
    """The keys of a split's parquet file; `pool` decodes the pictures. StageError for one that cannot be decoded."""
    keys = SplitKeys(name)
    columns = ["id", "prompt", "completion", "choices", "images", "group", "system"]
    if examples.PART.name in examples.column_names(path):
        columns.append(examples.PART.name)
    completions: dict[str, set[str]] = {}
    for batch in examples.batches(path, columns):
        rows = batch.to_pylist()
        for row, pixels in zip(rows, pool.map(lambda row: _pixels(path, row), rows), strict=True):
            of_row = row_keys(row, pixels)
            keys.rows += 1
            keys.pictures += len(pixels)
            content = of_row["content"][0]
            keys.repeated += content in keys.first["content"]
            completions.setdefault(content, set()).add(row["completion"])
            keys.each.append((row["id"], of_row))
            for kind in KINDS:
                for key in of_row[kind]:
                    keys.first[kind].setdefault(key, row["id"])
    keys.contradictory = sum(len(answers) > 1 for answers in completions.values())
    return keys


def row_keys(row: dict[str, Any], pixels: list[str]) -> dict[str, list[str]]:
    """`{kind: keys}` of one row whose pictures have the digests `pixels`; no key where there is nothing to compare."""
    part = row.get("part")
    identifier = row["id"].removeprefix(f"{part}/") if part else row["id"]
    return {
        "id": [identifier],
        "content": [_digest([row["system"], row["prompt"], row["choices"], pixels])],
        "normalised": [_digest([normalised(row["prompt"]), pixels])],
        "picture": pixels,
        "group": [] if row["group"] is None else [row["group"]],
    }


def normalised(text: str) -> str:
    """Letters and digits only (NFKC, case folded); symbols stay, so that "a < b" and "a > b" remain two questions."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(sign for sign in folded if unicodedata.category(sign)[0] not in "PZC")


def compare(first: SplitKeys, second: SplitKeys) -> dict[str, dict[str, Any]]:
    """`{kind: {"rows", "examples"}}`: how many rows of `second` are in `first`, and the ids of some (second, first)."""
    found: dict[str, dict[str, Any]] = {}
    for kind in KINDS:
        hits = []
        for identifier, keys in second.each:
            key = next((key for key in keys[kind] if key in first.first[kind]), None)
            if key is not None:
                hits.append([identifier, first.first[kind][key]])
        found[kind] = {"rows": len(hits), "examples": hits[:EXAMPLES_SHOWN]}
    return found


def report(
    train: SplitKeys,
    validation: SplitKeys,
    tests: Iterable[SplitKeys],
    maximum: int,
    validations: Iterable[SplitKeys] = (),
) -> dict[str, Any]:
    """The audit as JSON: facts of each split, the comparisons, and whether all stay at or below `maximum` rows.

    `validations`: validation rows of other data sets that settings are chosen on.
    """
    tests, validations = list(tests), list(validations)
    pairs = [(train, validation), *((train, test) for test in tests), *((validation, test) for test in tests)]
    pairs += [(train, other) for other in validations]
    compared = [
        {"first": first.name, "second": second.name, "rows": second.rows, "overlap": compare(first, second)}
        for first, second in pairs
    ]
    most = max((made["rows"] for pair in compared for made in pair["overlap"].values()), default=0)
    return {
        "maximum_overlap": maximum,
        "largest_overlap": most,
        "passed": most <= maximum,
        "splits": {
            split.name: {
                "rows": split.rows,
                "pictures": split.pictures,
                "distinct_pictures": len(split.first["picture"]),
                "groups": len(split.first["group"]),
                "repeated_rows": split.repeated,
                "contradictory_contents": split.contradictory,
            }
            for split in (train, validation, *tests, *validations)
        },
        "pairs": compared,
    }


def complaint(made: dict[str, Any]) -> str:
    """One line for each overlap above the threshold: both splits, the kind, the count, ids."""
    lines = []
    for pair in made["pairs"]:
        for kind, overlap in pair["overlap"].items():
            if overlap["rows"] > made["maximum_overlap"]:
                ids = ", ".join(here if here == there else f"{here} = {there}" for here, there in overlap["examples"])
                more = ", …" if overlap["rows"] > len(overlap["examples"]) else ""
                share = f"{overlap['rows']} of {pair['rows']} rows"
                lines.append(f"{pair['second']} in {pair['first']} by {kind}: {share} ({ids}{more})")
    return "\n  ".join(lines)


def label_facts(made: dict[str, Any]) -> Counter[str]:
    """Rows that are repeated or contradictory inside a split, summed by kind."""
    counts: Counter[str] = Counter()
    for split in made["splits"].values():
        counts["repeated"] += split["repeated_rows"]
        counts["contradictory"] += split["contradictory_contents"]
    return counts


def _pixels(path: Path, row: dict[str, Any]) -> list[str]:
    try:
        return [pictures.pixel_digest(image) for image in row["images"]]
    except ValueError as error:
        raise StageError(f"{path}, id {row['id']}: {error}. Mend the picture in the source") from None


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, ensure_ascii=True).encode()).hexdigest()
