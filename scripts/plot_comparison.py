"""Plot what each cell learnt and forgot: accuracy before and after training on every test set, and the path between.

From the ledger of an experiment. Makes comparison.pdf, .svg, .png and comparison.csv (the plotted numbers). The first
two test sets span the plane of the second panel; with one test set there is no second panel, and with one cell and
one test set the rows are the evaluated steps.

    python scripts/plot_comparison.py results/experiments/digits_shift/figures/comparison
"""

from typing import Any

from sft.config.nodes import Shown
from sft.runtime.stage import Stage, run_stage

LEAST_PLANE, LARGEST_PLANE = 2.0, 2.3  # inches
PLANE_MARGIN = 0.62  # inches left of the plane, for its value axis


def make(stage: Stage) -> None:
    from sft.reporting import figure_style as style

    style.prepare()
    from sft.reporting import comparison, curves, series
    from sft.reporting.figure_sheet import EDGE, Sheet

    settings = stage.settings(Shown)
    cells, datasets = settings.cells, settings.datasets
    ledger = series.read_ledger(stage.input("ledger"))
    seeds, baselines = series.scores(ledger, settings), series.baselines(ledger, settings)
    mean = series.means(seeds)
    by_step = len(cells) == len(datasets) == 1
    pairs = list(dict.fromkeys(zip(seeds["dataset"], seeds["cell"], strict=True)))
    plane_of = tuple(datasets[:2])
    two = any({(name, cell) for name in plane_of} <= set(pairs) for cell in cells) and len(plane_of) == 2
    rows = [_step_name(step) for step in mean["step"]] if by_step else [cell for _, cell in pairs]
    height = max(comparison.changes_height(len(datasets), len(rows)), LEAST_PLANE if two else 0.0)
    sheet = Sheet(
        style.TEXT_INCHES if two else style.COLUMN_INCHES,
        height,
        settings.title,
        curves.accuracy_name(settings.metric)
        + (" at every evaluated step" if by_step else ": base model (hollow) and last step (filled)"),
        _legend(mean, datasets[1] if two else None) + curves.baseline_entries(baselines, cells),
        curves.footer(settings, seeds),
    )
    names = comparison.name_space(rows)
    columns = ["mean" if len(settings.seeds) > 1 else "accuracy"] if by_step else ["base", "final", "change"]
    numbers = len(columns) * comparison.NUMBER_WIDTH + EDGE
    plane = min(height, LARGEST_PLANE)
    width = sheet.width - EDGE - names - numbers - (PLANE_MARGIN + plane + EDGE if two else 0.0)
    panel = sheet.panel(EDGE + names, width)
    changes = comparison.Changes(sheet, panel, len(datasets), len(rows), names, columns)
    changes.axes.set_xlabel("Accuracy (%)")
    for dataset in datasets:
        changes.heading(dataset, curves.rows_note(settings, seeds, dataset))
        top = changes.y
        here, middle = seeds[seeds["dataset"] == dataset], mean[mean["dataset"] == dataset]
        if by_step:
            for _, point in middle.iterrows():
                step = point["step"]
                changes.row(_step_name(step), 0, [(point, here[here["step"] == step], step == 0)])
        else:
            for place, cell in enumerate(cells):
                if (dataset, cell) not in pairs:
                    continue
                lines, points = here[here["cell"] == cell], middle[middle["cell"] == cell]
                before = (series.base(points).iloc[0], series.base(lines), True)
                after = (series.final(points).iloc[0], series.final(lines), False)
                changes.row(cell, place, [before, after])
        for value, _, ink in curves.baseline_labels(baselines, dataset, cells):
            changes.axes.plot([value, value], [changes.y, top], color=ink, zorder=1, **style.DASHDOTTED)
    if two:
        left = sheet.width - EDGE - plane - 0.1
        path = sheet.panel(left, plane, "Path", _steps(mean["step"].unique()), height=plane)
        comparison.draw_path(sheet, path, seeds, mean, cells, plane_of)
        path.set_xlabel(f"Accuracy on {datasets[1]} (%)")
        path.set_ylabel(f"Accuracy on {datasets[0]} (%)")
    style.save(sheet.figure, stage, "comparison")
    plotted = series.plotted(seeds, mean, [frame for _, frame in baselines])
    plotted.to_csv(stage.output("comparison.csv"), index=False, lineterminator="\n")
    curves.record_sources(stage, seeds)
    stage.summary(curves.shown(settings))


def _legend(mean: Any, old: str | None) -> list[Any]:
    from sft.reporting import curves
    from sft.reporting import figure_style as style
    from sft.reporting.figure_sheet import Entry

    legend = curves.spread_entries(mean, points=True)
    if old is not None:
        legend.append(Entry(f"base model on {old}", style.DASHED))
    return legend


def _step_name(step: int) -> str:
    return f"step {step}" if step else "base model"


def _steps(steps: Any) -> str:
    known = [str(step) for step in sorted(steps)]
    return "steps " + (", ".join(known) if len(known) <= 6 else f"{known[0]} to {known[-1]}")


if __name__ == "__main__":
    run_stage(make, __doc__)
