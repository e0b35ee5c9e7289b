"""Leaks: which rows of one split, or of a benchmark, are also in another split, by these readings of "the same".

    content          the same system message, question, choices and picture pixels, byte for byte
    normalised       the same pictures and the same question after Unicode NFKC, case folding and dropping punctuation
                     and white space
    ngram            a run of 13 words (audit.ngram_size) anywhere in the row, answer included; a run that stands in
                     more than 10 rows of the evaluated split itself is the form of its questions and does not count
    picture          the same pixels in any picture, whatever the text
    id               the same id (the id before mixing, where a mix had to prefix it)
    group            the same group
    similar_picture  a picture that looks alike: hashes of how it looks differ in few of their 64 bits
    meaning          nearly the same sentence embedding (only with audit.embedding)

A row of pictures is the same content only with the same pictures: one question asked about every picture of a
data set is no leak. Pixels are compared, not files, so another encoding of a picture is the same picture.
A benchmark's row is the same content when one of its texts is a whole turn, or a line of one, of a row.

Everything is counted exactly, by 64-bit hashes (sft/data/split/row_keys.py); training rows are streamed past an index
of the evaluated rows, so that memory grows with the evaluated rows and by some 100 bytes a training row.
"""

from collections import Counter
from concurrent.futures import Executor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from sft.data.audit import ngrams, split_keys
from sft.data.audit.leak_index import Hits, KeyIndex, distinct, equal_keys, near_meanings, similar_pictures
from sft.data.audit.split_keys import EQUAL, SplitKeys
from sft.data.read import turns
from sft.data.read.benchmark_rows import Benchmark
from sft.data.split import row_keys
from sft.data.split.normal_form import normalised
from sft.terms.audit_rules import KINDS, Rules

EXAMPLES_SHOWN = 5
# Past one index each: runs of words, whole texts, whole texts but for case and punctuation.
STREAMED = ("ngram", "content", "normalised")


@dataclass
class Comparison:
    """What of `second` (a split or a benchmark) was met in `first`: hits by kind; kinds that were not compared lack."""

    first: SplitKeys
    second: SplitKeys | Benchmark
    hits: dict[str, Hits]
    facts: dict[str, int] = field(default_factory=dict)


@dataclass
class Audit:
    """The splits as they were read, in order, and their comparisons."""

    splits: dict[str, SplitKeys]
    benchmarks: dict[str, Benchmark]
    comparisons: list[Comparison]

    def of(self, name: str) -> SplitKeys | Benchmark:
        """The split or benchmark of that name."""
        return self.splits.get(name) or self.benchmarks[name]


def audit(
    paths: dict[str, Path],
    benchmarks: dict[str, Benchmark],
    rules: Rules,
    pool: Executor,
    vectors: dict[str, Path] | None = None,
) -> Audit:
    """Compare: `paths` are the files of train, of validation, and of each evaluated split by its name, in this order.

    All others are looked for in train; tests and benchmarks also in validation. Names that start with `validation-` are
    validation rows of other data sets, by which settings are chosen. `vectors`: for each split of `paths` the file of
    its rows' sentence embeddings, where meanings are compared.
    """
    splits: dict[str, SplitKeys] = {}
    pairs: dict[str, dict[str, split_keys.Keys]] = {kind: {} for kind in STREAMED}
    names = [name for name in paths if name != "train"]
    for name in names:
        runs = _Runs(rules.ngram_size)
        splits[name] = split_keys.read_split(paths[name], name, pool, runs.add)
        pairs["ngram"][name] = runs.pairs()
    for name, benchmark in benchmarks.items():
        for kind, found in _benchmark_pairs(benchmark, rules).items():
            pairs[kind][name] = found
    indexes = {kind: KeyIndex(pairs[kind], rules.ngram_common if kind == "ngram" else None) for kind in STREAMED}
    met: dict[str, dict[str, np.ndarray]] = {}
    for name in ("validation", "train"):
        met[name] = {kind: index.empty() for kind, index in indexes.items()}
        past = _Past(indexes, met[name], rules, with_texts=bool(benchmarks))
        if name == "train":
            splits["train"] = split_keys.read_split(paths["train"], "train", pool, past.add)
        else:
            for rows, start in split_keys.batches(paths[name]):
                past.add(rows, start)
    tests = [name for name in names if not name.startswith("validation")]
    others = [name for name in names if name.startswith("validation-")]
    order = [("train", "validation"), *(("train", name) for name in tests), *(("validation", name) for name in tests)]
    order += [("train", name) for name in others]
    order += [(first, name) for name in benchmarks for first in ("train", "validation")]
    compared = []
    for first, second in order:
        against = splits.get(second) or benchmarks[second]
        hits = {"ngram": indexes["ngram"].hits(second, met[first]["ngram"])}
        if isinstance(against, Benchmark):
            hits |= {kind: _whole(indexes[kind].hits(second, met[first][kind])) for kind in ("content", "normalised")}
        else:
            hits |= {kind: equal_keys(splits[first].keys[kind], against.keys[kind]) for kind in EQUAL}
            looks = splits[first].keys["similar_picture"], against.keys["similar_picture"]
            hits["similar_picture"] = similar_pictures(*looks, rules.picture_distance)
        if vectors and second in vectors and rules.embedding:
            of_first, of_second = (np.load(vectors[name], mmap_mode="r") for name in (first, second))
            hits["meaning"] = near_meanings(of_first, of_second, rules.embedding["similarity"])
        facts = {
            "rows_without_ngrams": against.rows - len(np.unique(pairs["ngram"][second][1])),
            "rows_of_common_ngrams_only": indexes["ngram"].only_common[second],
        }
        compared.append(Comparison(splits[first], against, {kind: hits[kind] for kind in KINDS if kind in hits}, facts))
    return Audit({name: splits[name] for name in paths}, benchmarks, compared)


