"""The two panels of the comparison: what each cell gained or lost, and the path it took.

*Changes*: one row per cell under each test set, from the base model (hollow) to the last step (filled), every seed as
a point below. *Path*: accuracy on the first test set against accuracy on the second, step by step; straight up learns
without forgetting, to the left forgets.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sft.reporting import figure_style as style
from sft.reporting import series
from sft.reporting.curves import MEAN_WIDTH, SEED_ALPHA, SEED_WIDTH
from sft.reporting.figure_sheet import LEADING, POINTS_PER_INCH, text_inches, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from sft.reporting.figure_sheet import Sheet

ROW, WIDEST_ROW = 0.235, 0.38  # inches a row takes in the panel of changes, at least and at most
HEADING = 0.25  # and the name of a test set above its rows
SEED_DROP = 0.062  # inches between the mean and the points of the seeds below it
SEED_LEVEL = 0.03  # inches further down for a point that would cover another
SEED_LEVELS = 3
LONGEST_NAME = 1.05  # inches, before the name of a row is broken
NUMBER_WIDTH = 0.42  # of the columns of numbers beside the panel
NARROW = 1.2  # inches; fewer labels on the axis below that
PERCENT = 100
LIMITS = (-2.0, 102.0)


MOST_PATH_LABELS = 7
MARGIN = 0.06  # below the last row


def changes_height(headings: int, rows: int) -> float:
    """Inches that the panel of changes needs for `rows` rows in all, under `headings` headings."""
    return headings * HEADING + rows * ROW + MARGIN


def row_name(name: str) -> tuple[list[str], float]:
    """The lines that the name of a row is written in, and their size in points: two small lines for a long one."""
    if text_inches(name, style.TEXT_POINTS) <= LONGEST_NAME:
        return [name], style.TEXT_POINTS
    lines = wrapped(name, style.SMALL_POINTS, LONGEST_NAME, after=" _,/")
    return [lines[0], "".join(lines[1:])] if len(lines) > 1 else lines, style.SMALL_POINTS


def name_space(names: Sequence[str]) -> float:
    """Inches that the names of the rows need at the left of the panel of changes."""
    sizes = [text_inches(line, points) for lines, points in map(row_name, names) for line in lines]
    return max(sizes) + 0.12


class Changes:
    """The panel of changes, filled from top to bottom, with room for `rows` rows in all, under `headings` headings.

    `names` is the space for the names of the rows (inches); `columns` names the numbers at the right.
    """

    def __init__(self, sheet: "Sheet", axes: "Axes", headings: int, rows: int, names: float, columns: Sequence[str]):
        self.sheet, self.axes = sheet, axes
        self.row_height = min(WIDEST_ROW, (sheet.panel_height - MARGIN - headings * HEADING) / rows)
        self.low, self.y = sheet.bottom, sheet.panel_height
        box = axes.get_position()
        self.left = box.x0 * sheet.width
        self.names = self.left - names
        self.columns = [box.x1 * sheet.width + NUMBER_WIDTH * (k + 1) for k in range(len(columns))]
        axes.set_ylim(0, sheet.panel_height)
        axes.set_xlim(*LIMITS)
        axes.set_xticks(range(0, 101, 20 if box.width * sheet.width > NARROW else 50))
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.grid(visible=True, axis="x")
        for x, name in zip(self.columns, columns, strict=True):
            top = self.low + self.y + 0.07
            sheet.text(x, top, name, style.SMALL_POINTS, style.SOFT, ha="right", va="bottom")

    def heading(self, name: str, note: str) -> None:
        """The name of a test set, with a softer note."""
        level = self.low + self.y - HEADING / 2
        paper = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
        self.sheet.beside(self.names, level, name, style.TEXT_POINTS, style.INK, weight="medium", bbox=paper)
        shift = text_inches(name, style.TEXT_POINTS, "medium") + 0.07
        self.sheet.beside(self.names + shift, level, note, style.SMALL_POINTS, style.SOFT, bbox=paper)
        self.y -= HEADING

    def row(self, name: str, place: int, points: Sequence[tuple[pd.Series, pd.DataFrame, bool]]) -> None:
        """One row: `points` are (mean, its seeds, hollow), in order; the numbers are theirs and the change."""
        colour, y = style.colour(place), self.y - self.row_height / 2
        centres = [PERCENT * mean["value"] for mean, _, _ in points]
        self.axes.plot(centres, [y] * len(points), color=colour, linewidth=1.1, alpha=0.55, zorder=2)
        for mean, seeds, hollow in points:
            self._point(y, place, mean, seeds, hollow)
        level = self.low + y
        ink = colour if any(not hollow for _, _, hollow in points) else style.SOFT
        lines, size = row_name(name)
        for k, line in enumerate(lines):
            shift = ((len(lines) - 1) / 2 - k) * size * LEADING / POINTS_PER_INCH
            self.sheet.beside(self.left - 0.08, level + shift, line, size, ink, ha="right")
        numbers: list[tuple[str, style.Color, str]] = [(f"{centre:.1f}", style.INK, "normal") for centre in centres]
        if len(centres) > 1:
            numbers.append((f"{centres[-1] - centres[0]:+.1f}".replace("-", "−"), colour, "medium"))
        for x, (number, its_ink, weight) in zip(self.columns, numbers, strict=True):
            self.sheet.beside(x, level, number, style.TEXT_POINTS, its_ink, ha="right", weight=weight)
        self.y -= self.row_height

    def _point(self, y: float, place: int, mean: pd.Series, seeds: pd.DataFrame, hollow: bool) -> None:
        colour: style.Color = style.SOFT if hollow else style.colour(place)
        if pd.notna(mean["low"]):
            low, high = np.clip([PERCENT * mean["low"], PERCENT * mean["high"]], 0, PERCENT)
            self.axes.plot(
                [low, high], [y, y], color=colour, linewidth=5.0, alpha=0.22, solid_capstyle="butt", zorder=1
            )
        if len(seeds) > 1:
            dots: dict[str, Any] = {
                "facecolors": "white" if hollow else colour,
                "edgecolors": colour,
                "linewidths": 0.5,
            }
            x, drops = self._unstacked(PERCENT * seeds["value"].to_numpy())
            self.axes.scatter(x, y - drops, s=4.0, zorder=4, **dots)
        inner: style.Color
        rim: style.Color
        inner, rim = ("white", colour) if hollow else (colour, "white")
        self.axes.plot(
            [PERCENT * mean["value"]],
            [y],
            linestyle="none",
            marker=style.marker(place),
            markersize=5.0,
            markerfacecolor=inner,
            markeredgecolor=rim,
            markeredgewidth=0.8,
            zorder=5 if hollow else 6,
        )

    def _unstacked(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Sorted `values` and how far below the row each is drawn, so that equal seeds lie under each other."""
        x = np.sort(values)
        apart = SEED_LEVEL / (self.axes.get_position().width * self.sheet.width) * (LIMITS[1] - LIMITS[0])
        levels: list[int] = []
        for i, value in enumerate(x):
            near = {levels[j] for j in range(i) if value - x[j] < apart}
            levels.append(min(set(range(SEED_LEVELS)) - near, default=0))
        return x, SEED_DROP + SEED_LEVEL * np.array(levels)


