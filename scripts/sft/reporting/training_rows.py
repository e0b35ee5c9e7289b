"""The frames and the axis of a figure over the number of training rows.

`lines` in the configuration says which cells are points of one line: `[{"name", "points": [[rows, cell], ...]}]`. The
frames are those of sft/reporting/series.py with the name of the line as `cell` and the number of rows as `step`.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd
from matplotlib.ticker import FixedLocator, NullLocator

from sft.config.nodes import Shown, ShownBaseline
from sft.reporting import series

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CROWDED = 1.25  # a tick gets a label when its number is so many times the last labelled one


def by_rows(
    scores: pd.DataFrame, baselines: Sequence[tuple[ShownBaseline, pd.DataFrame]], settings: Shown
) -> pd.DataFrame:
    """The last scores of every line, then those of every baseline, by number of training rows."""
    rows_of = {cell: rows for line in settings.lines for rows, cell in line.points}
    last = series.final(scores)
    parts = []
    for line in settings.lines:
        for rows, cell in sorted(line.points):
            parts.append(last[last["cell"] == cell].assign(cell=line.name, step=rows))
    for baseline, of_baseline in sorted(baselines, key=lambda found: min(rows_of[c] for c in found[0].cells)):
        counts = {rows_of[cell] for cell in baseline.cells}
        parts += [of_baseline.assign(cell=baseline.name, step=number) for number in sorted(counts)]
    return pd.concat(parts, ignore_index=True)


def rows_axis(axes: "Axes", rows: pd.Series) -> None:
    """A logarithmic axis labelled at the numbers of rows that were trained on."""
    known = sorted(set(rows))
    axes.set_xlabel("Training rows")
    axes.set_xscale("log")
    axes.set_xlim(known[0] / 1.12, known[-1] * 1.12)
    shown: list[float] = []
    for number in known:
        if not shown or number >= CROWDED * shown[-1]:
            shown.append(number)
    axes.xaxis.set_major_locator(FixedLocator(shown))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter("{x:,.0f}")