def report(made: Audit, rules: Rules, identifiers: dict[str, dict[int, str]]) -> dict[str, Any]:
    """The audit as JSON: facts of each split, the comparisons, and whether all stay within their limits.

    `identifiers`: for each split and benchmark, the ids of the rows that are named (see `named_rows`).
    """
    compared: list[dict[str, Any]] = []
    largest, over = dict.fromkeys(KINDS, 0), False
    for pair in made.comparisons:
        overlap = {}
        for kind, hits in pair.hits.items():
            limit = rules.limit(kind, pair.second.name)
            some = list(zip(hits.second.tolist(), hits.first.tolist(), strict=True))[:EXAMPLES_SHOWN]
            overlap[kind] = {
                "rows": len(hits),
                "limit": limit,
                "by_source": pair.second.by_source(hits.second),
                "found_in": pair.first.by_source(hits.first),
                "examples": [
                    [identifiers[pair.second.name][here], identifiers[pair.first.name][there]] for here, there in some
                ],
            }
            largest[kind] = max(largest[kind], len(hits))
            over |= limit is not None and len(hits) > limit
        compared.append(
            {"first": pair.first.name, "second": pair.second.name, "rows": pair.second.rows}
            | {"overlap": overlap}
            | pair.facts
        )
    stopping = [found["rows"] for pair in compared for found in pair["overlap"].values() if found["limit"] is not None]
    return {
        "maximum_overlap": rules.maximum_overlap,
        "largest_overlap": max(stopping, default=0),
        "largest_by_kind": largest,
        "passed": not over,
        "ngram_size": rules.ngram_size,
        "ngram_common": rules.ngram_common,
        "picture_distance": rules.picture_distance,
        "splits": {name: _facts(split) for name, split in made.splits.items()},
        "benchmarks": {name: {"rows": one.rows, "texts": one.texts} for name, one in made.benchmarks.items()},
        "pairs": compared,
    }


def named_rows(made: Audit) -> dict[str, list[int]]:
    """The rows of each split and benchmark that a report names as examples."""
    wanted: dict[str, set[int]] = {name: set() for name in (*made.splits, *made.benchmarks)}
    for pair in made.comparisons:
        for hits in pair.hits.values():
            wanted[pair.second.name].update(hits.second[:EXAMPLES_SHOWN].tolist())
            wanted[pair.first.name].update(hits.first[:EXAMPLES_SHOWN].tolist())
    return {name: sorted(rows) for name, rows in wanted.items()}


def complaint(made: dict[str, Any]) -> str:
    """One line for each overlap above its limit: both splits, the kind, the count, ids."""
    lines = []
    for pair in made["pairs"]:
        for kind, overlap in pair["overlap"].items():
            if overlap["limit"] is not None and overlap["rows"] > overlap["limit"]:
                ids = ", ".join(here if here == there else f"{here} = {there}" for here, there in overlap["examples"])
                more = ", …" if overlap["rows"] > len(overlap["examples"]) else ""
                share = f"{overlap['rows']} of {pair['rows']} rows"
                lines.append(f"{pair['second']} in {pair['first']} by {kind}: {share} ({ids}{more})")
    return "\n  ".join(lines)


