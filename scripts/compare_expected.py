"""Compare the runs of an experiment with published values of loss and grad_norm; fails where one is further off.

From the ledger of the experiment and the file that its `expected:` names. Makes comparison.csv (run, step, metric,
expected, measured, difference).

    python scripts/compare_expected.py results/experiments/trl_capybara/expected
"""

import csv
from pathlib import Path
from typing import Any

from sft.runtime.stage import Stage, StageError, run_stage
from sft.sources import local_files


def make(stage: Stage) -> None:
    from sft.data.read.tables import read_rows
    from sft.reporting import expected

    path = Path(stage.config["expected"])
    published = expected.read(path)
    measured: dict[tuple[str, int, str], dict[int, float]] = {}
    for row in read_rows(
        stage.input("ledger") / "ledger.parquet", ["cell", "seed", "split", "step", "metric", "value"]
    ):
        if row["split"] == "train" and row["metric"] in expected.METRICS:
            measured.setdefault((row["cell"], row["seed"], row["metric"]), {})[row["step"]] = row["value"]
    found: list[str] = []
    table: list[dict[str, Any]] = []
    runs = [(cell, seed) for cell in stage.config["cells"] for seed in stage.config["seeds"]]
    for cell, seed in runs:
        for metric in expected.METRICS:
            rows = expected.differences(measured.get((cell, seed, metric), {}), published[metric], metric)
            table += [{"cell": cell, "seed": seed, **row} for row in rows]
            found += [
                f"{cell}, seed {seed}: {fault}" for fault in expected.faults(rows, published["tolerances"][metric])
            ]
    if found:
        source = published.get("source", path.as_posix())
        raise StageError(
            f"experiment {stage.config['experiment']}: not what is published ({source}):\n  " + "\n  ".join(found)
        )
    with stage.output("comparison.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(table[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(table)
    largest = {
        metric: max(abs(row["difference"]) for row in table if row["metric"] == metric) for metric in expected.METRICS
    }
    stage.record(source_files=local_files.describe([path]), runs=len(runs), largest_differences=largest)
    told = ", ".join(f"{metric} within {value:.1e}" for metric, value in largest.items())
    stage.summary(f"{len(published['loss'])} steps of {len(runs)} runs as published: {told}")


if __name__ == "__main__":
    run_stage(make, __doc__)
