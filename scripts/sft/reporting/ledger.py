"""The ledger: one tidy table of everything that the runs of an experiment measured.

A row is one number: which run (cell, seed), of what (split, data set, step, metric), with its numerator and
denominator, its interval where it has one, and the run key and code that it comes from. Figures and tables
read nothing else.
"""

from collections.abc import Sequence
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow.csv import WriteOptions, write_csv

from sft.reporting import labels, leaks
from sft.runtime import installed, manifest
from sft.runtime.stage import StageError

PARQUET, CSV, RUNS, PROVENANCE = "ledger.parquet", "ledger.csv", "runs.csv", "provenance.json"
PAIRED = "paired.csv"

SCHEMA = pa.schema(
    [
        ("experiment", pa.string()),
        ("cell", pa.string()),  # or the name of a baseline, which has seed 0 and step 0
        ("seed", pa.int64()),
        ("run", pa.string()),
        ("dataset", pa.string()),  # "" for what training itself measured
        ("split", pa.string()),  # train, validation or test; audit for what the data of a run share
        ("step", pa.int64()),  # optimiser steps done; 0 is the base model
        ("metric", pa.string()),
        ("numerator", pa.float64()),
        ("denominator", pa.float64()),
        ("value", pa.float64()),
        ("low", pa.float64()),
        ("high", pa.float64()),
        ("n_errors", pa.int64()),
        ("run_key", pa.string()),  # first 12 digits of the full key of the training
        ("code", pa.string()),  # first 12 digits of the digest of the code that trained; several joined by +
        ("software", pa.string()),  # "" where every package was the pinned one throughout; otherwise which was not
    ]
)
KEY = ["cell", "seed", "dataset", "split", "metric", "step"]
DIGITS = 12
SHOWN_DUPLICATES = 5


def collect(
    experiment: str,
    cells: list[dict[str, Any]],
    inputs: dict[str, Path],
    names: dict[str, str],
    baselines: Sequence[dict[str, Any]] = (),
    split: str = "test",
) -> pa.Table:
    """The ledger of `cells`, whose i-th entry is `{cell, seed, run, ...}` with inputs `run-<i>`, `scores-<i>` and
    `audit-<i>` and `labels-<i>`.

    `names` gives data sets (ids in scores) the names that a reader knows; `baselines` are `{label, ...}` with inputs
    `baseline-<i>` and `baseline-scores-<i>`; `split` is the one that was scored. Rows are sorted by `KEY`. StageError
    when a number is there twice.
    """
    runs, metrics, costs, scores = [], [], [], []
    for i, cell in enumerate(cells):
        training = manifest.read(inputs[f"run-{i}"]) or {}
        if training["id"] != cell["run"]:
            raise StageError(f"run-{i}: {inputs[f'run-{i}']} is the run {training['id']}, not {cell['run']}")
        parts = training["facts"].get("mixed") or [training]
        runs.append(
            {
                "experiment": experiment,
                "cell": cell["cell"],
                "seed": cell["seed"],
                "run": cell["run"],
                "run_key": training["key"][:DIGITS],
                "code": "+".join(sorted({part["code"][:DIGITS] for part in parts})),
                "software": _software([training, *_asked(inputs[f"scores-{i}"])], parts),
            }
        )
        metrics.append(_read(inputs[f"run-{i}"] / "metrics.parquet", i))
        costs.append(_costs(training, metrics[-1], i))
        scores.append(_read(inputs[f"scores-{i}"] / "scores.parquet", i))
    parts = [
        _fitted(pa.concat_tables(metrics), runs, {"dataset": ""}),
        _fitted(pa.concat_tables(costs), runs, {"dataset": "", "split": "train"}),
        _fitted(_named(pa.concat_tables(scores), names), runs, {"split": split}),
    ]
    if baselines:
        made = [manifest.read(inputs[f"baseline-{i}"]) or {} for i in range(len(baselines))]
        fitted = [
            {
                "experiment": experiment,
                "cell": baseline["label"],
                "seed": 0,
                "run": one["id"],
                "run_key": one["key"][:DIGITS],
                "code": one["code"][:DIGITS],
                "software": _software([one, *_asked(inputs[f"baseline-scores-{i}"])], [one]),
            }
            for i, (baseline, one) in enumerate(zip(baselines, made, strict=True))
        ]
        of_baselines = [_read(inputs[f"baseline-scores-{i}"] / "scores.parquet", i) for i in range(len(baselines))]
        parts.append(_fitted(_named(pa.concat_tables(of_baselines), names), fitted, {"split": split}))
    audits = [leaks.of_audit(inputs[name], names, i) for i in range(len(cells)) if (name := f"audit-{i}") in inputs]
    audits += [labels.of_labels(inputs[name], i) for i in range(len(cells)) if (name := f"labels-{i}") in inputs]
    if audits:
        parts.append(_fitted(pa.concat_tables(audits), runs, {"split": leaks.SPLIT}))
    table = pa.concat_tables(parts).sort_by([(name, "ascending") for name in KEY])
    _refuse_duplicates(table)
    return table