def draw_path(
    sheet: "Sheet",
    axes: "Axes",
    seeds: pd.DataFrame,
    mean: pd.DataFrame,
    cells: Sequence[str],
    plane: tuple[str, str],
) -> None:
    """Draw the path of every cell that has both test sets of `plane`, accuracy on the first up, on the second right."""
    new, old = plane
    seeds, mean = seeds[seeds["dataset"].isin(plane)], mean[mean["dataset"].isin(plane)]
    axes.set_xlim(*LIMITS)
    axes.set_ylim(*LIMITS)
    axes.set_xticks(range(0, 101, 20))
    axes.set_yticks(range(0, 101, 20))
    axes.grid(visible=True, axis="both")
    before = PERCENT * series.base(mean).groupby("dataset")["value"].mean()
    axes.axvline(before[old], zorder=1, **style.DASHED)
    ends: list[tuple[str, float, float, style.Color]] = []
    busy = [(before[old], y) for y in np.linspace(0, 100, 60)]
    for place, cell in enumerate(cells):
        if seeds.loc[seeds["cell"] == cell, "dataset"].nunique() < 2:
            continue
        colour = style.colour(place)
        for seed in dict.fromkeys(seeds["seed"]) if seeds["seed"].nunique() > 1 else ():
            x, y = _path(seeds[(seeds["cell"] == cell) & (seeds["seed"] == seed)], new, old)
            axes.plot(x, y, color=colour, linewidth=SEED_WIDTH, alpha=SEED_ALPHA, zorder=2)
            busy += _along(x, y)
        x, y = _path(mean[mean["cell"] == cell], new, old)
        axes.plot(x, y, color=colour, linewidth=MEAN_WIDTH, zorder=3)
        axes.scatter(x[1:-1], y[1:-1], s=5, color="white", edgecolors=colour, linewidths=0.7, zorder=4)
        end: dict[str, Any] = {
            "marker": style.marker(place),
            "markersize": 5.0,
            "markeredgecolor": "white",
            "markeredgewidth": 0.6,
        }
        axes.plot(x[-1:], y[-1:], color=colour, zorder=6, **end)
        ends.append((cell, x[-1], y[-1], colour))
        busy += _along(x, y)
    axes.plot(
        [before[old]], [before[new]], marker="o", markersize=4.5, color="white", markeredgecolor=style.SOFT, zorder=5
    )
    ends.append(("base model", before[old], before[new], style.SOFT))
    if len(ends) > MOST_PATH_LABELS:
        ends = ends[-1:]  # the rows of the other panel tell the colours
    _label_points(sheet, axes, ends, busy)


