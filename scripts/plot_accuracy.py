"""Plot accuracy on the test sets against the training step, one panel per test set.

From the ledger of an experiment. Every seed, their mean and its interval, the base model, baselines and chance; makes
accuracy.pdf, .svg, .png and accuracy.csv (the plotted numbers).

    python scripts/plot_accuracy.py results/experiments/digits_shift/figures/accuracy
"""

from sft.runtime.stage import Stage, run_stage

PANEL_HEIGHT = 1.75  # inches
MOST_COLUMNS = 2


def make(stage: Stage) -> None:
    from sft.reporting import figure_style as style

    style.prepare()
    from sft.reporting import curves, series
    from sft.reporting.figure_sheet import Entry, Sheet

    config, cells, chance = stage.config, stage.config["cells"], stage.config["chance"]
    ledger = series.read_ledger(stage.input("ledger"))
    seeds, baselines = series.scores(ledger, config), series.baselines(ledger, config)
    mean = series.means(seeds)
    based = 100 * series.base(seeds).groupby("dataset")["value"].mean()
    legend = curves.cell_entries(cells) + curves.spread_entries(mean)
    labels = {}
    for dataset in config["datasets"]:
        labels[dataset] = curves.final_labels(mean[mean["dataset"] == dataset], cells, 100, "{:.1f}")
        labels[dataset].append((based[dataset], f"base {based[dataset]:.1f}", style.SOFT))
        labels[dataset] += curves.baseline_labels(baselines, dataset, cells)
    if chance is not None:
        for ends in labels.values():
            ends.append((100 * chance, f"chance {100 * chance:g}", style.SOFT))
    legend += curves.baseline_entries(baselines, cells)
    if not all(curves.labelled(ends) for ends in labels.values()):
        legend += [Entry("base model", style.DASHED)] + [Entry("chance", style.DOTTED)] * (chance is not None)
    columns = min(len(config["datasets"]), MOST_COLUMNS)
    sheet = Sheet(
        style.COLUMN_INCHES if columns == 1 else style.TEXT_INCHES,
        PANEL_HEIGHT,
        config["title"],
        f"Accuracy on the {curves.split_name(config)} set against the training step",
        legend,
        curves.footer(config, seeds),
        rows=-(-len(config["datasets"]) // columns),
    )
    titles = [(dataset, curves.rows_note(config, seeds, dataset)) for dataset in config["datasets"]]
    room = max(curves.end_room(ends) for ends in labels.values())
    for axes, (dataset, ends) in zip(sheet.panels(columns, titles, room), labels.items(), strict=True):
        axes.axhline(based[dataset], zorder=1, **style.DASHED)
        if chance is not None:
            axes.axhline(100 * chance, zorder=1, **style.DOTTED)
        curves.draw_baselines(axes, baselines, dataset, cells)
        here = seeds["dataset"] == dataset
        curves.draw(axes, seeds[here], mean[mean["dataset"] == dataset], cells, 100, (0, 100))
        axes.set_ylim(-2, 102)
        axes.set_yticks(range(0, 101, 20))
        curves.step_axis(axes, seeds["step"])
        curves.label_ends(sheet, axes, ends)
    curves.label_rows(sheet.figure.axes, columns, curves.accuracy_name(config["metric"]))
    style.save(sheet.figure, stage, "accuracy")
    plotted = series.plotted(seeds, mean, [frame for _, frame in baselines])
    plotted.to_csv(stage.output("accuracy.csv"), index=False, lineterminator="\n")
    curves.record_sources(stage, seeds)
    stage.summary(curves.shown(config))


if __name__ == "__main__":
    run_stage(make, __doc__)
