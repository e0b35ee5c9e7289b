"""The rows of the results table: one for each cell and test set, with every number that a paper quotes.

Behind the cells of a test set come, where there are any, the base model (if all runs start from the same) and the
baselines: `kind` says which of the three a row is.

Accuracies are shares of one, as in the ledger. `low` and `high` are the t interval of the mean over seeds;
`pooled_low` and `pooled_high` the Wilson interval of all answers of all seeds together, which knows nothing of the
scatter between seeds and takes answers to the same row as independent.
"""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from sft.config.nodes import Shown
from sft.evaluation.scoring import TOKEN
from sft.evaluation.statistics import wilson_interval
from sft.reporting import series
from sft.reporting.intervals import mean_interval

CELL, BASE, BASELINE = "cell", "base", "baseline"
ENDS = {"": "value", "_low": "low", "_high": "high"}
COSTS = (
    "trainable_parameters",
    "parameters",
    "steps",
    "tokens_seen",
    "tokens_per_second",
    "wall_seconds",
    "cpu_seconds",
    "device_hours",
    "joules",
    "model_flops_utilisation",
    "peak_memory_mib",
)


def result_rows(ledger: pd.DataFrame, settings: Shown) -> list[dict[str, Any]]:
    """One row for each cell and test set of `settings`, in its order; `None` where a number does not exist."""
    scores = series.scores(ledger, settings)
    measured = series.scored(ledger, settings)
    others = sorted(measured.loc[measured["cell"].isin(settings.cells), "metric"].unique())
    baselines = series.baselines(ledger, settings)
    rows = []
    for dataset in settings.datasets:
        reference = None
        for cell in settings.cells:
            here = scores[(scores["cell"] == cell) & (scores["dataset"] == dataset)]
            if here.empty:
                continue
            base, last = series.base(here), series.final(here)
            values = dict(zip(last["seed"].tolist(), last["value"].tolist(), strict=True))
            reference = values if reference is None else reference
            mean, low, high = _interval(list(values.values()))
            counts = int(last["numerator"].sum()), int(last["denominator"].sum())
            # Tokens of a row are alike: counted as independent, they would give an interval far too narrow.
            pooled = (None, None) if settings.metric == TOKEN else wilson_interval(*counts)
            change = last["value"].mean() - base["value"].mean()
            rows.append(
                {
                    "experiment": settings.experiment,
                    "cell": cell,
                    "kind": CELL,
                    "dataset": dataset,
                    "split": settings.split,
                    "test_rows": int(last["denominator"].max()),
                    "metric": settings.metric,
                    "n_seeds": len(values),
                    "seeds": ";".join(map(str, values)),
                    "step": int(last["step"].max()),
                    "base": float(base["value"].mean()),
                    "final": mean,
                    "low": low,
                    "high": high,
                    "pooled_low": pooled[0],
                    "pooled_high": pooled[1],
                    "minimum": min(values.values()),
                    "maximum": max(values.values()),
                    "by_seed": ";".join(repr(value) for value in values.values()),
                    "change": float(change),
                    **_difference(values, reference),
                    **_other_metrics(measured, cell, dataset, others, settings.seeds),
                    "errors": int(last["n_errors"].fillna(0).sum()),
                    "code": ";".join(sorted(last["code"].unique())),
                    "software": "; ".join(sorted(set(last["software"]) - {""})),
                }
            )
        if settings.one_base:
            base = series.base(scores[scores["dataset"] == dataset]).head(1)
            rows += [_reference(BASE, base, measured, others, settings)]
        for baseline, of_baseline in baselines:
            here = of_baseline[of_baseline["dataset"] == dataset]
            if len(here):
                rows += [_reference(BASELINE, here.assign(cell=baseline.label), measured, others, settings)]
    return rows


def pair_rows(compared: list[dict[str, Any]], settings: Shown) -> list[dict[str, Any]]:
    """The paired tests of the metric shown, one row for each cell, test set and what it is held against.

    `by_seed` has (rows only the cell has right, rows only the other has, p) of each seed; see sft/reporting/paired.py.
    """
    found: dict[tuple[str, str, str], list[tuple[int, int, float]]] = {}
    for row in compared:
        if row["metric"] == settings.metric and row["cell"] in settings.cells and row["seed"] in settings.seeds:
            place = (row["cell"], row["dataset"], row["against"])
            found.setdefault(place, []).append((row["only_cell"], row["only_other"], row["p_value"]))
    return [
        {"cell": cell, "dataset": dataset, "against": against, "split": settings.split, "by_seed": tests}
        for (cell, dataset, against), tests in sorted(found.items(), key=lambda item: _place(item[0], settings))
    ]


