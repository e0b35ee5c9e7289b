"""The pairs of an audit as a person sees them: both texts with what they share marked, both rows' pictures small."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
from PIL import Image

from sft.data.audit import ngrams, split_keys
from sft.data.audit.overlaps import Audit, Comparison
from sft.data.read import examples, pictures, turns
from sft.data.read.benchmark_rows import Benchmark
from sft.terms.audit_rules import Rules

# So many pairs of a kind are shown side by side, and so many of a comparison.
PAIRS_OF_A_KIND, PAIRS_OF_A_COMPARISON = 5, 12
CHARACTERS_SHOWN = 900
PICTURES_SHOWN = 4
THUMBNAIL = 144  # pixels


@dataclass
class Side:
    """One row of a pair. `marked`: the text in pieces, (text, whether the other row has it too)."""

    where: str
    identifier: str
    source: str
    marked: list[tuple[str, bool]]
    thumbnails: list[str] = field(default_factory=list)  # data: addresses
    more_pictures: int = 0


@dataclass
class Pair:
    """Two rows, by what kinds they are the same (with how strongly), and whether that stops the run."""

    kinds: dict[str, float]
    stops: bool
    second: Side
    first: Side


@dataclass
class _Chosen:
    comparison: Comparison
    second: int
    first: int
    kinds: dict[str, float]
    stops: bool


def shown_pairs(made: Audit, rules: Rules) -> list[Pair]:
    """Some pairs of each comparison, the worst first; their rows are read from the splits' files again."""
    chosen = [one for comparison in made.comparisons for one in _chosen(comparison, rules)]
    wanted: dict[str, set[int]] = {}
    for one in chosen:
        wanted.setdefault(one.comparison.second.name, set()).add(one.second)
        wanted.setdefault(one.comparison.first.name, set()).add(one.first)
    rows = {name: rows_of(made.of(name), some) for name, some in wanted.items()}
    pairs = []
    for one in chosen:
        second, first = rows[one.comparison.second.name][one.second], rows[one.comparison.first.name][one.first]
        texts = _text(second), _text(first)
        shortest = min(len(ngrams.words(text)) for text in texts)
        # Short questions have no run of 13 words; where they are the same, shorter runs show it.
        same = not {"content", "normalised"}.isdisjoint(one.kinds)
        size = max(1, min(rules.ngram_size, shortest // 2)) if same else rules.ngram_size
        # Rows that share no more than a picture, an id or a group may have the form of their questions in common.
        marks = same or "ngram" in one.kinds or "meaning" in one.kinds
        both: list[tuple[split_keys.SplitKeys | Benchmark, dict[str, Any], str, str]] = [
            (one.comparison.second, second, texts[0], texts[1]),
            (one.comparison.first, first, texts[1], texts[0]),
        ]
        sides = [
            _side(split, row, _marked(here, ngrams.shared_spans(here, there, size) if marks else []))
            for split, row, here, there in both
        ]
        pairs.append(Pair(one.kinds, one.stops, *sides))
    return pairs


def rows_of(
    split: split_keys.SplitKeys | Benchmark, numbers: Sequence[int] | set[int], columns: list[str] | None = None
) -> dict[int, dict[str, Any]]:
    """`{row number: row}` of some rows of a split or benchmark; only the row groups that hold them are read."""
    if not isinstance(split, Benchmark):
        return read_rows(split.path, numbers, columns)
    return split.rows_at(sorted(numbers)) if numbers else {}


def read_rows(path: Path, numbers: Sequence[int] | set[int], columns: list[str] | None = None) -> dict[int, dict]:
    """`{row number: row}` of a parquet file."""
    found: dict[int, dict[str, Any]] = {}
    waiting, first = sorted(numbers), 0
    with pyarrow.parquet.ParquetFile(path) as file:
        for group in range(file.metadata.num_row_groups):
            last = first + file.metadata.row_group(group).num_rows
            inside = [number for number in waiting if first <= number < last]
            start = first
            for batch in file.iter_batches(examples.ROWS_PER_BATCH, [group], columns) if inside else ():
                here = [number for number in inside if start <= number < start + batch.num_rows]
                rows = batch.take(pyarrow.array([number - start for number in here], pyarrow.int64())).to_pylist()
                found |= dict(zip(here, rows, strict=True))
                start += batch.num_rows
            first = last
    return found


def _chosen(comparison: Comparison, rules: Rules) -> list[_Chosen]:
    """Pairs of one comparison: kinds that stop the run first, then the worst kinds, then the strongest of a kind."""
    over = {
        kind: (limit := rules.limit(kind, comparison.second.name)) is not None and len(hits) > limit
        for kind, hits in comparison.hits.items()
    }
    chosen: dict[int, _Chosen] = {}
    for kind in sorted(comparison.hits, key=lambda kind: not over[kind]):
        hits, taken = comparison.hits[kind], 0
        for at in (-hits.strength).argsort(kind="stable").tolist():
            row = int(hits.second[at])
            if row in chosen:
                continue
            if taken == PAIRS_OF_A_KIND or len(chosen) == PAIRS_OF_A_COMPARISON:
                break
            chosen[row] = _Chosen(comparison, row, int(hits.first[at]), {kind: float(hits.strength[at])}, over[kind])
            taken += 1
    for one in chosen.values():
        for kind, hits in comparison.hits.items():
            at = hits.second.searchsorted(one.second)
            if at < len(hits) and hits.second[at] == one.second and hits.first[at] == one.first:
                one.kinds.setdefault(kind, float(hits.strength[at]))
                one.stops |= over[kind]
    return sorted(chosen.values(), key=lambda one: not one.stops)


def _text(row: dict[str, Any]) -> str:
    if row.get("messages") or row.get("system") is not None or row["prompt"] is None:
        return turns.written_text(row)
    return "\n".join(text for text in (row["prompt"], row["completion"]) if text)


def _marked(text: str, spans: list[tuple[int, int]]) -> list[tuple[str, bool]]:
    """The text in pieces; of a long one the part around the first mark, with an ellipsis where it is cut."""
    start = max(0, spans[0][0] - 120) if spans and spans[0][1] > CHARACTERS_SHOWN else 0
    end = min(len(text), start + CHARACTERS_SHOWN)
    pieces, at = [("… ", False)] if start else [], start
    for left, right in spans:
        left, right = max(left, at), min(right, end)
        if left < right:
            pieces += [(text[at:left], False), (text[left:right], True)]
            at = right
    pieces += [(text[at:end], False), (" …", False)] if end < len(text) else [(text[at:end], False)]
    return [piece for piece in pieces if piece[0]]


def _side(split: split_keys.SplitKeys | Benchmark, row: dict[str, Any], marked: list[tuple[str, bool]]) -> Side:
    return Side(
        where=split.name,
        identifier=row["id"],
        source=row.get("part") or row.get("source_file") or "",
        marked=marked,
        thumbnails=[_thumbnail(image) for image in row["images"][:PICTURES_SHOWN]],
        more_pictures=max(0, len(row["images"]) - PICTURES_SHOWN),
    )


def _thumbnail(encoded: bytes) -> str:
    """A picture as a data: address, at most THUMBNAIL pixels wide and high; tiny ones keep their pixels."""
    picture = pictures.decode(encoded)
    if max(picture.size) > THUMBNAIL:
        picture.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
