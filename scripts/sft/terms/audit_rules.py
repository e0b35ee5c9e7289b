"""What an audit compares, and how many rows of each kind stop a run: shared by configuration and script, so no more
than plain values."""

from dataclasses import dataclass, field
from typing import Any

# The worst first; what each says is in sft/data/audit/overlaps.py.
KINDS = ("content", "normalised", "ngram", "picture", "id", "group", "similar_picture", "meaning")
# Kinds that stop a run above audit.maximum_overlap unless audit.limits says otherwise. The others are reported.
STOPPING = ("id", "content", "normalised", "picture", "group")
# Kinds of which no row of a benchmark may be met in training, unless its own limits say otherwise.
STOPPING_BENCHMARKS = ("content", "normalised", "ngram", "picture", "id", "group")
NGRAM_SIZE, NGRAM_COMMON, PICTURE_DISTANCE = 13, 10, 4
REPORT = "report"


@dataclass(frozen=True)
class Rules:
    """The settings of an audit. `limits`: `{kind: rows, or "report"}` where the defaults are not wanted."""

    maximum_overlap: int = 0
    limits: dict[str, Any] = field(default_factory=dict)
    ngram_size: int = NGRAM_SIZE
    ngram_common: int = NGRAM_COMMON
    picture_distance: int = PICTURE_DISTANCE
    benchmarks: dict[str, dict[str, Any]] = field(default_factory=dict)
    embedding: dict[str, Any] | None = None

    def limit(self, kind: str, second: str) -> int | None:
        """How many rows of the split or benchmark `second` may be met by `kind`; None where it is only reported."""
        benchmark = self.benchmarks.get(second)
        given = (self.limits if benchmark is None else benchmark.get("limits") or {}).get(kind)
        if given is not None:
            return None if given == REPORT else given
        if benchmark is not None:
            return 0 if kind in STOPPING_BENCHMARKS else None
        return self.maximum_overlap if kind in STOPPING else None
