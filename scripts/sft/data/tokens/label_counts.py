"""What became of the rows of a split when they were tokenised, counted: one split of labels.json."""

import heapq
from array import array
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from sft.data.split.splitting import hash64

IDS_NAMED = 20
ROWS_SHOWN = 20
IGNORED = -100


class LabelCounts:
    """Counts rows, tokens and labels; names the ids of rows that something is wrong with."""

    def __init__(self) -> None:
        self.rows = 0
        self.kept = 0
        self.tokens: Counter[int] = Counter()
        self.supervised: Counter[int] = Counter()
        self.ended = 0
        self.answers = 0
        self.ends: Counter[int] = Counter()
        self.double_bos = 0
        self.named: dict[str, list[str]] = {}
        self.counted: Counter[str] = Counter()
        # The rows with the smallest hashes, so that the same ones are shown however the rows are ordered.
        self._shown: list[tuple[int, str, array, array]] = []

    def note(self, what: str, identifier: str) -> None:
        """Count a row of which something is to be said; the first ids are kept."""
        self.counted[what] += 1
        if self.counted[what] <= IDS_NAMED:
            self.named.setdefault(what, []).append(identifier)

    def keep(self, identifier: str, ids: array, labels: array) -> None:
        """Count a row that is trained on."""
        self.kept += 1
        self.supervised[learned(labels)] += 1
        order = -hash64("shown", identifier)
        if len(self._shown) < ROWS_SHOWN:
            heapq.heappush(self._shown, (order, identifier, ids, labels))
        elif order > self._shown[0][0]:
            heapq.heapreplace(self._shown, (order, identifier, ids, labels))

    def some(self, what: str) -> str:
        """The first ids of which `what` was noted, for a message."""
        ids = self.named.get(what, [])
        return ", ".join(ids[:5]) + (", …" if self.counted[what] > 5 else "")

    def facts(self, tokenizer: Any) -> dict[str, Any]:
        """All counts as JSON. `tokenizer` reads the shown rows back."""
        noted = {f"rows_{what}": self.counted[what] for what in NOTED}
        named = {f"ids_{what}": ids for what, ids in self.named.items()}
        return {
            "rows": self.rows,
            "rows_kept": self.kept,
            **noted,
            **named,
            "rows_with_two_bos": self.double_bos,
            "tokens": sum(length * rows for length, rows in self.tokens.items()),
            "supervised_tokens": sum(count * rows for count, rows in self.supervised.items()),
            "tokens_per_row": {str(length): rows for length, rows in sorted(self.tokens.items())},
            "supervised_tokens_per_row": {str(n): rows for n, rows in sorted(self.supervised.items())},
            "end_of_turn_supervised": self.ended / self.kept if self.kept else None,
            "end_of_turn_ids": {str(number): rows for number, rows in self.ends.most_common()},
            "shown": [
                {"id": identifier, "tokens": len(ids), "segments": segments(tokenizer, ids, labels)}
                for _, identifier, ids, labels in sorted(self._shown, reverse=True)
            ],
        }


# What is noted of rows; each is a count in labels.json (rows_<what>) and, where there are any, ids (ids_<what>).
NOTED = (
    "too_long",
    "dropped",
    "truncated",
    "answer_truncated",
    "fully_masked",
    "without_end_of_turn",
    "with_control_tokens",
)


def learned(labels: array) -> int:
    """How many tokens of a row the loss counts."""
    # `count` of an array makes an object of each number first.
    return int(np.count_nonzero(np.frombuffer(labels, np.intc) != IGNORED))


def segments(tokenizer: Any, ids: Sequence[int], labels: Sequence[int]) -> list[dict[str, Any]]:
    """A row as text, cut where the mask changes: {"supervised", "text"}."""
    cut: list[tuple[bool, list[int]]] = []
    for number, label in zip(ids, labels, strict=True):
        counts = label != IGNORED
        if not cut or cut[-1][0] != counts:
            cut.append((counts, []))
        cut[-1][1].append(number)
    return [{"supervised": counts, "text": tokenizer.decode(part, skip_special_tokens=False)} for counts, part in cut]