def _named(scored: pa.Table, names: dict[str, str]) -> pa.Table:
    """Scores with the columns of the ledger, data sets as a reader knows them."""
    scored = scored.rename_columns([{"errors": "n_errors"}.get(name, name) for name in scored.column_names])
    shown = pa.array([names.get(name, name) for name in scored["dataset"].to_pylist()], pa.string())
    return scored.set_column(scored.column_names.index("dataset"), "dataset", shown)


def _asked(scores: Path) -> list[dict[str, Any]]:
    """The manifests of the scores and of the predictions that they count."""
    scored = manifest.read(scores) or {"inputs": {}}
    predicted = scored["inputs"].get("predictions")
    return [scored, (predicted and manifest.read(predicted["path"])) or {}]


def _software(made: list[dict[str, Any]], parts: list[dict[str, Any]]) -> str:
    """What was not as pinned when these results were made, and which versions trained one run after another."""
    differences = {name: pair for one in made for name, pair in one.get("not_as_pinned", {}).items()}
    told = [installed.words(differences)] if differences else []
    for before, after in pairwise(parts):
        changed = sorted(name for name, version in after["versions"].items() if before["versions"].get(name) != version)
        told += [
            f"{name} {before['versions'].get(name)} to step {after['from_step']}, then {after['versions'][name]}"
            for name in changed
        ]
    return "; ".join(told)


def _read(path: Path, i: int) -> pa.Table:
    """The table of run `i`, with a column `i`."""
    with pq.ParquetFile(path) as file:
        table = file.read(use_threads=False)
    return table.replace_schema_metadata().append_column("i", pa.repeat(i, len(table)))


def _costs(training: dict[str, Any], metrics: pa.Table, i: int) -> pa.Table:
    """What the training of run `i` cost and how large it was, as metrics at its last step: from its manifest.

    Every number among the recorded facts counts; a metric of the same name that the run logged itself wins. What of
    the cost was not measured is there without a value.
    """
    values = {name: training[name] for name in ("wall_seconds", "cpu_seconds", "peak_rss_mib")}
    attempts = training["facts"].get("attempts", [])
    if len(attempts) > 1:
        # The manifest's own clocks saw the last attempt only; CPU seconds of killed ones are not known.
        values |= {"wall_seconds": sum(attempt["wall_seconds"] for attempt in attempts), "cpu_seconds": None}
    values |= {"max_grad_norm": training["config"].get("training", {}).get("max_grad_norm")}
    values |= training["facts"]
    logged = set(pc.unique(metrics["metric"]).to_pylist())
    kept: dict[str, float | None] = {
        name: float(value)
        for name, value in values.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool) and name not in logged
    }
    spent = training["facts"].get("cost", {})
    for name in ("device_hours", "joules", "model_flops_utilisation"):
        if name in spent:
            kept[name] = float(spent[name]) if isinstance(spent[name], (int, float)) else None
    last = pc.max(metrics["step"]).as_py() or 0
    return pa.table(
        {
            "metric": list(kept),
            "step": [last] * len(kept),
            "value": pa.array(kept.values(), pa.float64()),
            "i": [i] * len(kept),
        }
    )


def _fitted(table: pa.Table, runs: list[dict[str, Any]], constants: dict[str, str]) -> pa.Table:
    """`table` with the columns of `SCHEMA`: its own, those of its run (by its column `i`), the constants, and nulls."""
    columns = []
    for name, kind in zip(SCHEMA.names, SCHEMA.types, strict=True):
        if name in constants:
            columns.append(pa.repeat(pa.scalar(constants[name], kind), len(table)))
        elif name in runs[0]:
            columns.append(pa.array([run[name] for run in runs], kind).take(table["i"].combine_chunks()))
        elif name in table.column_names:
            columns.append(table[name].cast(kind))
        else:
            columns.append(pa.nulls(len(table), kind))
    return pa.table(columns, schema=SCHEMA)


