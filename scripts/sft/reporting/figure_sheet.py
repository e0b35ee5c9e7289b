"""The sheet that a figure is drawn on: title, legend, a row of panels, footer, all measured in inches.

The height follows from the content, so that a long title or footer moves the panels down instead of over them.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.textpath import text_to_path

from sft.reporting import figure_style as style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

POINTS_PER_INCH = 72
CAPITAL = 0.711  # height of a capital over the font size, in Roboto
EDGE = 0.05  # free space around everything
LEADING = 1.3  # line height over letter height
HANDLE, HANDLE_GAP, ENTRY_GAP = 0.22, 0.05, 0.16  # of one legend entry
LEGEND_ROW = 0.145
PANEL_TITLE = 0.19
AXIS_SPACE = 0.36  # tick labels and axis label below a panel
VALUE_SPACE = 0.42  # the same at the left of a row of panels
PANEL_GAP = 0.12


@dataclass(frozen=True)
class Entry:
    """One legend entry: what it is, and the Line2D (or, for a band, Rectangle) settings that draw it."""

    label: str
    look: dict[str, Any]
    band: bool = False


class Sheet:
    """A figure `width` inches wide with room for `rows` rows of panels, each panel `panel_height` inches high.

    `subtitle` says what is drawn; `footer` lines are (text, colour); `titled` panels have a title above.
    """

    def __init__(
        self,
        width: float,
        panel_height: float,
        title: str,
        subtitle: str,
        legend: Iterable[Entry],
        footer: Iterable[tuple[str, str]],
        rows: int = 1,
        titled: bool = True,
    ):
        room = width - 2 * EDGE
        head = [
            (line, style.TITLE_POINTS, "medium", style.INK)
            for line in wrapped(title, style.TITLE_POINTS, room, "medium")
        ]
        head += [(line, style.TEXT_POINTS, "normal", style.SOFT) for line in wrapped(subtitle, style.TEXT_POINTS, room)]
        keys = _flowed(legend, room)
        foot = [(line, colour) for text, colour in footer for line in wrapped(text, style.SMALL_POINTS, room)]
        foot_height = len(foot) * style.SMALL_POINTS * LEADING / POINTS_PER_INCH
        head_height = sum(points * LEADING for _, points, _, _ in head) / POINTS_PER_INCH
        self.width, self.panel_height = width, panel_height
        self.bottom = EDGE + foot_height + 0.04 + AXIS_SPACE
        self.row_height = panel_height + (PANEL_TITLE if titled else 0.05) + AXIS_SPACE
        panels = rows * self.row_height - AXIS_SPACE
        height = self.bottom + panels + 0.05 + len(keys) * LEGEND_ROW + 0.05 + head_height + EDGE
        self.height, self.rows = height, rows
        self.figure = Figure(figsize=(width, height))
        top = height - EDGE
        for text, points, weight, colour in head:
            self.text(EDGE, top, text, points, colour, weight=weight, va="top")
            top -= points * LEADING / POINTS_PER_INCH
        top -= 0.05
        for row in keys:
            self._legend_row(row, top - LEGEND_ROW / 2)
            top -= LEGEND_ROW
        low = EDGE + foot_height
        for text, colour in foot:
            self.text(EDGE, low, text, style.SMALL_POINTS, colour, va="top")
            low -= style.SMALL_POINTS * LEADING / POINTS_PER_INCH

    def text(self, x: float, y: float, text: str, points: float, colour: style.Color, **how: Any) -> None:
        """Write `text` at inches from the lower left corner."""
        self.figure.text(x, y, text, fontsize=points, color=colour, transform=self.figure.dpi_scale_trans, **how)

    def beside(self, x: float, y: float, text: str, points: float, colour: style.Color, **how: Any) -> None:
        """Write `text` so that the middle of its capitals and digits is at height `y`, whichever letters it has."""
        self.text(x, y - CAPITAL / 2 * points / POINTS_PER_INCH, text, points, colour, va="baseline", **how)

    def panel(
        self, left: float, width: float, title: str = "", note: str = "", row: int = 0, height: float | None = None
    ) -> "Axes":
        """Axes `width` inches wide, `left` inches from the left edge, with a title and a softer note beside it.

        A panel of another `height` than the others hangs from the same top.
        """
        top = self.bottom + (self.rows - 1 - row) * self.row_height + self.panel_height
        height = height or self.panel_height
        frame = (left / self.width, (top - height) / self.height, width / self.width, height / self.height)
        axes = self.figure.add_axes(frame)
        axes.spines[["top", "right"]].set_visible(False)
        y = top + 0.07
        if title:
            self.text(left, y, title, style.TEXT_POINTS, style.INK, weight="medium", va="bottom")
        if note:
            shift = text_inches(title, style.TEXT_POINTS, "medium") + 0.07 if title else 0.0
            self.text(left + shift, y, note, style.SMALL_POINTS, style.SOFT, va="bottom")
        return axes

    def panels(self, columns: int, titles: Sequence[tuple[str, str]], right: float) -> list["Axes"]:
        """One panel per (title, note), row by row, equally wide, each with `right` inches free at its right."""
        free = self.width - EDGE - VALUE_SPACE - columns * right - (columns - 1) * PANEL_GAP
        width = free / columns
        panels = []
        for i, (title, note) in enumerate(titles):
            row, column = divmod(i, columns)
            panels.append(self.panel(VALUE_SPACE + column * (width + right + PANEL_GAP), width, title, note, row))
        return panels

    def _legend_row(self, row: list[tuple[float, Entry]], y: float) -> None:
        inches = self.figure.dpi_scale_trans
        for x, entry in row:
            if entry.band:
                box = Rectangle((x, y - 0.035), HANDLE, 0.07, transform=inches, linewidth=0, **entry.look)
                self.figure.add_artist(box)
            else:
                xs = (x, x + HANDLE / 2, x + HANDLE)
                line = Line2D(xs, (y, y, y), transform=inches, markevery=[1], **entry.look)
                self.figure.add_artist(line)
            self.beside(x + HANDLE + HANDLE_GAP, y, entry.label, style.TEXT_POINTS, style.INK)


def _flowed(legend: Iterable[Entry], room: float) -> list[list[tuple[float, Entry]]]:
    """Entries with their x, in rows that fit into `room` inches."""
    rows: list[list[tuple[float, Entry]]] = []
    x = room + 1.0
    for entry in legend:
        wide = HANDLE + HANDLE_GAP + text_inches(entry.label, style.TEXT_POINTS)
        if x + wide > EDGE + room:
            rows.append([])
            x = EDGE
        rows[-1].append((x, entry))
        x += wide + ENTRY_GAP
    return rows


def wrapped(text: str, points: float, room: float, weight: str = "normal", after: str = " ") -> list[str]:
    """`text` broken after the characters `after` into lines of at most `room` inches; a longer word keeps its line."""
    lines: list[str] = []
    for word in re.findall(f"[^{re.escape(after)}]*[{re.escape(after)}]*", " ".join(text.split())):
        if lines and text_inches((lines[-1] + word).rstrip(), points, weight) <= room:
            lines[-1] += word
        elif word:
            lines.append(word)
    return [line.rstrip() for line in lines]


@cache
def text_inches(text: str, points: float, weight: str = "normal") -> float:
    """Printed width of one line."""
    if not text.strip():
        return 0.0
    letters = FontProperties(family=style.RC["font.family"], weight=weight, size=points)
    return text_to_path.get_text_width_height_descent(text, letters, ismath=False)[0] / POINTS_PER_INCH


def spread(wanted: list[float], distance: float, low: float, high: float) -> list[float]:
    """Positions as near as possible to `wanted`, at least `distance` apart, within [low, high] where they fit.

    Neighbours that would touch are placed as one block around their common middle.
    """
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    blocks: list[list[int]] = []
    starts: list[float] = []
    for i in order:
        blocks.append([i])
        starts.append(_start([wanted[i]], distance, low, high))
        while len(blocks) > 1 and starts[-1] < starts[-2] + len(blocks[-2]) * distance:
            tail = blocks.pop()
            starts.pop()
            blocks[-1] += tail
            starts[-1] = _start([wanted[j] for j in blocks[-1]], distance, low, high)
    places = [0.0] * len(wanted)
    for block, start in zip(blocks, starts, strict=True):
        for k, i in enumerate(block):
            places[i] = start + k * distance
    return places


def _start(wanted: list[float], distance: float, low: float, high: float) -> float:
    """Where a block begins whose members would like to be at `wanted`."""
    length = (len(wanted) - 1) * distance
    middle = sum(position - k * distance for k, position in enumerate(wanted)) / len(wanted)
    return max(low, min(high - length, middle))
