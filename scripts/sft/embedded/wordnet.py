"""WordNet's nouns as a classification task: name the category of a noun from its gloss (12 supersenses).

From `data.noun` and `index.sense` of WordNet 3.1 (Princeton University; its licence allows any use with the notice
kept). The categories are WordNet's own lexicographer files. Rows that share a lemma or a gloss stay in one split, so no
word of the test set was seen in training.
"""

import hashlib
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

LICENCE = "WordNet 3.1 licence (Princeton University): any use, with the notice kept"
# Lexicographer file numbers of nouns (WordNet 3.1, lexnames(5WN)).
CLASSES = {
    4: "act",
    5: "animal",
    6: "artifact",
    8: "body",
    10: "communication",
    12: "feeling",
    13: "food",
    15: "location",
    18: "person",
    20: "plant",
    27: "substance",
    28: "time",
}
TEST_PER_CLASS, VALIDATION_PER_CLASS, TRAIN_PER_CLASS = 40, 20, 160
FEWEST_WORDS, MOST_WORDS = 2, 14
NOUN = "1"


def rows_by_split(data_noun: Path, index_sense: Path) -> dict[str, list[dict[str, Any]]]:
    """`{train, validation, test: rows}`; a row has id, question (`lemma: gloss`), label, choices, group.

    Which row goes where follows from hashes of ids: no random numbers, no order of files.
    """
    used = _counts(index_sense)
    synsets = [synset for synset in _synsets(data_noun) if used.get(synset["offset"], 0) or synset["label"] in _RARE]
    groups = _groups(synsets)
    by_class: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for synset, group in zip(synsets, groups, strict=True):
        by_class[synset["label"]].append({**synset, "group": group})
    splits: dict[str, list[dict[str, Any]]] = {"test": [], "validation": [], "train": []}
    home: dict[str, str] = {}  # group -> the split it belongs to, over all classes
    sizes = {"test": TEST_PER_CLASS, "validation": VALIDATION_PER_CLASS, "train": TRAIN_PER_CLASS}
    for split, size in sizes.items():
        for label in sorted(by_class):
            taken: set[str] = set()
            chosen: list[dict[str, Any]] = []
            for row in sorted(by_class[label], key=lambda row: _hash(row["offset"])):
                free = home.get(row["group"], split) == split and (split == "train" or row["group"] not in taken)
                if free and len(chosen) < size:
                    taken.add(row["group"])
                    chosen.append(row)
            home |= {row["group"]: split for row in chosen}
            splits[split] += chosen
    return {
        split: [_row(row) for row in sorted(rows, key=lambda row: _hash(row["offset"]))]
        for split, rows in splits.items()
    }


_RARE = ("food", "plant")  # too few of these are in the tagged corpus, so their untagged synsets count as well


def _row(synset: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": f"n{synset['offset']}",
        "question": f"{synset['lemmas'][0]}: {synset['gloss']}",
        "label": synset["label"],
        "choices": list(CLASSES.values()),
        "group": synset["group"],
    }


def _synsets(data_noun: Path) -> list[dict[str, Any]]:
    """Offset, label, lemmas and short gloss of the synsets in `CLASSES` (wndb(5WN) has the format)."""
    found = []
    for line in data_noun.read_text(encoding="utf-8").splitlines():
        if line.startswith("  "):
            continue  # the licence
        fields, _, gloss = line.partition(" | ")
        parts = fields.split()
        label = CLASSES.get(int(parts[1]))
        # The first definition; examples follow behind a semicolon, a usage note may stand before it.
        short = re.sub(r"^\([^)]*\)\s*", "", gloss.partition(";")[0].strip())
        if label is None or not FEWEST_WORDS <= len(short.split()) <= MOST_WORDS:
            continue
        count = int(parts[3], 16)
        lemmas = [parts[4 + 2 * i].replace("_", " ") for i in range(count)]
        found.append({"offset": parts[0], "label": label, "lemmas": lemmas, "gloss": short})
    return found


def _counts(index_sense: Path) -> dict[str, int]:
    """How often each noun synset was tagged in the semantic concordances (senseidx(5WN), last column)."""
    counts: dict[str, int] = defaultdict(int)
    for line in index_sense.read_text(encoding="utf-8").splitlines():
        key, offset, _, count = line.split()
        if key.split("%")[1][0] == NOUN:
            counts[offset] += int(count)
    return counts


def _groups(synsets: list[dict[str, Any]]) -> list[str]:
    """For each synset the name of its group: those linked by a shared lemma or an equal gloss."""
    from scipy.cluster.hierarchy import DisjointSet

    groups = DisjointSet(range(len(synsets)))
    first: dict[str, int] = {}
    for i, synset in enumerate(synsets):
        for key in [*(f"lemma {lemma.lower()}" for lemma in synset["lemmas"]), f"gloss {synset['gloss'].lower()}"]:
            groups.merge(first.setdefault(key, i), i)
    smallest: dict[int, str] = {}
    for i, synset in enumerate(synsets):
        smallest[groups[i]] = min(smallest.get(groups[i], synset["offset"]), synset["offset"])
    return [f"g{smallest[groups[i]]}" for i in range(len(synsets))]


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