def _refuse_duplicates(table: pa.Table) -> None:
    counted = table.group_by(KEY).aggregate([([], "count_all")])
    twice = counted.filter(pc.greater(counted["count_all"], 1)).sort_by([(name, "ascending") for name in KEY])
    if len(twice):
        lines = [
            "  " + ", ".join(f"{name} {row[name]!r}" for name in KEY) + f": {row['count_all']} rows"
            for row in twice.slice(0, SHOWN_DUPLICATES).to_pylist()
        ]
        raise StageError(
            f"{len(twice)} numbers are in the ledger more than once:\n"
            + "\n".join(lines)
            + "\nTwo cells of one label, "
            "or a metrics stream that was written twice: give the cells different labels, or train the run again"
        )


def gaps(table: pa.Table, cells: list[dict[str, Any]], asked: list[list[str]], split: str = "test") -> list[str]:
    """What a comparison of `cells` lacks, one line each: runs, scores, the base model, equal test sets.

    A comparison is whole when every cell has every seed, every run is scored on the data sets that were `asked` of it
    (names, by place in `cells`) at the same steps as the other seeds of its cell, from the base model (step 0) on, and
    a data set has one number of rows throughout.
    """
    labels = list(dict.fromkeys(cell["cell"] for cell in cells))
    seeds = list(dict.fromkeys(cell["seed"] for cell in cells))
    planned = {(cell["cell"], cell["seed"]) for cell in cells}
    lines = [f"cell {c}, seed {s}: no such run" for c in labels for s in seeds if (c, s) not in planned]
    scores = table.filter(pc.and_(pc.equal(table["split"], split), pc.not_equal(table["dataset"], "")))
    steps: dict[tuple[str, str, int], set[int]] = {}
    rows: dict[str, set[float]] = {}
    for cell, seed, dataset, step, metric, denominator in zip(
        *(scores[name].to_pylist() for name in ("cell", "seed", "dataset", "step", "metric", "denominator")),
        strict=True,
    ):
        steps.setdefault((cell, dataset, seed), set()).add(step)
        if metric != "accuracy_token":  # counts tokens, and models have tokenizers of their own
            rows.setdefault(dataset, set()).add(denominator)
    for entry, datasets in zip(cells, asked, strict=True):
        cell, seed = entry["cell"], entry["seed"]
        for dataset in datasets:
            found = steps.get((cell, dataset, seed), set())
            together = set().union(*(steps.get((cell, dataset, other), set()) for other in seeds))
            if not found:
                lines.append(f"cell {cell}, seed {seed}: no scores on {dataset}")
            elif absent := sorted((together | {0}) - found):
                lines.append(f"cell {cell}, seed {seed}: no scores on {dataset} at step {', '.join(map(str, absent))}")
    lines += [
        f"{dataset}: scored on {' and '.join(f'{n:.0f}' for n in sorted(counts))} rows; one test set has one number"
        for dataset, counts in sorted(rows.items())
        if len(counts) > 1
    ]
    return lines


def write(table: pa.Table, parquet: Path, csv: Path) -> None:
    """The same rows twice: Parquet for programs, CSV (floats in their shortest exact text) for readers and git."""
    pq.write_table(table, parquet, compression="zstd")
    # pyarrow quotes all text or none; pandas, which quotes where needed, takes ten times as long.
    texts = [
        table[name].unique().to_pylist()
        for name, kind in zip(SCHEMA.names, SCHEMA.types, strict=True)
        if kind == "string"
    ]
    plain = not any(set(text) & set(',"\r\n') for text in chain.from_iterable(texts))
    write_csv(table, csv, WriteOptions(quoting_header="none", quoting_style="none" if plain else "needed"))


def provenance(directories: list[Path]) -> dict[str, dict[str, Any]]:
    """`{directory: manifest}` of these results and of everything they were made from, as far as it is still there.

    Left out of the copies: host names (archives are published) and the nested identity, which the manifests of
    the inputs repeat.
    """
    found: dict[str, dict[str, Any]] = {}
    waiting = [path.as_posix() for path in directories]
    while waiting:
        directory = waiting.pop()
        if directory in found:
            continue
        made = manifest.read(directory)
        if made is None:
            continue
        made.pop("identity", None)
        found[directory] = _without_hosts(made)
        waiting += [source["path"] for source in made["inputs"].values()]
    return dict(sorted(found.items()))


def _without_hosts(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_hosts(item) for name, item in value.items() if name not in ("host", "pid")}
    return [_without_hosts(item) for item in value] if isinstance(value, list) else value