def allowing(made: dict[str, Any], rules: Rules) -> str:
    """The settings that would let the run pass, as YAML keys."""
    needed: dict[str, int] = {}
    for pair in made["pairs"]:
        where = f"audit.benchmarks.{pair['second']}.limits" if pair["second"] in rules.benchmarks else "audit.limits"
        for kind, found in pair["overlap"].items():
            if found["limit"] is not None and found["rows"] > found["limit"]:
                needed[f"{where}.{kind}"] = max(needed.get(f"{where}.{kind}", 0), found["rows"])
    return ", ".join(f"{key}: {rows}" for key, rows in needed.items())


def label_facts(made: dict[str, Any]) -> Counter[str]:
    """Rows that are repeated or contradictory inside a split, summed by kind."""
    counts: Counter[str] = Counter()
    for split in made["splits"].values():
        counts["repeated"] += split["repeated_rows"]
        counts["contradictory"] += split["contradictory_contents"]
    return counts


def _facts(split: SplitKeys) -> dict[str, Any]:
    return {
        "rows": split.rows,
        "rows_by_source": split.by_source(np.arange(split.rows)),
        "pictures": split.pictures,
        "distinct_pictures": split.distinct("picture"),
        "groups": split.distinct("group"),
        "repeated_rows": split.repeated,
        "contradictory_contents": split.contradictory,
    }


def _whole(hits: Hits) -> Hits:
    """Whole texts are met or not: a benchmark's row with two texts, one of them met, is met."""
    return Hits(hits.second, hits.first, np.ones(len(hits)))


class _Runs:
    """Collects the n-grams of a split: each pair (n-gram, row) once."""

    def __init__(self, size: int):
        self._size = size
        self._found: list[split_keys.Keys] = [(np.zeros(0, np.uint64), np.zeros(0, np.int64))]

    def add(self, rows: list[dict[str, Any]], first: int) -> None:
        self.add_texts([turns.written_text(row) for row in rows], first)

    def add_texts(self, texts: list[str], first: int) -> None:
        keys, places = ngrams.ngrams(texts, self._size)
        self._found.append(distinct(keys, places + first))

    def pairs(self) -> split_keys.Keys:
        keys, rows = (np.concatenate(parts) for parts in zip(*self._found, strict=True))
        return keys, rows


class _Past:
    """Streams the rows of a first split past the indexes."""

    def __init__(self, indexes: dict[str, KeyIndex], met: dict[str, np.ndarray], rules: Rules, with_texts: bool):
        self._indexes, self._met, self._size, self._with_texts = indexes, met, rules.ngram_size, with_texts

    def add(self, rows: list[dict[str, Any]], first: int) -> None:
        keys, places = ngrams.ngrams([turns.written_text(row) for row in rows], self._size)
        self._indexes["ngram"].scan(keys, places + first, self._met["ngram"])
        if not self._with_texts:
            return
        texts = [(text, number) for number, row in enumerate(rows, first) for text in split_keys.said(row)]
        numbers = np.array([number for _, number in texts], np.int64)
        for kind, key in (("content", str), ("normalised", row_keys.normalised)):
            hashes = np.array([row_keys.hash64(key(text)) for text, _ in texts], np.uint64)
            self._indexes[kind].scan(hashes, numbers, self._met[kind])


def _benchmark_pairs(benchmark: Benchmark, rules: Rules) -> dict[str, split_keys.Keys]:
    """Reads a benchmark: its n-grams and whole texts, each pair (key, row) once."""
    runs = _Runs(rules.ngram_size)
    keys: dict[str, list[int]] = {"content": [], "normalised": []}
    numbers: list[int] = []
    rows = enumerate(benchmark.read())
    while some := list(islice(rows, 1000)):
        runs.add_texts(["\n".join(texts) for _, texts in some], some[0][0])
        for number, texts in some:
            for text in texts:
                numbers.append(number)
                keys["content"].append(row_keys.hash64(text.strip()))
                keys["normalised"].append(row_keys.hash64(normalised(text)))
    found = {kind: distinct(np.array(hashes, np.uint64), np.array(numbers, np.int64)) for kind, hashes in keys.items()}
    return found | {"ngram": runs.pairs()}