def _path(frame: pd.DataFrame, new: str, old: str) -> tuple[np.ndarray, np.ndarray]:
    """Percentages on `old` and on `new` at the steps that both have."""
    up = frame[frame["dataset"] == new].set_index("step")["value"]
    right = frame[frame["dataset"] == old].set_index("step")["value"]
    steps = up.index.intersection(right.index)
    return PERCENT * right[steps].to_numpy(), PERCENT * up[steps].to_numpy()


def _along(x: np.ndarray, y: np.ndarray) -> list[tuple[float, float]]:
    """Points along a path, for labels to keep away from."""
    at = np.linspace(0, len(x) - 1, 20 * max(len(x) - 1, 1) + 1)
    return list(zip(np.interp(at, range(len(x)), x), np.interp(at, range(len(x)), y), strict=True))


def _label_points(
    sheet: "Sheet", axes: "Axes", ends: Sequence[tuple[str, float, float, Any]], busy: Sequence[tuple[float, float]]
) -> None:
    """Write each (text, x, y, colour) near its point, where it covers least of paths and other labels."""
    box = axes.get_position()
    size = np.array([box.width * sheet.width, box.height * sheet.height])
    corner = np.array([box.x0 * sheet.width, box.y0 * sheet.height])
    scale = size / (LIMITS[1] - LIMITS[0])
    points = [(x, y) for _, x, y, _ in ends]
    taken = corner + (np.array([*busy, *points]) - LIMITS[0]) * scale
    weight = np.array([1.0] * len(busy) + [20.0] * len(points))
    for text, x, y, colour in ends:
        here = corner + (np.array([x, y]) - LIMITS[0]) * scale
        half = np.array([text_inches(text, style.TEXT_POINTS) / 2 + 0.02, style.TEXT_POINTS / POINTS_PER_INCH / 2])
        best = (np.inf, here)
        for away in (0.06, 0.14):
            for across, up in ((-1, 0), (1, 0), (0, 1), (0, -1), (-1, 1), (1, 1), (-1, -1), (1, -1)):
                middle = here + np.array([across, up]) * (half + away)
                low, top = middle - half, middle + half
                covered = weight[((taken > low) & (taken < top)).all(axis=1)].sum()
                outside = (low < corner).any() or (top > corner + size + (0.0, 0.1)).any()
                cost = covered + 1000 * outside + (abs(across) + abs(up)) / 10 + 20 * away
                best = min(best, (cost, middle), key=lambda candidate: candidate[0])
        middle = best[1]
        paper = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.3}
        sheet.beside(middle[0], middle[1], text, style.TEXT_POINTS, colour, ha="center", bbox=paper, zorder=7)
        grid = np.stack(np.meshgrid(*np.linspace(middle - half, middle + half, 8).T), axis=-1).reshape(-1, 2)
        taken, weight = np.concatenate([taken, grid]), np.concatenate([weight, np.full(len(grid), 5.0)])