def _place(pair: tuple[str, str, str], settings: Shown) -> tuple[int, int]:
    return settings.datasets.index(pair[1]), settings.cells.index(pair[0])


def cost_rows(ledger: pd.DataFrame, settings: Shown) -> list[dict[str, Any]]:
    """What the training of each cell took: the mean over seeds of each of `COSTS` that the ledger has.

    NaN where it was not measured for one of the seeds.
    """
    training = ledger[(ledger["dataset"] == "") & (ledger["split"] == "train") & ledger["metric"].isin(COSTS)]
    training = training[training["cell"].isin(settings.cells) & training["seed"].isin(settings.seeds)]
    last = training[training["step"] == training.groupby("run")["step"].transform("max")]
    table = last.groupby(["cell", "metric"])["value"].agg(lambda values: values.mean(skipna=False))
    names = [name for name in COSTS if (last["metric"] == name).any()]
    return [
        {"cell": cell} | {name: table.get((cell, name)) for name in names} for cell in settings.cells if len(names) > 0
    ]


def _reference(
    kind: str, score: pd.DataFrame, measured: pd.DataFrame, others: list[str], settings: Shown
) -> dict[str, Any]:
    """The row of one model that was not trained here, from its one score."""
    one = score.iloc[0]
    dataset, step = one["dataset"], int(one["step"])
    found = measured[(measured["cell"] == one["cell"]) & (measured["dataset"] == dataset) & (measured["step"] == step)]
    by_metric = found.drop_duplicates("metric").set_index("metric")
    none = ("low", "high", "change", "difference", "difference_low", "difference_high", "paired_seeds")
    return {
        "experiment": settings.experiment,
        "cell": "base model" if kind == BASE else one["cell"],
        "kind": kind,
        "dataset": dataset,
        "split": settings.split,
        "test_rows": int(one["denominator"]),
        "metric": settings.metric,
        "n_seeds": 1,
        "seeds": "",
        "step": step,
        "base": None,
        "final": float(one["value"]),
        "pooled_low": float(one["low"]),
        "pooled_high": float(one["high"]),
        "minimum": float(one["value"]),
        "maximum": float(one["value"]),
        "by_seed": "",
        **dict.fromkeys(none),
        **{f"{name}{end}": _number(by_metric, name, column) for name in others for end, column in ENDS.items()},
        "errors": int(one["n_errors"]),
        "code": one["code"],
        "software": one["software"],
    }


def _interval(values: list[float]) -> tuple[float, float | None, float | None]:
    return mean_interval(values) if len(values) > 1 else (values[0], None, None)


def _difference(values: dict[int, float], reference: dict[int, float]) -> dict[str, Any]:
    """The cell minus the first cell, seed by seed, with the t interval of these differences.

    Equal seeds mean equal base models and orders of rows, so pairing takes their scatter out.
    """
    none = dict.fromkeys(("difference", "difference_low", "difference_high", "paired_seeds"))
    if values is reference:
        return none
    paired = [values[seed] - reference[seed] for seed in values if seed in reference]
    if not paired:
        return none
    mean, low, high = _interval(paired)
    return {"difference": mean, "difference_low": low, "difference_high": high, "paired_seeds": len(paired)}


def _other_metrics(
    measured: pd.DataFrame, cell: str, dataset: str, metrics: list[str], seeds: Sequence[int]
) -> dict[str, float | None]:
    """Every metric at the last step: `<metric>`, `<metric>_low` and `<metric>_high`.

    The mean over seeds with its t interval; of one seed, the interval that the ledger holds.
    """
    here = measured[(measured["cell"] == cell) & (measured["dataset"] == dataset) & measured["seed"].isin(seeds)]
    found: dict[str, float | None] = {}
    for metric in metrics:
        rows = series.final(here[here["metric"] == metric])
        one = rows.set_index("metric")
        if len(rows) > 1:
            values: tuple[float | None, ...] = mean_interval(rows["value"].tolist())
        else:
            values = tuple(_number(one, metric, column) for column in ENDS.values())
        found |= dict(zip((f"{metric}{end}" for end in ENDS), values, strict=True))
    return found


def _number(by_metric: pd.DataFrame, metric: str, column: str) -> float | None:
    return float(by_metric.loc[metric, column]) if metric in by_metric.index else None
