"""Plot whether other packages changed a result: cells of an experiment that differ in their environment alone.

From the ledger of an experiment. For each group of such cells: the loss in every environment, and its absolute
difference to the first one step by step; the footer says in words what is equal and where it begins to differ.
Makes environments.pdf, .svg, .png and environments.csv (a row for each comparison and seed).

    python scripts/plot_environments.py results/experiments/digits_environments/figures/environments
"""

import json
from typing import Any

from sft.config.nodes import ComparedCell, Shown
from sft.runtime.stage import Stage, run_stage

PANEL_HEIGHT = 1.6  # inches
DASHES = (3, 2)


def make(stage: Stage) -> None:
    from sft.reporting import figure_style as style

    style.prepare()
    import pandas as pd

    from sft.reporting import curves, environments, series
    from sft.reporting.figure_sheet import Sheet

    settings = stage.settings(Shown)
    ledger = series.read_ledger(stage.input("ledger"))
    rows = environments.comparisons(ledger, environments.read_runs(stage.input("ledger")), settings)
    losses = series.training_metric(ledger, settings, "loss", ("train",))
    sentences = [environments.told(row) for row in rows]
    footer = [(text, style.SOFT if equal else style.WARNING) for text, equal in sentences]
    names = list(dict.fromkeys(entry.environment for group in settings.compared for entry in group))
    sheet = Sheet(
        style.TEXT_INCHES,
        PANEL_HEIGHT,
        settings.title,
        "Training loss in each environment, and its absolute difference to the first",
        _legend(names),
        [*footer, *curves.footer(settings, losses)],
        rows=len(settings.compared),
    )
    titles = []
    for group in settings.compared:
        several = len(settings.compared) > 1
        titles += [("Loss", group[0].cell if several else ""), ("Difference", f"to {group[0].environment}")]
    panels = sheet.panels(2, titles, 0.45)
    for i, group in enumerate(settings.compared):
        _draw(panels[2 * i : 2 * i + 2], ledger, losses, group, names, settings.seeds)
    style.save(sheet.figure, stage, "environments")
    table = pd.DataFrame([{**row, "scores": json.dumps(row["scores"], sort_keys=True)} for row in rows])
    table["told"] = [text for text, _ in sentences]
    for metric in environments.METRICS:
        table[f"first_diverging_{metric}"] = table[f"first_diverging_{metric}"].astype("Int64")
    table.to_csv(stage.output("environments.csv"), index=False, lineterminator="\n")
    curves.record_sources(stage, losses)
    same = sum(equal for _, equal in sentences)
    stage.record(equal=same, compared=len(rows), told=[text for text, _ in sentences])
    stage.summary(f"{same} of {len(rows)} comparisons equal to the last bit")


def _legend(names: list[str]) -> list[Any]:
    from sft.reporting import curves
    from sft.reporting.figure_sheet import Entry

    first, *others = curves.cell_entries(names, marked=False)
    return [Entry(first.label, first.look | {"dashes": DASHES}), *others]


def _draw(
    panels: Any, ledger: Any, losses: Any, group: tuple[ComparedCell, ...], names: list[str], seeds: tuple[int, ...]
) -> None:
    from matplotlib.ticker import NullLocator

    from sft.reporting import curves, environments
    from sft.reporting import figure_style as style

    loss, difference = panels
    # The reference lies on top, or it would not be seen under an environment that changed nothing: dashed lines let
    # the one below through.
    for entry in group:
        colour = style.colour(names.index(entry.environment))
        look = {"color": colour, "linewidth": 1.2}
        if entry is group[0]:
            look |= {"dashes": DASHES, "zorder": 5}
        for _, line in losses[losses["cell"] == entry.cell].groupby("seed", sort=False):
            loss.plot(line["step"], line["value"], **look)
    here = losses[losses["cell"].isin([entry.cell for entry in group])]
    curves.value_axis([loss], here["value"])
    curves.step_axis(loss, here["step"])
    curves.step_axis(difference, here["step"])
    largest = smallest = 0.0
    for entry in group[1:]:
        colour = style.colour(names.index(entry.environment))
        for seed in seeds:
            table = environments.differences(ledger, "loss", (group[0].cell, seed), (entry.cell, seed))
            apart = table[table["difference"] != 0]
            if len(apart):
                values = apart["difference"].abs()
                largest = max(largest, float(values.max()))
                smallest = min(smallest or float(values.min()), float(values.min()))
                difference.plot(apart["step"], values, color=colour, linewidth=0.9, marker="o", markersize=2)
    if largest:
        difference.set_yscale("log")
        difference.yaxis.set_minor_locator(NullLocator())
        difference.set_ylim(smallest / 2, largest * 2)
    else:
        difference.set_yticks([0])
        difference.set_ylim(-0.5, 1)
        difference.axhline(0, color=style.colour(names.index(group[1].environment)), linewidth=1.6)
        text = {"ha": "center", "va": "center", "color": style.SOFT, "fontsize": style.TEXT_POINTS}
        difference.text(0.5, 0.6, "no difference at any step", transform=difference.transAxes, **text)


if __name__ == "__main__":
    run_stage(make, __doc__)
