"""Where the keys of one split are met in another: sorted arrays of 64-bit hashes, and nothing but arrays.

A hit is a pair of row numbers, (row of the second split, row of the first one that it is found in).
"""

from dataclasses import dataclass

import numpy as np

# Pictures are compared in blocks of so many pairs (64 MiB of distances).
_BLOCK = 2**23
# Vectors are compared in blocks of so many rows a side (64 MiB of products).
_VECTORS = 4096


@dataclass(frozen=True)
class Hits:
    """Rows of the second split (ascending, each once), the row of the first that each is found in, and how strongly.

    `strength`: the share of the row's n-grams that are found, the similarity of meanings, 1 - differing bits / 64 of
    pictures; 1 for equal keys.
    """

    second: np.ndarray
    first: np.ndarray
    strength: np.ndarray

    def __len__(self) -> int:
        return len(self.second)


def equal_keys(first: tuple[np.ndarray, np.ndarray], second: tuple[np.ndarray, np.ndarray]) -> Hits:
    """Rows of `second` with a key of `first`; each is (keys uint64, rows int64), rows ascending."""
    known, at = np.unique(first[0], return_index=True)
    place, found = _look_up(known, second[0])
    return _one_a_row(second[1][found], first[1][at[place[found]]])


def similar_pictures(
    first: tuple[np.ndarray, np.ndarray], second: tuple[np.ndarray, np.ndarray], distance: int
) -> Hits:
    """Rows of `second` with a picture whose hash differs in at most `distance` of 64 bits from one of `first`.

    Every pair of distinct hashes is compared: 10**9 pairs take some seconds.
    """
    known, at = np.unique(first[0], return_index=True)
    asked, back = np.unique(second[0], return_inverse=True)
    nearest: np.ndarray = np.zeros(len(asked), np.int64)
    differing: np.ndarray = np.full(len(asked), 65, np.int64)
    step = max(1, _BLOCK // max(len(known), 1))
    for start in range(0, len(asked) if len(known) else 0, step):
        bits = np.bitwise_count(asked[start : start + step, None] ^ known[None, :])
        nearest[start : start + step] = bits.argmin(axis=1)
        differing[start : start + step] = bits.min(axis=1)
    found = differing[back] <= distance
    hits = first[1][at[nearest[back[found]]]] if found.any() else np.zeros(0, np.int64)
    return _one_a_row(second[1][found], hits, 1 - differing[back[found]] / 64)


def near_meanings(first: np.ndarray, second: np.ndarray, similarity: float) -> Hits:
    """Rows of `second` whose vector has a product of at least `similarity` with one of `first` (rows of length 1 or 0).

    Every pair is compared, in blocks, so none is missed: 100,000 x 5,000 vectors of 384 numbers took 6 CPU seconds,
    where an approximate index of the 100,000 (faiss-cpu, HNSW with 16 links) took 49 to build and 1 to ask.
    """
    nearest: np.ndarray = np.zeros(len(second), np.int64)
    best: np.ndarray = np.full(len(second), -1.0, np.float32)
    for start in range(0, len(first), _VECTORS):
        block = np.asarray(first[start : start + _VECTORS], np.float32)
        for at in range(0, len(second), _VECTORS):
            products = np.asarray(second[at : at + _VECTORS], np.float32) @ block.T
            place = products.argmax(axis=1)
            value = products[np.arange(len(place)), place]
            better = value > best[at : at + _VECTORS]
            best[at : at + _VECTORS][better] = value[better]
            nearest[at : at + _VECTORS][better] = place[better] + start
    found = np.flatnonzero(best >= np.float32(similarity))
    return Hits(found, nearest[found], np.minimum(best[found].astype(np.float64), 1))


class KeyIndex:
    """The keys of several second splits together; the rows of a first split are streamed past it.

    `pairs`: for each second split its (keys, rows), each pair once. Keys that stand in more than `common` rows of their
    own split are left out: what a split repeats again and again is the form of its questions, not their content. How
    often the *first* split has a key does not matter, so that a leak is found however often it was copied.
    """

    def __init__(self, pairs: dict[str, tuple[np.ndarray, np.ndarray]], common: int | None = None):
        self._pairs: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        self.only_common: dict[str, int] = {}
        for name, (keys, rows) in pairs.items():
            each, back, counts = np.unique(keys, return_inverse=True, return_counts=True)
            rare = np.ones(len(each), bool) if common is None else counts <= common
            kept = rare[back]
            self._pairs[name] = keys[kept], rows[kept]
            self.only_common[name] = len(np.unique(rows)) - len(np.unique(rows[kept]))
        self._keys = np.unique(np.concatenate([np.zeros(0, np.uint64), *(keys for keys, _ in self._pairs.values())]))
        # Most keys that stream past are not in the index: one byte for each value of their first 24 bits says so.
        self._there: np.ndarray = np.zeros(2**24, bool)
        self._there[self._keys >> np.uint64(40)] = True

    def empty(self) -> np.ndarray:
        """For each key of the index the first row that has it; none yet."""
        return np.full(len(self._keys), -1, np.int64)

    def scan(self, keys: np.ndarray, rows: np.ndarray, met: np.ndarray) -> None:
        """Note in `met` (of `empty`) the first of `rows` (ascending, of the first split) that has each of `keys`."""
        perhaps = self._there[keys >> np.uint64(40)]
        keys, rows = keys[perhaps], rows[perhaps]
        place, found = _look_up(self._keys, keys)
        place, rows = place[found], rows[found]
        new = met[place] < 0
        # Backwards, so that of several rows with one key the first is written last.
        met[place[new][::-1]] = rows[new][::-1]

    def hits(self, name: str, met: np.ndarray) -> Hits:
        """Rows of the second split `name` with a key in `met`, each with the row that most of its keys are met in."""
        keys, rows = self._pairs[name]
        place, _ = _look_up(self._keys, keys)
        met_in = met[place]
        found = met_in >= 0
        every, sizes = np.unique(rows, return_counts=True)
        rows, met_in = rows[found], met_in[found]
        order = np.lexsort((met_in, rows))
        rows, met_in = rows[order], met_in[order]
        # Runs of one (row, met in): their lengths are how much the two rows share.
        starts = np.flatnonzero(np.r_[True, (rows[1:] != rows[:-1]) | (met_in[1:] != met_in[:-1])][: len(rows)])
        shared = np.diff(np.r_[starts, len(rows)])
        best = np.lexsort((-shared, rows[starts]))
        second, at = np.unique(rows[starts][best], return_index=True)
        share = np.bincount(rows, minlength=1)[second] / sizes[np.searchsorted(every, second)]
        return Hits(second, met_in[starts][best][at], share)


def distinct(keys: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The pairs (key, row), each once, by row."""
    order = np.lexsort((keys, rows))
    keys, rows = keys[order], rows[order]
    new: np.ndarray = np.ones(len(keys), bool)
    new[1:] = (keys[1:] != keys[:-1]) | (rows[1:] != rows[:-1])
    return keys[new], rows[new]


def _look_up(known: np.ndarray, asked: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(place in the sorted `known`, whether it is there) of each asked key."""
    if not len(known):
        return np.zeros(len(asked), np.int64), np.zeros(len(asked), bool)
    place = np.minimum(np.searchsorted(known, asked), len(known) - 1)
    return place, known[place] == asked


def _one_a_row(second: np.ndarray, first: np.ndarray, strength: np.ndarray | None = None) -> Hits:
    strength = np.ones(len(second)) if strength is None else strength
    order = np.lexsort((-strength, second))
    each, at = np.unique(second[order], return_index=True)
    return Hits(each, first[order][at], strength[order][at])
