"""A figure of accuracies: one panel per test set, with the base model, baselines and chance as lines across."""

from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd

from sft.config.nodes import Shown, ShownBaseline
from sft.reporting import curves, series
from sft.reporting import figure_style as style
from sft.reporting.figure_sheet import Entry, Sheet
from sft.runtime.stage import Stage

MOST_COLUMNS = 2


def draw_accuracy(
    stage: Stage,
    name: str,
    cells: Sequence[str],
    lines: pd.DataFrame,
    mean: pd.DataFrame,
    scores: pd.DataFrame,
    legend: list[Entry],
    subtitle: str,
    panel_height: float,
    axis: Callable[[Any, pd.Series], None],
    baselines: Sequence[tuple[ShownBaseline, pd.DataFrame]] = (),
) -> None:
    """Draw the curves of `cells` in `lines` and their `mean` (frames of series) into <name>.pdf, .svg and .png.

    `scores` are those of the runs, with the base model at step 0. `axis` scales and labels the horizontal axis.
    `baselines` are drawn as lines across. A panel is `panel_height` inches high.
    """
    settings = stage.settings(Shown)
    chance = settings.chance
    datasets = settings.datasets
    based = 100 * series.base(scores).groupby("dataset")["value"].mean()
    across = [] if chance is None else [(100 * chance, f"chance {100 * chance:g}", style.SOFT)]
    labels = {}
    for dataset in datasets:
        labels[dataset] = curves.final_labels(mean[mean["dataset"] == dataset], cells, 100, "{:.1f}")
        labels[dataset].append((based[dataset], f"base {based[dataset]:.1f}", style.SOFT))
        labels[dataset] += curves.baseline_labels(baselines, dataset, cells) + across
    if not all(curves.labelled(ends) for ends in labels.values()):
        legend = [*legend, Entry("base model", style.DASHED), *(Entry("chance", style.DOTTED) for _ in across)]
    columns = min(len(datasets), MOST_COLUMNS)
    sheet = Sheet(
        style.COLUMN_INCHES if columns == 1 else style.TEXT_INCHES,
        panel_height,
        settings.title,
        f"Accuracy on the {curves.split_name(settings)} set {subtitle}",
        legend,
        curves.footer(settings, scores),
        rows=-(-len(datasets) // columns),
    )
    titles = [(dataset, curves.rows_note(settings, scores, dataset)) for dataset in datasets]
    room = max(curves.end_room(ends) for ends in labels.values())
    for axes, (dataset, ends) in zip(sheet.panels(columns, titles, room), labels.items(), strict=True):
        axes.axhline(based[dataset], zorder=1, **style.DASHED)
        if chance is not None:
            axes.axhline(100 * chance, zorder=1, **style.DOTTED)
        curves.draw_baselines(axes, baselines, dataset, cells)
        here = lines["dataset"] == dataset
        curves.draw(axes, lines[here], mean[mean["dataset"] == dataset], cells, 100, (0, 100))
        axes.set_ylim(-2, 102)
        axes.set_yticks(range(0, 101, 20))
        axis(axes, lines["step"])
        curves.label_ends(sheet, axes, ends)
    curves.label_rows(sheet.figure.axes, columns, curves.accuracy_name(settings.metric))
    style.save(sheet.figure, stage, name)
    curves.record_sources(stage, lines)
