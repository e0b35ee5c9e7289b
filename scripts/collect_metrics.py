"""Collect the ledger of one experiment: every number that its runs measured, in one tidy table.

From the metrics and manifests of its runs and their scores. Makes ledger.parquet and ledger.csv (columns:
sft/reporting/ledger.py), paired.csv (McNemar's test of each run against its base model, the first cell and the
baselines, row by row), runs.csv (one row a run: settings, keys, versions), costs.csv (time, device-hours, joules and
memory of every result that the numbers rest on) and provenance.json (the manifests of these results). A comparison that
lacks a run or a score is refused.

    python scripts/collect_metrics.py results/experiments/digits_shift/ledger
"""

import csv
import json
from pathlib import Path
from typing import Any

from sft.runtime import manifest
from sft.runtime.stage import Stage, StageError, run_stage

SHOWN_GAPS = 20


def make(stage: Stage) -> None:
    import pyarrow.compute as pc

    from sft.reporting import costs, ledger, paired

    cells, names = stage.config["cells"], stage.config.get("datasets", {})
    baselines, split = stage.config.get("baselines", []), stage.config.get("split", "test")
    table = ledger.collect(stage.config["experiment"], cells, stage.inputs(), names, baselines, split)
    asked = [
        [names.get(name, name) for name in manifest.read(path)["config"]["datasets"]]
        for path in stage.inputs("scores-").values()
    ]
    gaps = ledger.gaps(table, cells, asked, split)
    if gaps:
        more = [f"and {len(gaps) - SHOWN_GAPS} more"] if len(gaps) > SHOWN_GAPS else []
        raise StageError(
            f"experiment {stage.config['experiment']}: the comparison is not whole:\n  "
            + "\n  ".join(gaps[:SHOWN_GAPS] + more)
            + "\nMake what is missing (snakemake does), or take the cell or seed out of the experiment"
        )
    ledger.write(table, stage.output(ledger.PARQUET), stage.output(ledger.CSV))
    compared = paired.comparisons(stage.config["experiment"], cells, baselines, stage.inputs(), names, split)
    paired.write(compared, stage.output(ledger.PAIRED))
    provenance = ledger.provenance(list(stage.inputs().values()))
    _write_runs(stage, provenance, stage.output(ledger.RUNS))
    costs.write(costs.of_results(provenance), stage.output(costs.NAME))
    lines = [f"{json.dumps(path)}: {json.dumps(made, sort_keys=True)}" for path, made in provenance.items()]
    stage.output(ledger.PROVENANCE).write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    codes = sorted(pc.unique(table["code"]).to_pylist())
    if len(codes) > 1:
        stage.say(f"warning: the runs were trained by {len(codes)} versions of the code: {', '.join(codes)}")
    stage.record(rows=len(table), runs=len(cells), codes=codes)
    stage.summary(f"{len(table)} numbers of {len(cells)} runs")


def _prompts(stage: Stage, scores: dict[str, Any]) -> str:
    """`data set:digest` of the prompts as they were rendered for each test set, separated by blanks."""
    path = Path(scores["inputs"].get("predictions", {}).get("path", ""), "prompts.json")
    names = stage.config.get("datasets", {})
    shown = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return " ".join(f"{names.get(name, name)}:{prompts['digest'][:12]}" for name, prompts in sorted(shown.items()))


def _write_runs(stage: Stage, provenance: dict[str, dict[str, Any]], path: Path) -> None:
    from sft.reporting.ledger import DIGITS

    rows: list[dict[str, Any]] = []
    for i, cell in enumerate(stage.config["cells"]):
        directory, scores = stage.input(f"run-{i}").as_posix(), stage.input(f"scores-{i}").as_posix()
        made = provenance[directory]
        rows.append(
            {
                "experiment": stage.config["experiment"],
                "cell": cell["cell"],
                "seed": cell["seed"],
                "run": cell["run"],
                "directory": directory,
                "scores": scores,
                "run_key": made["key"][:DIGITS],
                "code": made["code"][:DIGITS],
                "environment": made["environment"][:DIGITS],
                "tokens": made["inputs"].get("tokens", {}).get("content", "")[:DIGITS],
                "prompts": _prompts(stage, manifest.read(scores) or {}),
                "commit": made["git"]["commit"],
                "started": made["started"],
                "ended": made["ended"],
                "wall_seconds": made["wall_seconds"],
                "cpu_seconds": made["cpu_seconds"],
                "peak_rss_mib": made["peak_rss_mib"],
            }
            | {f"settings.{key}": value for key, value in cell.get("settings", {}).items()}
        )
    names = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    run_stage(make, __doc__)
