"""What figures and tables show, taken from a ledger: one line per seed, their mean, and an interval with a name.

A frame of *seeds* has the columns cell, dataset, split, seed, step, value, low, high, numerator, denominator,
n_errors, code, run, run_key. A frame of *means* has cell, dataset, split, step, n, value, low, high, interval.
Values are as in the ledger (accuracies are shares of one).
"""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from sft.config.nodes import Shown, ShownBaseline
from sft.reporting.intervals import t_quantile
from sft.runtime.stage import StageError

LEDGER = "ledger.parquet"
T_INTERVAL = "95 % t interval of the mean"
GEOMETRIC_INTERVAL = "95 % t interval of the geometric mean"
WILSON_INTERVAL = "95 % Wilson interval"
NUMBERS = ["value", "low", "high"]
GROUP = ["cell", "dataset", "split", "step"]


def read_ledger(directory: Path) -> pd.DataFrame:
    """The ledger in `directory`, columns as in sft/reporting/ledger.py."""
    return pq.read_table(directory / LEDGER).to_pandas()


def scored(ledger: pd.DataFrame, settings: Shown) -> pd.DataFrame:
    """What models and baselines scored, on the test split or on the one that is named: all cells and metrics."""
    return ledger[(ledger["split"] == settings.split) & (ledger["dataset"] != "")]


def baselines(ledger: pd.DataFrame, settings: Shown) -> list[tuple[ShownBaseline, pd.DataFrame]]:
    """Each baseline of `settings` (`label` and `cells`) with its scores by the metric shown, in the order of data sets.

    StageError for one that has no score on a data set that its cells have.
    """
    frame = scored(ledger, settings)
    frame = frame[frame["metric"] == settings.metric]
    found, missing = [], []
    for baseline in settings.baselines:
        asked = set(frame.loc[frame["cell"].isin(baseline.cells), "dataset"])
        names = [name for name in settings.datasets if name in asked]
        here = frame[frame["cell"] == baseline.label].set_index("dataset", drop=False)
        missing += [f"baseline {baseline.label}: no {settings.metric} on {n}" for n in names if n not in here.index]
        found.append((baseline, here.reindex(names).reset_index(drop=True)))
    _refuse(missing, settings)
    return found


def scores(ledger: pd.DataFrame, settings: Shown, metric: str | None = None) -> pd.DataFrame:
    """The scores (test sets, one metric) of the cells, data sets and seeds of `settings`, in its order.

    A cell may be scored on some of the data sets only, but then with all seeds. StageError lists every (cell, data set,
    seed) that has no score, or none of the base model (step 0).
    """
    metric = metric or settings.metric
    frame = scored(ledger, settings)
    frame = frame[frame["metric"] == metric]
    found = set(zip(frame["cell"], frame["dataset"], frame["seed"], strict=True))
    based = frame[frame["step"] == 0]
    with_base = set(zip(based["cell"], based["dataset"], based["seed"], strict=True))
    pairs = {(cell, dataset) for cell, dataset, _ in found}
    missing = [f"cell {cell}: no {metric} at all" for cell in settings.cells if cell not in {c for c, _ in pairs}]
    missing += [f"no cell has {metric} on {name}" for name in settings.datasets if name not in {d for _, d in pairs}]
    for cell, dataset, seed in ((c, d, s) for c in settings.cells for d in settings.datasets for s in settings.seeds):
        if (cell, dataset) not in pairs:
            continue
        if (cell, dataset, seed) not in found:
            missing.append(f"cell {cell}, seed {seed}: no {metric} on {dataset}")
        elif (cell, dataset, seed) not in with_base:
            missing.append(f"cell {cell}, seed {seed}: no {metric} of the base model (step 0) on {dataset}")
    _refuse(missing, settings)
    return _ordered(frame, settings, settings.datasets)


def training_metric(ledger: pd.DataFrame, settings: Shown, metric: str, splits: Iterable[str]) -> pd.DataFrame:
    """What training itself measured (`metric` on `splits`) for the cells and seeds of `settings`.

    A cell may lack some of the splits, but then with all seeds. StageError lists every (cell, seed) that has less.
    """
    frame = ledger[(ledger["dataset"] == "") & (ledger["metric"] == metric) & ledger["split"].isin(list(splits))]
    found = set(zip(frame["cell"], frame["split"], frame["seed"], strict=True))
    pairs = {(cell, split) for cell, split, _ in found}
    missing = [f"cell {cell}: no {metric} at all" for cell in settings.cells if cell not in {c for c, _ in pairs}]
    missing += [
        f"cell {cell}, seed {seed}: no {metric} ({split})"
        for cell in settings.cells
        for split in splits
        for seed in settings.seeds
        if (cell, split) in pairs and (cell, split, seed) not in found
    ]
    _refuse(missing, settings)
    return _ordered(frame, settings, [""])


