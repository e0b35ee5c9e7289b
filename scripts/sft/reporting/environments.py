"""What another environment changed: two cells that differ in nothing but their packages, held against each other.

The first cell of a group is the reference. Equal means equal bits: numbers of the ledger are compared as they are.
"""

from pathlib import Path
from typing import Any

import pandas as pd

from sft.config.nodes import Shown
from sft.runtime.stage import StageError

METRICS = ("loss", "grad_norm")


def comparisons(ledger: pd.DataFrame, runs: pd.DataFrame, settings: Shown) -> list[dict[str, Any]]:
    """One row for each further cell of a group and each seed.

    `first_diverging_<metric>` is the first training step at which a metric differs (None: at no step),
    `largest_<metric>` the largest absolute difference, `tokens_equal` and `prompts_equal` whether training and
    evaluation saw the same tokens, `scores` the differences of the final scores by test set. StageError where the two
    cells have other steps.
    """
    rows = []
    by_run = runs.set_index(["cell", "seed"])
    for group in settings.compared:
        reference, *others = group
        for other in others:
            for seed in settings.seeds:
                first, second = ((entry.cell, seed) for entry in (reference, other))
                row: dict[str, Any] = {
                    "reference": reference.environment,
                    "environment": other.environment,
                    "reference_cell": reference.cell,
                    "cell": other.cell,
                    "seed": seed,
                }
                for metric in METRICS:
                    difference = differences(ledger, metric, first, second)
                    apart = difference[difference["difference"] != 0]
                    row["steps"] = len(difference)
                    row[f"first_diverging_{metric}"] = int(apart["step"].min()) if len(apart) else None
                    row[f"largest_{metric}"] = float(difference["difference"].abs().max())
                for name in ("tokens", "prompts"):
                    if "" in (by_run.loc[first, name], by_run.loc[second, name]):
                        raise StageError(f"runs.csv has no digest of the {name} of every run. Make the scores again")
                    row[f"{name}_equal"] = bool(by_run.loc[first, name] == by_run.loc[second, name])
                row["scores"] = _scores(ledger, settings.metric, first, second)
                rows.append(row)
    return rows


def differences(ledger: pd.DataFrame, metric: str, first: tuple[str, int], second: tuple[str, int]) -> pd.DataFrame:
    """Columns step, first, second, difference (second minus first) of a training metric of two (cell, seed)."""
    here = ledger[(ledger["dataset"] == "") & (ledger["split"] == "train") & (ledger["metric"] == metric)]
    one, other = (
        here[(here["cell"] == cell) & (here["seed"] == seed)].set_index("step")["value"]
        for cell, seed in (first, second)
    )
    if list(one.index) != list(other.index):
        raise StageError(f"{first[0]} and {second[0]}, seed {first[1]}: {metric} was logged at other steps")
    table = pd.DataFrame({"first": one, "second": other})
    table["difference"] = table["second"] - table["first"]
    return table.reset_index()


def told(row: dict[str, Any]) -> tuple[str, bool]:
    """A comparison in one sentence, and whether everything was equal."""
    equal = ["tokens"] * row["tokens_equal"] + ["prompts"] * row["prompts_equal"]
    other = ["tokens"] * (not row["tokens_equal"]) + ["prompts"] * (not row["prompts_equal"])
    parts = []
    for metric in METRICS:
        step = row[f"first_diverging_{metric}"]
        if step is None:
            equal.append(metric)
        else:
            parts.append(f"{metric} differs from step {step} on, at most by {row[f'largest_{metric}']:.2g}")
    if other:
        parts.insert(0, f"{' and '.join(other)} differ")
    scores = {name: value for name, value in row["scores"].items() if value}
    signed = {name: f"{100 * value:+.1f}".replace("-", "−") for name, value in scores.items()}
    parts += [f"accuracy on {name} {value} points" for name, value in signed.items()]
    if not scores:
        equal.append("accuracy")
    if equal:
        bits = f" to the last bit ({row['steps']} steps)" if set(METRICS) <= set(equal) else ""
        parts.append(f"{', '.join(equal)} equal{bits}")
    return f"{row['environment']} against {row['reference']}, seed {row['seed']}: {'; '.join(parts)}.", not (
        other or scores or len(parts) > 1
    )


def read_runs(directory: Path) -> pd.DataFrame:
    """runs.csv of a ledger."""
    return pd.read_csv(directory / "runs.csv", dtype={"tokens": str, "prompts": str}, keep_default_na=False)


def _scores(ledger: pd.DataFrame, metric: str, first: tuple[str, int], second: tuple[str, int]) -> dict[str, float]:
    """Data set -> final score of `second` minus that of `first`."""
    scored = ledger[ledger["split"].isin(["test", "validation"]) & (ledger["dataset"] != "")]
    scored = scored[scored["metric"] == metric]
    last = scored[scored["step"] == scored.groupby(["cell", "seed", "dataset"])["step"].transform("max")]
    values = last.set_index(["cell", "seed", "dataset"])["value"]
    return {name: float(values[(*second, name)] - values[(*first, name)]) for name in values[first].index}
