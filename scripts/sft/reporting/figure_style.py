"""The look of every figure, and how it is saved so that the same data give the same bytes.

Nothing of the reader's machine enters: no matplotlibrc, no system font, no locale, no date, no version text.
Colours are seaborn's "colorblind" palette; a marker of its own for every cell carries the same distinction in
print without colour. Sizes are those of a two-column paper: nothing smaller than 6 pt at the printed width.
"""

import atexit
import logging
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from sft.runtime.stage import Stage

COLUMN_INCHES, TEXT_INCHES = 3.35, 6.9  # one column and the full text width of a two-column paper
INK, SOFT, FAINT, WARNING = "#1f2328", "#5b636b", "#d9dde1", "#9a3412"
TITLE_POINTS, TEXT_POINTS, SMALL_POINTS = 8.5, 7.0, 6.0
DASHED: dict[str, Any] = {"color": SOFT, "linewidth": 0.9, "dashes": (4, 2)}
DASHDOTTED: dict[str, Any] = {
    "linewidth": 0.9,
    "dashes": (5, 1.5, 1, 1.5),
}  # of baselines, in the colour of what they belong to
DOTTED: dict[str, Any] = {"color": SOFT, "linewidth": 0.9, "dashes": (1, 2)}
Color = str | tuple[float, float, float]  # as matplotlib takes it
MARKERS = ("o", "s", "D", "^", "v", "P", "X")  # seven, so that with eight colours 56 cells differ
PNG_DPI = 220
FONTS = Path(__file__).resolve().parent / "fonts"

RC: dict[str, Any] = {
    "font.family": ["Roboto", "DejaVu Sans"],
    "font.size": TEXT_POINTS,
    "text.hinting": "none",
    "text.color": INK,
    "mathtext.fontset": "dejavusans",
    "axes.edgecolor": SOFT,
    "axes.labelcolor": INK,
    "axes.labelsize": TEXT_POINTS,
    "axes.labelpad": 3.0,
    "axes.linewidth": 0.6,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.5,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": SMALL_POINTS + 0.5,
    "ytick.labelsize": SMALL_POINTS + 0.5,
    "xtick.major.size": 2.5,
    "ytick.major.size": 0.0,
    "xtick.major.width": 0.6,
    "xtick.minor.visible": False,
    "ytick.minor.visible": False,
    "ytick.alignment": "center",
    "lines.linewidth": 1.6,
    "lines.solid_capstyle": "round",
    "lines.solid_joinstyle": "round",
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    # Letters as outlines: an SVG looks the same where Roboto is not installed. PDF embeds the font itself (type 42),
    # because publishers refuse the type 3 that matplotlib writes by default.
    "svg.fonttype": "path",
    "pdf.fonttype": 42,
    # Element ids of an SVG are random without a salt (matplotlib, svg.hashsalt).
    "svg.hashsalt": "snakemake-sft",
}


def prepare() -> None:
    """Import matplotlib and seaborn in a state that depends on this file alone. To be called before any drawing."""
    os.environ["MPLBACKEND"] = "agg"
    if not _writable_configuration():
        # No home (containers, cron): matplotlib keeps its list of fonts somewhere, or warns and does the same.
        directory = tempfile.mkdtemp(prefix="matplotlib-")
        os.environ["MPLCONFIGDIR"] = directory
        atexit.register(shutil.rmtree, directory, ignore_errors=True)
    import matplotlib

    # seaborn imports scipy.stats, if there is one, for density estimates. Nothing here draws them, and the import
    # takes as long as the whole figure (2 of 4 seconds).
    hidden = "scipy" not in sys.modules
    if hidden:
        sys.modules["scipy"] = None  # type: ignore[assignment]  # "not to be imported", says the import system
    import seaborn

    if hidden:
        del sys.modules["scipy"]
    from matplotlib import font_manager

    fonts = font_manager.fontManager
    shipped = Path(matplotlib.get_data_path())
    fonts.ttflist = [entry for entry in fonts.ttflist if shipped in Path(entry.fname).parents]
    for path in sorted(FONTS.glob("*.ttf")):
        fonts.addfont(path)
    # DejaVu Sans, which helps out with rare letters, has no medium weight; the regular one is right, without a warning.
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
    matplotlib.rcdefaults()
    seaborn.set_theme(context="paper", style="ticks", palette="colorblind", rc=RC)


def _writable_configuration() -> bool:
    configured = os.environ.get("MPLCONFIGDIR")
    if configured:
        return os.access(configured, os.W_OK)
    try:
        home = Path.home()
    except RuntimeError:
        return False
    return os.access(home, os.W_OK)


def colour(place: int) -> tuple[float, float, float]:
    """The colour of the cell at `place` in the order of the experiment."""
    import seaborn

    palette = seaborn.color_palette("colorblind")
    del palette[8], palette[6]  # the yellow and the light pink vanish on white paper
    return palette[place % len(palette)]


def marker(place: int) -> str:
    """The marker of the cell at `place` in the order of the experiment."""
    return MARKERS[place % len(MARKERS)]


def save(figure: "Figure", stage: "Stage", name: str) -> None:
    """Write `name`.pdf, .svg and .png without dates, versions or anything else that is not the picture."""
    figure.savefig(stage.output(f"{name}.pdf"), metadata={"Creator": None, "Producer": None, "CreationDate": None})
    figure.savefig(stage.output(f"{name}.svg"), metadata={"Creator": None, "Date": None})
    figure.savefig(stage.output(f"{name}.png"), metadata={"Software": None}, dpi=PNG_DPI)
