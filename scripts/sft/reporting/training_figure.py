"""A figure of something that training itself measured, such as loss or gradient norm: one panel per split."""

from sft.config.nodes import Shown
from sft.reporting import curves, series
from sft.reporting import figure_style as style
from sft.reporting.figure_sheet import Sheet
from sft.runtime.stage import Stage

PANEL_HEIGHT = 1.75  # inches
MOST_STEPS = 40  # of the mean and its band; more are averaged in windows, or noise of single batches hides both
MOST_POINTS = 5_000  # of single seeds; more are drawn as averaged for the mean, or they cover it and each other


def draw_training_metric(
    stage: Stage, name: str, metric: str, splits: dict[str, str], subtitle: str, label: str, threshold: str = ""
) -> None:
    """Draw `metric` of the ledger into <name>.pdf, .svg, .png and <name>.csv.

    `splits` are the splits to show, each with the title of its panel; those that no run measured are left out.
    `threshold` names a metric whose value is drawn as a dashed line.
    """
    settings = stage.settings(Shown)
    cells = settings.cells
    ledger = series.read_ledger(stage.input("ledger"))
    seeds = series.training_metric(ledger, settings, metric, splits)
    averaged, window = series.windows(seeds, MOST_STEPS)
    crowded = len(seeds) > MOST_POINTS
    drawn = averaged if crowded else seeds
    mean = series.means(averaged, geometric=curves.spans_much(drawn["value"]))
    shown = [split for split in splits if (seeds["split"] == split).any()]
    lines = sorted(set(ledger.loc[(ledger["metric"] == threshold) & ledger["cell"].isin(cells), "value"]))
    marked = mean.groupby(["cell", "split"]).size().max() <= curves.MOST_MARKED_STEPS
    legend = curves.cell_entries(cells, marked) + curves.spread_entries(mean, window, crowded=crowded)
    labels = {split: curves.final_labels(mean[mean["split"] == split], cells, 1, "{:#.3g}") for split in shown}
    for ends in labels.values():
        ends += [(value, f"clip {value:g}", style.SOFT) for value in lines]
    columns = len(shown)
    sheet = Sheet(
        style.COLUMN_INCHES if columns == 1 else style.TEXT_INCHES,
        PANEL_HEIGHT,
        settings.title,
        subtitle,
        legend,
        curves.footer(settings, seeds),
        titled=any(splits.values()),
    )
    room = max(curves.end_room(ends) for ends in labels.values())
    panels = sheet.panels(columns, [(splits[split], "") for split in shown], room)
    curves.value_axis(panels, drawn["value"], lines)
    for axes, split in zip(panels, shown, strict=True):
        for value in lines:
            axes.axhline(value, zorder=1, **style.DASHED)
        curves.draw(axes, drawn[drawn["split"] == split], mean[mean["split"] == split], cells)
        curves.step_axis(axes, seeds["step"])
        curves.label_ends(sheet, axes, labels[split])
    curves.label_rows(panels, columns, label)
    style.save(sheet.figure, stage, name)
    series.plotted(drawn, mean).to_csv(stage.output(f"{name}.csv"), index=False, lineterminator="\n")
    curves.record_sources(stage, seeds)
    stage.summary(curves.shown(settings))
