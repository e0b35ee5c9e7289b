"""Shows the results of experiments in the terminal, their tables and where the figures are: `sft show`."""

import argparse
import csv
import json
import sys
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from sft.cli.plans import experiments
from sft.reporting import costs
from sft.reporting.table_text import notes, result_columns, set_heading
from sft.runtime.stage import CONFIG

FIGURES = "figures/*/*.png"
REPORTS = ("results/report.html", "results/report.zip")
ALWAYS = ("cell", "base", "final", "95 % interval", "change", "against first")
WIDE = 110  # columns of a terminal that has room for the rest
TEXTS = ("experiment", "cell", "kind", "dataset", "split", "metric", "seeds", "by_seed", "code", "software")
COUNTS = ("test_rows", "n_seeds", "step", "errors")


def run(options: argparse.Namespace) -> int:
    """Print the tables of the experiments that are asked for, as text or JSON; 1 where there is none."""
    asked = experiments(options.places) if options.places else sorted(Path("results/experiments").glob("*"))
    shown = [experiment for experiment in asked if (experiment / "table/results.csv").exists()]
    if not shown:
        where = ", ".join(map(str, asked)) if options.places else "results/experiments"
        print(f"error: no finished table below {where}; run: sft run", file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps([described(experiment) for experiment in shown], indent=1))
        return 0
    console = Console(highlight=False)
    for experiment in shown:
        show(console, experiment)
    for report in REPORTS:
        if Path(report).exists():
            console.print(f"report: {report}")
    return 0


def described(experiment: Path) -> dict[str, Any]:
    """The results of one experiment, for programs."""
    rows = read_rows(experiment / "table/results.csv")
    return {
        "experiment": experiment.name,
        "title": title(experiment),
        "rows": rows,
        "notes": notes(rows),
        "cost": costs.read(experiment / "table" / costs.NAME),
        "figures": [str(figure) for figure in sorted(experiment.glob(FIGURES))],
    }


def title(experiment: Path) -> str:
    """What the experiment is called in its figures and tables."""
    return json.loads((experiment / "table" / CONFIG).read_text())["config"]["title"]


def show(console: Console, experiment: Path) -> None:
    """Print the table of one experiment, what its numbers are, and the paths of its figures."""
    rows = read_rows(experiment / "table/results.csv")
    console.print(f"[bold]{escape(title(experiment))}[/bold] [dim]({escape(experiment.name)})[/dim]")
    columns = [column for column in result_columns(rows) if column[0] != set_heading(rows[0])]
    if console.width < WIDE:
        columns = [column for column in columns if column[0] in ALWAYS]
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading, _ in columns:
        justify: Literal["left", "right"] = "left" if heading == "cell" else "right"
        table.add_column(
            heading, justify=justify, style="bold" if heading == "final" else "", no_wrap=heading != "cell"
        )
    for above, row in zip([None, *rows[:-1]], rows, strict=True):
        if above is None or above["dataset"] != row["dataset"]:
            table.add_row(f"[cyan]{escape(row['dataset'])}[/cyan]")
        table.add_row(*(escape(text(row)) for _, text in columns))
    console.print(table)
    for note in notes(rows):
        console.print(f"[dim]{escape(note)}[/dim]")
    for rule in costs.read(experiment / "table" / costs.NAME):
        if rule["rule"] == costs.ALL:
            joules = rule["joules"] if rule["joules"] == costs.NOT_MEASURED else f"{float(rule['joules']):,.0f}"
            console.print(
                f"[dim]Cost: {float(rule['device_hours']):.3g} device-hours, joules {joules}; by rule in "
                f"{escape(str(experiment / 'table' / costs.NAME))}.[/dim]"
            )
    for figure in sorted(experiment.glob(FIGURES)):
        console.print(escape(str(figure)), soft_wrap=True)
    console.print()


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of results.csv with their types."""
    with path.open(newline="", encoding="utf-8") as file:
        return [{name: typed(name, text) for name, text in row.items()} for row in csv.DictReader(file)]


def typed(name: str, text: str) -> Any:
    """One field: text, a count, a number, or None where it is empty."""
    if name in TEXTS:
        return text
    if not text:
        return None
    return int(text) if name in COUNTS else float(text)
