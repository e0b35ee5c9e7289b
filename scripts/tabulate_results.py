"""Tabulate the results of one experiment: one row for each cell and test set.

From the ledger of the experiment. Makes results.csv (every number, exact), results.md and results.tex (for readers,
in percent, with what training cost), and costs.csv (what everything that these numbers rest on cost, by rule).

    python scripts/tabulate_results.py results/experiments/digits_shift/table
"""

from sft.config.nodes import Shown
from sft.runtime.stage import Stage, run_stage


def make(stage: Stage) -> None:
    import pandas as pd

    from sft.reporting import costs, paired, series, table_text
    from sft.reporting.results_table import cost_rows, pair_rows, result_rows

    settings = stage.settings(Shown)
    ledger = series.read_ledger(stage.input("ledger"))
    rows, of_cells = result_rows(ledger, settings), cost_rows(ledger, settings)
    # Base models of their own for each seed, and cells with equal seeds: the table of results has these pairs already.
    compared = paired.read(stage.input("ledger")) if settings.baselines or settings.one_base else []
    pairs = pair_rows(compared, settings)
    by_cell = {row["cell"]: row for row in of_cells}
    everything = pd.DataFrame([row | by_cell.get(row["cell"], {}) for row in rows]).astype({"paired_seeds": "Int64"})
    everything.to_csv(stage.output("results.csv"), index=False, lineterminator="\n")
    rules = costs.by_rule(costs.read(stage.input("ledger") / costs.NAME))
    costs.write(rules, stage.output(costs.NAME), costs.RULE_COLUMNS)
    for name, text in (("results.md", table_text.markdown), ("results.tex", table_text.latex)):
        stage.output(name).write_text(text(settings.title, rows, of_cells, pairs, rules), encoding="utf-8")
    stage.record(codes=sorted({row["code"] for row in rows}))
    stage.summary(f"{len(rows)} rows")


if __name__ == "__main__":
    run_stage(make, __doc__)
