"""The label audit as one page that a person reads: verdict, counts, histograms, and rows with their mask in colour."""

import itertools
import math
import re
from collections.abc import Mapping
from typing import Any

from sft.data.audit.page import render

WORDS = {
    "rows": "rows prepared",
    "rows_kept": "rows trained on",
    "rows_dropped": "dropped as too long",
    "rows_truncated": "rows cut at max_length",
    "rows_answer_truncated": "answers cut at max_length",
    "rows_fully_masked": "left out: nothing to learn",
    "rows_without_end_of_turn": "without a learned end of turn",
    "rows_with_control_tokens": "with control tokens in their text",
    "rows_with_two_bos": "with two beginnings of text",
    "tokens": "tokens",
    "supervised_tokens": "learned tokens",
}
CAPTIONS = {"tokens_per_row": "tokens in a row", "supervised_tokens_per_row": "learned tokens in a row"}
BARS = 24
_RUN = re.compile(r"(<[^<>]{2,30}>)\1{3,}")


def page(title: str, labels: Mapping[str, Any], found: list[dict[str, Any]], tests: Mapping[str, Any]) -> str:
    """HTML of labels.json, of `label_audit.judged`, and of the control tokens found in test splits."""
    splits = labels["splits"]
    always = ("rows", "rows_kept", "tokens", "supervised_tokens")
    thresholds: dict[str, list[dict[str, Any]]] = {}
    for row in found:
        thresholds.setdefault(row["threshold"], []).append(row)
    return render(
        "label_page.html.jinja",
        title=title,
        passed=all(row["passed"] for row in found) and not any(test["refused"] for test in tests.values()),
        splits=splits,
        counts={
            key: words for key, words in WORDS.items() if key in always or any(facts[key] for facts in splits.values())
        },
        ids=labels["special_token_ids"],
        ends=sorted({end for facts in splits.values() for end in facts["end_of_turn_ids"]}, key=int),
        added_by_the_template=labels["added_by_the_template"],
        tests=tests,
        judged=list(dict.fromkeys(row["split"] for row in found)),
        thresholds=thresholds,
        captions=CAPTIONS,
        histogram=_histogram,
        shortened=_shortened,
    )


def _histogram(counts: Mapping[str, int]) -> dict[str, Any]:
    """Bars (from, to, rows) of {tokens: rows}, with their highest, and the range and the median of the tokens."""
    values = sorted((int(value), rows) for value, rows in counts.items())
    low, high, total = values[0][0], values[-1][0], sum(counts.values())
    step = math.ceil((high - low + 1) / BARS)
    bars = [0] * ((high - low) // step + 1)
    for value, rows in values:
        bars[(value - low) // step] += rows
    seen = itertools.accumulate(rows for _, rows in values)
    return {
        "bars": [(low + i * step, low + (i + 1) * step - 1, rows) for i, rows in enumerate(bars)],
        "highest": max(bars),
        "low": low,
        "high": high,
        "median": next(value for (value, _), rows in zip(values, seen, strict=True) if 2 * rows >= total),
    }


def _shortened(text: str) -> str:
    """Text of a row; of a run of picture tokens one, and how many there are."""
    return _RUN.sub(lambda match: f"{match[1]} × {len(match[0]) // len(match[1])} ", text)
