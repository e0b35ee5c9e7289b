"""Plot accuracy at the last step against the number of training rows: what more examples bring.

From the ledger of an experiment whose cells differ in how many rows they are trained on. One line for each kind of cell
and for each baseline, every seed, their mean and its interval, the base model and chance; makes rows.pdf, .svg, .png
and rows.csv (the plotted numbers).

    python scripts/plot_rows.py results/experiments/wordnet_rows/figures/rows
"""

from sft.runtime.stage import Stage, run_stage

PANEL_HEIGHT = 1.9  # inches
MOST_COLUMNS = 2


def make(stage: Stage) -> None:
    from sft.reporting import figure_style as style

    style.prepare()
    from sft.reporting import curves, series, training_rows
    from sft.reporting.figure_sheet import Entry, Sheet

    config, chance = stage.config, stage.config["chance"]
    ledger = series.read_ledger(stage.input("ledger"))
    scores = series.scores(ledger, config)
    lines = training_rows.by_rows(scores, series.baselines(ledger, config), config)
    mean = series.means(lines)
    names = list(dict.fromkeys(lines["cell"]))
    based = 100 * series.base(scores).groupby("dataset")["value"].mean()
    labels = {}
    for dataset in config["datasets"]:
        labels[dataset] = curves.final_labels(mean[mean["dataset"] == dataset], names, 100, "{:.1f}")
        labels[dataset].append((based[dataset], f"base {based[dataset]:.1f}", style.SOFT))
        if chance is not None:
            labels[dataset].append((100 * chance, f"chance {100 * chance:g}", style.SOFT))
    trained = mean[mean["cell"].isin([line["name"] for line in config["lines"]])]
    legend = curves.cell_entries(names) + curves.spread_entries(trained)
    if len(trained) < len(mean) and series.WILSON_INTERVAL not in set(trained["interval"]):
        legend.append(
            Entry(f"{series.WILSON_INTERVAL} (no seeds)", {"facecolor": style.SOFT, "alpha": 0.25}, band=True)
        )
    if not all(curves.labelled(ends) for ends in labels.values()):
        legend += [Entry("base model", style.DASHED)] + [Entry("chance", style.DOTTED)] * (chance is not None)
    columns = min(len(config["datasets"]), MOST_COLUMNS)
    sheet = Sheet(
        style.COLUMN_INCHES if columns == 1 else style.TEXT_INCHES,
        PANEL_HEIGHT,
        config["title"],
        f"Accuracy on the {curves.split_name(config)} set at the last step against the number of training rows",
        legend,
        curves.footer(config, scores),
        rows=-(-len(config["datasets"]) // columns),
    )
    titles = [(dataset, curves.rows_note(config, scores, dataset)) for dataset in config["datasets"]]
    room = max(curves.end_room(ends) for ends in labels.values())
    for axes, (dataset, ends) in zip(sheet.panels(columns, titles, room), labels.items(), strict=True):
        axes.axhline(based[dataset], zorder=1, **style.DASHED)
        if chance is not None:
            axes.axhline(100 * chance, zorder=1, **style.DOTTED)
        here = lines["dataset"] == dataset
        curves.draw(axes, lines[here], mean[mean["dataset"] == dataset], names, 100, (0, 100))
        axes.set_ylim(-2, 102)
        axes.set_yticks(range(0, 101, 20))
        training_rows.rows_axis(axes, lines["step"])
        curves.label_ends(sheet, axes, ends)
    curves.label_rows(sheet.figure.axes, columns, curves.accuracy_name(config["metric"]))
    style.save(sheet.figure, stage, "rows")
    plotted = series.plotted(lines, mean).rename(columns={"cell": "line", "step": "training_rows"})
    plotted.to_csv(stage.output("rows.csv"), index=False, lineterminator="\n")
    curves.record_sources(stage, lines)
    stage.summary(f"{len(names)} lines over {lines['step'].nunique()} numbers of rows")


if __name__ == "__main__":
    run_stage(make, __doc__)