def means(seeds: pd.DataFrame, geometric: bool = False) -> pd.DataFrame:
    """Mean over seeds at every step that all seeds of a cell have, with its interval.

    Two seeds or more: `T_INTERVAL`. One seed: the interval that the ledger holds (`WILSON_INTERVAL`), or none ("").
    `geometric` takes means and intervals of logarithms, which is what a logarithmic axis shows (positive values only).
    """
    measured = seeds.assign(value=np.log(seeds["value"])) if geometric else seeds
    groups = measured.groupby(GROUP, sort=False)
    mean = groups.agg(
        n=("value", "size"),
        value=("value", "mean"),
        deviation=("value", "std"),
        low=("low", "first"),
        high=("high", "first"),
    ).reset_index()
    # Another set of seeds than at the step before would move the mean without any learning.
    expected = seeds.groupby(GROUP[:-1], sort=False)["seed"].nunique().rename("expected")
    mean = mean.join(expected, on=GROUP[:-1])
    mean = mean[mean["n"] == mean["expected"]].reset_index(drop=True)
    several = mean["n"] > 1
    factor = {n: t_quantile(n - 1) / math.sqrt(n) for n in mean.loc[several, "n"].unique()}
    half = mean["n"].map(factor) * mean["deviation"]
    mean["low"] = mean["low"].where(~several, mean["value"] - half)
    mean["high"] = mean["high"].where(~several, mean["value"] + half)
    if geometric:
        mean[NUMBERS] = np.exp(mean[NUMBERS].astype(float))
    # The last digits of logarithms depend on the processor (numpy chooses its instructions); a figure must not.
    mean[NUMBERS] = mean[NUMBERS].map(lambda number: float(f"{number:.12g}"))
    one = mean["low"].notna().map({True: WILSON_INTERVAL, False: ""})
    mean["interval"] = one.where(~several, GEOMETRIC_INTERVAL if geometric else T_INTERVAL)
    return mean[[*GROUP, "n", "value", "low", "high", "interval"]]


def windows(seeds: pd.DataFrame, most: int) -> tuple[pd.DataFrame, int]:
    """`seeds` with the values of neighbouring steps averaged, so that at most `most` steps remain; and how many were.

    Every window holds equally many logged steps (the last may hold fewer) and lies at their mean step.
    """
    steps = {split: np.sort(part.unique()) for split, part in seeds.groupby("split")["step"]}
    size = max(-(-len(known) // most) for known in steps.values())
    if size == 1:
        return seeds, 1
    window = np.zeros(len(seeds), dtype=int)
    for split, known in steps.items():
        here = (seeds["split"] == split).to_numpy()
        if len(known) > most:
            window[here] = np.searchsorted(known, seeds.loc[here, "step"]) // size
        else:
            window[here] = np.searchsorted(known, seeds.loc[here, "step"])
    keys = ["cell", "dataset", "split", "seed", "window"]
    averaged = seeds.assign(window=window).groupby(keys, sort=False)[["value", "low", "high", "step"]].mean()
    return averaged.reset_index(), size


def final(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of `frame` (seeds or means) at the last step of their cell and data set."""
    return frame[frame["step"] == frame.groupby(["cell", "dataset", "split"])["step"].transform("max")]


def base(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of `frame` at step 0: the base model."""
    return frame[frame["step"] == 0]


def rows_scored(seeds: pd.DataFrame) -> dict[str, int]:
    """Test rows of each data set; of accuracy_token, their tokens."""
    return {name: int(n) for name, n in seeds.groupby("dataset", sort=False)["denominator"].max().items()}


def plotted(seeds: pd.DataFrame, mean: pd.DataFrame, baselines: Sequence[pd.DataFrame] = ()) -> pd.DataFrame:
    """Everything that a figure draws, as one table: each seed, then the means (`seed` empty), then the baselines."""
    lines = seeds.assign(series="seed")
    middle = pd.concat([mean.assign(series="mean"), *(frame.assign(series="baseline") for frame in baselines)])
    columns = ["series", "cell", "dataset", "split", "seed", "step", "n", "value", "low", "high", "interval"]
    frame = pd.concat([lines, middle], ignore_index=True).reindex(columns=columns)
    return frame.astype({"seed": "Int64", "n": "Int64"})


def _refuse(missing: list[str], settings: Shown) -> None:
    if missing:
        raise StageError(
            f"experiment {settings.experiment}: the figure would lack runs:\n  " + "\n  ".join(missing) + "\n"
            "Make them and collect again, or take the cell or seed out of the experiment"
        )


def _ordered(frame: pd.DataFrame, settings: Shown, datasets: Sequence[str]) -> pd.DataFrame:
    """Only what `settings` names, sorted in its order of data sets and cells, then by seed and step."""
    kept = frame[
        frame["cell"].isin(settings.cells) & frame["seed"].isin(settings.seeds) & frame["dataset"].isin(datasets)
    ]
    place = pd.DataFrame(
        {
            "dataset": kept["dataset"].map(datasets.index),
            "cell": kept["cell"].map(settings.cells.index),
            "split": kept["split"],
            "seed": kept["seed"],
            "step": kept["step"],
        }
    )
    return kept.loc[place.sort_values(list(place.columns)).index].reset_index(drop=True)
