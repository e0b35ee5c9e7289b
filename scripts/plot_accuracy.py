"""Plot accuracy on the test sets against the training step, one panel per test set.

From the ledger of an experiment. Every seed, their mean and its interval, the base model, baselines and chance; makes
accuracy.pdf, .svg, .png and accuracy.csv (the plotted numbers).

    python scripts/plot_accuracy.py results/experiments/digits_shift/figures/accuracy
"""

from sft.config.nodes import Shown
from sft.runtime.stage import Stage, run_stage


def make(stage: Stage) -> None:
    from sft.reporting import figure_style as style

    style.prepare()
    from sft.reporting import curves, series
    from sft.reporting.accuracy_figure import draw_accuracy

    settings = stage.settings(Shown)
    cells = settings.cells
    ledger = series.read_ledger(stage.input("ledger"))
    seeds, baselines = series.scores(ledger, settings), series.baselines(ledger, settings)
    mean = series.means(seeds)
    legend = curves.cell_entries(cells) + curves.spread_entries(mean) + curves.baseline_entries(baselines, cells)
    subtitle = "against the training step"
    draw_accuracy(stage, "accuracy", cells, seeds, mean, seeds, legend, subtitle, 1.75, curves.step_axis, baselines)
    plotted = series.plotted(seeds, mean, [frame for _, frame in baselines])
    plotted.to_csv(stage.output("accuracy.csv"), index=False, lineterminator="\n")
    stage.summary(curves.shown(settings))


if __name__ == "__main__":
    run_stage(make, __doc__)
