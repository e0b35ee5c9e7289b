"""Two models on the same rows: how many only one of them has right, and McNemar's exact test of that.

Every run at its last step is held against its own base model, against the run of the first cell with the same seed, and
against each baseline that saw the same training rows. Intervals of two accuracies may overlap although one model is
better on the very rows that both were asked; this test looks at those rows.
"""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sft.data.read.tables import read_rows
from sft.evaluation.scoring import METRICS
from sft.evaluation.statistics import paired_mcnemar
from sft.reporting import costs

BASE = "base model"
NAMED = ("experiment", "cell", "seed", "dataset", "split", "metric", "step", "against")
COLUMNS = (*NAMED, "rows", "only_cell", "only_other", "p_value")

# {(data set, step, metric): {id: right}}
Right = dict[tuple[str, int, str], dict[str, bool]]


def comparisons(
    experiment: str,
    cells: Sequence[dict[str, Any]],
    baselines: Sequence[dict[str, Any]],
    inputs: dict[str, Path],
    names: dict[str, str],
    split: str,
) -> list[dict[str, Any]]:
    """One row for each run, data set, metric and what it is held against; arguments as of `ledger.collect`."""
    rights = [_right(inputs[f"scores-{i}"], names) for i in range(len(cells))]
    of_baselines = [_right(inputs[f"baseline-scores-{i}"], names) for i in range(len(baselines))]
    first = {cell["seed"]: rights[i] for i, cell in enumerate(cells) if cell["cell"] == cells[0]["cell"]}
    rows = []
    for cell, right in zip(cells, rights, strict=True):
        others = [(BASE, _at(right, 0))]
        if cell["cell"] != cells[0]["cell"] and cell["seed"] in first:
            others.append((cells[0]["cell"], _at_last(first[cell["seed"]])))
        for baseline, of_baseline in zip(baselines, of_baselines, strict=True):
            if cell["cell"] in baseline["cells"]:
                others.append((baseline["label"], _at(of_baseline, 0)))
        last = {(dataset, metric): step for dataset, step, metric in sorted(right)}
        for (dataset, metric), mine in sorted(_at_last(right).items()):
            for against, theirs in others:
                if (dataset, metric) in theirs:
                    only_cell, only_other, p_value = paired_mcnemar(mine, theirs[dataset, metric])
                    place = (experiment, cell["cell"], cell["seed"], dataset, split, metric, last[dataset, metric])
                    found = (*place, against, len(mine), only_cell, only_other, p_value)
                    rows.append(dict(zip(COLUMNS, found, strict=True)))
    return rows


def write(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Write `rows` as CSV, numbers in their shortest exact text."""
    costs.write(rows, path, COLUMNS)


def read(ledger: Path) -> list[dict[str, Any]]:
    """The comparisons of a collected ledger."""
    with (ledger / "paired.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    whole = ("seed", "step", "rows", "only_cell", "only_other")
    return [row | {name: int(row[name]) for name in whole} | {"p_value": float(row["p_value"])} for row in rows]


def _right(scores: Path, names: dict[str, str]) -> Right:
    found: Right = {}
    for row in read_rows(scores / "right.parquet", ["dataset", "step", "id", *METRICS]):
        dataset = names.get(row["dataset"], row["dataset"])
        for metric in METRICS:
            if row[metric] is not None:
                found.setdefault((dataset, row["step"], metric), {})[row["id"]] = row[metric]
    return found


def _at(right: Right, step: int) -> dict[tuple[str, str], dict[str, bool]]:
    return {(dataset, metric): found for (dataset, at, metric), found in right.items() if at == step}


def _at_last(right: Right) -> dict[tuple[str, str], dict[str, bool]]:
    return {(dataset, metric): found for (dataset, _, metric), found in sorted(right.items(), key=lambda item: item[0])}
