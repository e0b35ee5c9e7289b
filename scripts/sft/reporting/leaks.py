"""What the audit of a run's data found, as numbers of the ledger: rows that were met in training or validation."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa

from sft.runtime import manifest

SPLIT = "audit"
SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("dataset", "metric")),
        ("step", pa.int64()),
        *((name, pa.float64()) for name in ("numerator", "denominator", "value")),
        ("i", pa.int64()),
    ]
)


def of_audit(directory: Path, names: dict[str, str], i: int) -> pa.Table:
    """The overlaps that the audit in `directory` counted, as metrics of run `i` at step 0.

    One `overlap_<kind>` for each evaluated split and benchmark: the rows that were met, of all its rows; where it was
    compared with train and with validation, the larger. Data sets have the `names` that a reader knows; the rows of
    validation are called validation.
    """
    made = json.loads((directory / "audit.json").read_text(encoding="utf-8"))
    made_from = (manifest.read(directory) or {})["inputs"]
    splits = {key: Path(source["path"]).name for key, source in made_from.items()}
    largest: dict[tuple[str, str], tuple[int, int]] = {}
    for pair in made["pairs"]:
        of = splits.get(pair["second"], pair["second"])
        of = names.get(of, of)
        if pair["second"].startswith("validation-"):
            of = f"{of}, validation"
        for kind, found in pair["overlap"].items():
            key = of, f"overlap_{kind}"
            largest[key] = max(largest.get(key, (0, pair["rows"])), (found["rows"], pair["rows"]))
    rows: list[dict[str, Any]] = [
        {
            "dataset": dataset,
            "metric": metric,
            "step": 0,
            "numerator": float(met),
            "denominator": float(of),
            "value": met / of if of else None,
            "i": i,
        }
        for (dataset, metric), (met, of) in largest.items()
    ]
    return pa.Table.from_pylist(rows, SCHEMA)
