"""What the label audit of a run's tokens found, as numbers of the ledger: what of its rows is learned."""

import json
from pathlib import Path

import pyarrow as pa

from sft.reporting.leaks import SCHEMA


def of_labels(directory: Path, i: int) -> pa.Table:
    """The counts of the label audit in `directory` as metrics of run `i` at step 0; the data set is the split's name.

    labels_learned (learned tokens of all), labels_answers_cut, labels_nothing_learned and labels_left_out (of all rows
    prepared), labels_end_learned (of the rows that are trained on).
    """
    counts = json.loads((directory / "audit.json").read_text(encoding="utf-8"))["counts"]
    rows = [
        {
            "dataset": split,
            "metric": f"labels_{metric}",
            "step": 0,
            "numerator": float(numerator),
            "denominator": float(denominator),
            "value": numerator / denominator if denominator else None,
            "i": i,
        }
        for split, of_split in counts.items()
        for metric, (numerator, denominator) in of_split.items()
    ]
    return pa.Table.from_pylist(rows, SCHEMA)
