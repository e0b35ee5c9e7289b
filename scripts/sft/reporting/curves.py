"""Curves against the training step: every seed thin, the mean over seeds thick, its interval as a band.

Also the parts that all figures share: legend entries of the cells and the lines of the footer.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.ticker import LogLocator, NullLocator

from sft.config.nodes import Shown, ShownBaseline
from sft.reporting import figure_style as style
from sft.reporting import series
from sft.reporting.figure_sheet import Entry, spread, text_inches

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from sft.reporting.figure_sheet import Sheet

METRIC_NAMES = {
    "accuracy_strict": "strict answer",
    "accuracy_lenient": "lenient answer",
    "accuracy_likelihood": "likeliest choice",
    "accuracy_token": "likeliest token",
}
SEED_WIDTH, MEAN_WIDTH = 0.6, 1.6
SEED_ALPHA, BAND_ALPHA = 0.5, 0.16
MOST_MARKED_STEPS = 25  # more markers than that make a rope of the line
MOST_END_LABELS = 12
LOG_FROM_RATIO = 30.0  # values that span more than this are read on a logarithmic axis
LABELLED_RATIO = 300.0  # up to here a logarithmic axis has labels at 1, 2 and 5, beyond at powers of ten
SHOWN_CODES = 4


def split_name(settings: Shown) -> str:
    """The split that was scored, as titles name it."""
    return settings.split


def rows_note(settings: Shown, seeds: pd.DataFrame, dataset: str) -> str:
    """How many rows (or tokens, where those are scored) of a data set were scored: "480 test rows"."""
    unit = "tokens" if settings.metric == "accuracy_token" else "rows"
    return f"{series.rows_scored(seeds)[dataset]} {split_name(settings)} {unit}"


def accuracy_name(metric: str) -> str:
    """Axis label of a score, such as "Accuracy, likeliest choice (%)"."""
    return f"Accuracy, {METRIC_NAMES.get(metric, metric.removeprefix('accuracy_').replace('_', ' '))} (%)"


def draw(
    axes: "Axes",
    seeds: pd.DataFrame,
    mean: pd.DataFrame,
    cells: Sequence[str],
    scale: float = 1.0,
    within: tuple[float, float] = (-np.inf, np.inf),
) -> None:
    """Draw the curves of all `cells` in `seeds` and `mean` (frames of sft/reporting/series.py), values times `scale`.

    Bands are cut off at `within`: an interval may reach beyond 100 %, a picture of accuracies should not.
    """
    for place, cell in enumerate(cells):
        colour = style.colour(place)
        middle = mean[mean["cell"] == cell]
        marked = len(middle) <= MOST_MARKED_STEPS
        if middle["low"].notna().any():
            low, high = (middle["low"] * scale).clip(*within), (middle["high"] * scale).clip(*within)
            axes.fill_between(middle["step"], low, high, color=colour, alpha=BAND_ALPHA, linewidth=0, zorder=2)
        if seeds["seed"].nunique() > 1 or len(middle) < (seeds["cell"] == cell).sum():
            for _, line in seeds[seeds["cell"] == cell].groupby("seed", sort=False):
                thin: dict[str, Any] = {"linewidth": SEED_WIDTH, "alpha": SEED_ALPHA}
                axes.plot(line["step"], line["value"] * scale, color=colour, zorder=3, **thin)
        axes.plot(
            middle["step"],
            middle["value"] * scale,
            color=colour,
            linewidth=MEAN_WIDTH,
            marker=style.marker(place) if marked else None,
            markersize=3.6,
            markeredgecolor="white",
            markeredgewidth=0.5,
            zorder=4,
        )


def final_labels(mean: pd.DataFrame, cells: Sequence[str], scale: float, form: str) -> list[tuple[float, str, Any]]:
    """(value, text, colour) of the last mean of each cell, for `label_ends`."""
    last = series.final(mean)
    return [
        (scale * value, form.format(scale * value), style.colour(cells.index(cell)))
        for cell, value in zip(last["cell"], last["value"], strict=True)
    ]


def baseline_labels(
    baselines: Sequence[tuple[ShownBaseline, pd.DataFrame]], dataset: str, cells: Sequence[str]
) -> list[tuple[float, str, Any]]:
    """(percent, text, colour) of each baseline on a data set, for `label_ends`."""
    return [
        (100 * value, f"{baseline.label if _for_all(baseline, cells) else baseline.name} {100 * value:.1f}", ink)
        for baseline, frame in baselines
        for ink in [_baseline_colour(baseline, cells)]
        for value in frame.loc[frame["dataset"] == dataset, "value"]
    ]


def baseline_entries(baselines: Sequence[tuple[ShownBaseline, pd.DataFrame]], cells: Sequence[str]) -> list[Entry]:
    """Legend entries of baselines: one a name; of several under one name, each has the colour of its cell."""
    names = {one.name: "" if _for_all(one, cells) else " of each cell" for one, _ in baselines}
    look = {"color": style.INK} | style.DASHDOTTED
    return [Entry(f"{name}{of} (no language model)", look) for name, of in names.items()]


def draw_baselines(
    axes: "Axes", baselines: Sequence[tuple[ShownBaseline, pd.DataFrame]], dataset: str, cells: Sequence[str]
) -> None:
    """A line across for each baseline on a data set; one that belongs to all cells has its interval around it."""
    for baseline, frame in baselines:
        ink = _baseline_colour(baseline, cells)
        for score in frame[frame["dataset"] == dataset].itertuples():
            axes.axhline(100 * score.value, zorder=1, color=ink, **style.DASHDOTTED)
            if _for_all(baseline, cells):
                axes.axhspan(100 * score.low, 100 * score.high, color=ink, alpha=0.06, linewidth=0, zorder=0)


def _for_all(baseline: ShownBaseline, cells: Sequence[str]) -> bool:
    return set(baseline.cells) >= set(cells)


def _baseline_colour(baseline: ShownBaseline, cells: Sequence[str]) -> Any:
    """The colour of the cell whose rows it was fitted on; one that belongs to all cells has none of theirs."""
    return style.INK if _for_all(baseline, cells) else style.colour(list(cells).index(baseline.cells[0]))


def labelled(ends: Sequence[tuple[float, str, Any]]) -> bool:
    """Whether so few curves can be labelled at their ends."""
    return len(ends) <= MOST_END_LABELS


def label_ends(sheet: "Sheet", axes: "Axes", ends: Sequence[tuple[float, str, Any]]) -> None:
    """Write (value, text, colour) to the right of `axes`, each at the height of its value, none over another."""
    if not labelled(ends):
        return
    box = axes.get_position()
    left, low = box.x1 * sheet.width, box.y0 * sheet.height
    heights = axes.transData.transform([(axes.get_xlim()[1], value) for value, _, _ in ends])[:, 1] / sheet.figure.dpi
    line = style.SMALL_POINTS * 1.15 / 72
    places = spread(list(heights), line, low, low + sheet.panel_height)
    for (_, text, colour), y in zip(ends, places, strict=True):
        sheet.beside(left + 0.05, y, text, style.SMALL_POINTS, colour)


def end_room(ends: Sequence[tuple[float, str, Any]]) -> float:
    """Inches that `label_ends` needs at the right of a panel."""
    if not labelled(ends):
        return 0.1
    return max((text_inches(text, style.SMALL_POINTS) for _, text, _ in ends), default=0.0) + 0.1


def step_axis(axes: "Axes", steps: Sequence[int]) -> None:
    """Label the training steps: each one when they are few, round numbers otherwise."""
    known = sorted(set(steps))
    axes.set_xlabel("Training step")
    last = known[-1] if known[-1] > known[0] else known[0] + 1
    axes.set_xlim(known[0] - 0.03 * (last - known[0]), last + 0.03 * (last - known[0]))
    if len(known) <= 6 and min(np.diff(known), default=1) >= 0.1 * (last - known[0]):
        axes.set_xticks(known)
    else:
        axes.locator_params(axis="x", nbins=5, integer=True)


def spans_much(values: pd.Series) -> bool:
    """Whether `values` are all positive and differ so much that a logarithmic axis is needed."""
    return bool(values.min() > 0 and values.max() / values.min() > LOG_FROM_RATIO)


def value_axis(panels: Sequence["Axes"], values: pd.Series, lines: Sequence[float] = ()) -> None:
    """One value axis for all panels, from the values of the seeds and of `lines`: logarithmic when they span much.

    Intervals do not stretch it: with few seeds they can be wider than everything that happened.
    """
    low, high = min([float(values.min()), *lines]), max([float(values.max()), *lines])
    for axes in panels:
        if spans_much(values):
            axes.set_yscale("log")
            axes.set_ylim(low / 1.15, high * 1.15)
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < LABELLED_RATIO else (1,)))
            axes.yaxis.set_minor_locator(NullLocator())
            axes.yaxis.set_major_formatter("{x:g}")
        else:
            room = 0.05 * (high - low or abs(high) or 1.0)
            bottom = 0.0 if 0 <= low < 0.35 * high else low - room
            axes.set_ylim(bottom, high + room)


def label_rows(panels: Sequence["Axes"], columns: int, label: str) -> None:
    """The value axis is labelled at the first panel of each row only."""
    for i, axes in enumerate(panels):
        if i % columns == 0:
            axes.set_ylabel(label)
        else:
            axes.tick_params(axis="y", which="both", labelleft=False)


def cell_entries(cells: Sequence[str], marked: bool = True) -> list[Entry]:
    """Legend entries of the cells."""
    return [
        Entry(
            cell,
            {
                "color": style.colour(place),
                "linewidth": MEAN_WIDTH,
                "marker": style.marker(place) if marked else None,
                "markersize": 3.6,
                "markeredgecolor": "white",
                "markeredgewidth": 0.5,
            },
        )
        for place, cell in enumerate(cells)
    ]


def spread_entries(mean: pd.DataFrame, window: int = 1, points: bool = False, crowded: bool = False) -> list[Entry]:
    """Legend entries that say what thin lines (and `points`), thick lines and bands are.

    `window` is the number of logged steps that were averaged before the seeds were; in a `crowded` figure the lines
    of the seeds are these averages, too.
    """
    counts = sorted(int(n) for n in mean["n"].unique())
    names = [name for name in mean["interval"].unique() if name]
    thin = {"color": style.SOFT, "linewidth": SEED_WIDTH, "marker": "o" if points else None, "markersize": 2.2}
    thick = {"color": style.SOFT, "linewidth": MEAN_WIDTH}
    each = f", {window} steps at a time" if window > 1 else ""
    entries = []
    if counts[-1] > 1:
        kind = "geometric mean" if series.GEOMETRIC_INTERVAL in names else "mean"
        entries.append(Entry("one seed" + (each if crowded else ""), thin))
        if not points:
            entries.append(Entry(f"{kind} of {' or '.join(map(str, counts))} seeds{each}", thick))
    elif window > 1:
        entries += [] if crowded else [Entry("every logged step", thin)]
        entries.append(Entry(f"mean of {window} steps", thick))
    for name in names:
        of = f" (n = {' or '.join(map(str, counts))} seeds)" if points and counts[-1] > 1 else ""
        entries.append(Entry(name + of, {"facecolor": style.SOFT, "alpha": 0.25}, band=True))
    return entries


def footer(settings: Shown, seeds: pd.DataFrame) -> list[tuple[str, str]]:
    """Footer lines (text, colour): what it rests on, and what a reader must know before believing it."""
    numbers = ", ".join(str(seed) for seed in settings.seeds)
    plural = "seeds" if len(settings.seeds) > 1 else "one seed:"
    lines = [(f"Experiment {settings.experiment} · {plural} {numbers}", style.SOFT)]
    if split_name(settings) == "validation" and (seeds["dataset"] != "").any():
        text = "Validation rows, on which settings are chosen: no result. Results are of test rows."
        lines.append((text, style.WARNING))
    failed = int(seeds["n_errors"].fillna(0).sum())
    if failed:
        asked = int(seeds.loc[seeds["n_errors"].notna(), "denominator"].sum())
        lines.append((f"{failed} of {asked} answers failed; they count as wrong.", style.WARNING))
    cells = {code: sorted(set(seeds.loc[seeds["code"] == code, "cell"])) for code in sorted(seeds["code"].unique())}
    if len(cells) > 1 or any("+" in code for code in cells):
        shown = [f"{_short(code)} ({', '.join(names)})" for code, names in list(cells.items())[:SHOWN_CODES]]
        shown += [f"{len(cells) - SHOWN_CODES} more"] if len(cells) > SHOWN_CODES else []
        lines.append((f"Trained by different versions of the code: {'; '.join(shown)}.", style.WARNING))
    other = seeds[seeds["software"] != ""]
    for software, found in list(other.groupby("software")["cell"])[:SHOWN_CODES]:
        lines.append(
            (f"Other packages than the pinned ones: {software} ({', '.join(sorted(set(found)))}).", style.WARNING)
        )
    return lines


def _short(code: str) -> str:
    """The first digits of a code digest, or of several that one run was trained by."""
    return " then ".join(part[:8] for part in code.split("+"))


def shown(settings: Shown) -> str:
    """What a figure shows, counted: "3 cells, 3 seeds, 2 test sets"."""
    sets = f"{split_name(settings)} set"
    counts = {"cell": len(settings.cells), "seed": len(settings.seeds), sets: len(settings.datasets)}
    return ", ".join(f"{number} {noun}{'s' * (number != 1)}" for noun, number in counts.items())


def record_sources(stage: Any, seeds: pd.DataFrame) -> None:
    """Put into the manifest which runs the figure shows, what they cost, and which ledger they were read from."""
    from sft.reporting import costs
    from sft.runtime import manifest

    runs = seeds[["cell", "seed", "run", "run_key", "code"]].drop_duplicates()
    ledger = stage.input("ledger")
    spent = {row["directory"]: row for row in costs.read(ledger / costs.NAME) if row["rule"] == "train_model"}
    trained = [row for directory, row in spent.items() if directory.rpartition("/")[2] in set(runs["run"])]
    stage.record(
        runs=runs.to_dict("records"),
        cost={name: costs.total((row[name] for row in trained), 5) for name in ("device_hours", "joules")},
        ledger={"path": ledger.as_posix(), "sha256": manifest.file_digest(ledger / series.LEDGER)},
        codes=sorted(runs["code"].unique()),
    )
