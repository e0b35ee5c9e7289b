"""The rows of the results table: one for each cell and test set, with every number that a paper quotes.

Accuracies are shares of one, as in the ledger. `low` and `high` are the t interval of the mean over seeds;
`pooled_low` and `pooled_high` the Wilson interval of all answers of all seeds together, which knows nothing of the
scatter between seeds and takes answers to the same row as independent.
"""

from typing import Any

import pandas as pd

from sft.evaluation.statistics import wilson_interval
from sft.reporting import series
from sft.reporting.intervals import mean_interval

COSTS = (
    "trainable_parameters",
    "parameters",
    "steps",
    "tokens_seen",
    "tokens_per_second",
    "wall_seconds",
    "cpu_seconds",
    "peak_memory_mib",
)


def result_rows(ledger: pd.DataFrame, config: dict[str, Any]) -> list[dict[str, Any]]:
    """One row for each cell and test set of `config`, in its order; `None` where a number does not exist."""
    scores = series.scores(ledger, config)
    measured = ledger[(ledger["split"] == "test") & ledger["cell"].isin(config["cells"])]
    others = sorted(measured["metric"].unique())
    rows = []
    for dataset in config["datasets"]:
        reference = None
        for cell in config["cells"]:
            here = scores[(scores["cell"] == cell) & (scores["dataset"] == dataset)]
            if here.empty:
                continue
            base, last = series.base(here), series.final(here)
            values = dict(zip(last["seed"].tolist(), last["value"].tolist(), strict=True))
            reference = values if reference is None else reference
            mean, low, high = _interval(list(values.values()))
            pooled = wilson_interval(int(last["numerator"].sum()), int(last["denominator"].sum()))
            change = last["value"].mean() - base["value"].mean()
            rows.append(
                {
                    "experiment": config["experiment"],
                    "cell": cell,
                    "dataset": dataset,
                    "test_rows": int(last["denominator"].max()),
                    "metric": config["metric"],
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
                    **{name: _final_mean(measured, cell, dataset, name) for name in others},
                    "errors": int(last["n_errors"].fillna(0).sum()),
                    "code": ";".join(sorted(last["code"].unique())),
                    "software": "; ".join(sorted(set(last["software"]) - {""})),
                }
            )
    return rows


def cost_rows(ledger: pd.DataFrame, config: dict[str, Any]) -> list[dict[str, Any]]:
    """What the training of each cell took: the mean over seeds of each of `COSTS` that the ledger has."""
    training = ledger[(ledger["dataset"] == "") & (ledger["split"] == "train") & ledger["metric"].isin(COSTS)]
    training = training[training["cell"].isin(config["cells"]) & training["seed"].isin(config["seeds"])]
    last = training[training["step"] == training.groupby("run")["step"].transform("max")]
    table = last.groupby(["cell", "metric"])["value"].mean()
    names = [name for name in COSTS if (last["metric"] == name).any()]
    return [
        {"cell": cell} | {name: table.get((cell, name)) for name in names} for cell in config["cells"] if len(names) > 0
    ]


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


def _final_mean(measured: pd.DataFrame, cell: str, dataset: str, metric: str) -> float | None:
    rows = measured[(measured["cell"] == cell) & (measured["dataset"] == dataset) & (measured["metric"] == metric)]
    return None if rows.empty else float(rows.loc[rows["step"] == rows["step"].max(), "value"].mean())
