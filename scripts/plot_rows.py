"""Plot accuracy at the last step against the number of training rows: what more examples bring.

From the ledger of an experiment whose cells differ in how many rows they are trained on. One line for each kind of cell
and for each baseline, every seed, their mean and its interval, the base model and chance; makes rows.pdf, .svg, .png
and rows.csv (the plotted numbers).

    python scripts/plot_rows.py results/experiments/wordnet_rows/figures/rows
"""

from sft.config.nodes import Shown
from sft.runtime.stage import Stage, run_stage


def make(stage: Stage) -> None:
    from sft.reporting import figure_style as style

    style.prepare()
    from sft.reporting import curves, series, training_rows
    from sft.reporting.accuracy_figure import draw_accuracy
    from sft.reporting.figure_sheet import Entry

    settings = stage.settings(Shown)
    ledger = series.read_ledger(stage.input("ledger"))
    scores = series.scores(ledger, settings)
    lines = training_rows.by_rows(scores, series.baselines(ledger, settings), settings)
    mean = series.means(lines)
    names = list(dict.fromkeys(lines["cell"]))
    trained = mean[mean["cell"].isin([line.name for line in settings.lines])]
    legend = curves.cell_entries(names) + curves.spread_entries(trained)
    if len(trained) < len(mean) and series.WILSON_INTERVAL not in set(trained["interval"]):
        legend.append(
            Entry(f"{series.WILSON_INTERVAL} (no seeds)", {"facecolor": style.SOFT, "alpha": 0.25}, band=True)
        )
    subtitle = "at the last step against the number of training rows"
    draw_accuracy(stage, "rows", names, lines, mean, scores, legend, subtitle, 1.9, training_rows.rows_axis)
    plotted = series.plotted(lines, mean).rename(columns={"cell": "line", "step": "training_rows"})
    plotted.to_csv(stage.output("rows.csv"), index=False, lineterminator="\n")
    stage.summary(f"{len(names)} lines over {lines['step'].nunique()} numbers of rows")


if __name__ == "__main__":
    run_stage(make, __doc__)
