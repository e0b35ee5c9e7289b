"""Shows how far every run is, and of failed ones the log's last lines: `sft status`.

Reads results/runs and asks squeue where there is one; works while Snakemake runs, after it has died, and without SLURM.
"""

import argparse
import dataclasses
import json
import sys
import time
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from sft.cli.progress import RUNS, RunProgress, of_planned, of_runs
from sft.runtime.training_log import duration

COLOURS = {"running": "green", "failed": "red", "killed": "red", "queued": "yellow", "stopped": "yellow"}
SHOWN_LOGS = 3
PLAIN_WIDTH = 160  # of a line in a file or pipe; a terminal tells its own


def run(options: argparse.Namespace) -> int:
    """Print the runs once or, with --watch, until Ctrl-C; 1 where there is none and no file says which."""
    if not options.files and not RUNS.is_dir():
        print(f"error: there is no {RUNS} here; nothing was started yet, or this is another directory", file=sys.stderr)
        return 1
    planned = directories(options.files) if options.files else None
    if options.json:
        print(json.dumps([dataclasses.asdict(run) for run in runs(planned)], indent=1))
        return 0
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=PLAIN_WIDTH)
    if options.watch is None:
        console.print(page(runs(planned)))
        return 0
    with Live(page(runs(planned)), console=console, auto_refresh=False, screen=console.is_terminal) as live:
        try:
            while True:
                time.sleep(options.watch)
                live.update(page(runs(planned)), refresh=True)
        except KeyboardInterrupt:
            return 0


def runs(planned: list[Path] | None) -> list[RunProgress]:
    """Where the planned runs are; all that were started here where none are named."""
    return of_runs() if planned is None else of_planned(planned)


def directories(files: list[Path]) -> list[Path]:
    """The directories of the runs of configuration files, in their order, each once."""
    from sft.cli.plans import planned  # takes half a second, and is not needed to see what is there

    return list(dict.fromkeys(Path(run.train.directory) for runs in planned(files).runs.values() for run in runs))


def page(runs: list[RunProgress]) -> Group:
    """The table, a line that counts, and the ends of the logs of failed runs."""
    rows = [
        {
            "run": escape(run.run),
            "state": f"[{COLOURS.get(run.state, 'default')}]{run.state}[/]",
            "step": f"{run.step}/{run.total}" if run.total else "",
            "loss": "" if run.loss is None else f"{run.loss:.4f}",
            "tokens/s": "" if run.tokens_per_second is None else f"{run.tokens_per_second:,.0f}",
            "left": "" if run.seconds_left is None else duration(run.seconds_left),
            "resumed": str(run.resumed) if run.resumed else "",
            "": escape(run.detail),
        }
        for run in runs
    ]
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    # Before anything has run most columns are empty, and the words of the last one need the room.
    headings = [heading for heading in (rows or [{}])[0] if any(row[heading] for row in rows)]
    for heading in headings:
        numeric = heading in ("step", "loss", "tokens/s", "left", "resumed")
        table.add_column(
            heading,
            justify="right" if numeric else "left",
            no_wrap=heading != "",
            overflow="fold",
            min_width=0 if heading else 16,
        )
    for row in rows:
        table.add_row(*(row[heading] for heading in headings))
    states = [run.state for run in runs]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    told = [run for run in runs if run.log]
    ends = [
        f"\n[bold]{escape(run.run)}[/bold]: {escape(run.log or '')} ends:\n"
        + "\n".join(f"    {escape(line)}" for line in run.log_ends)
        for run in told[:SHOWN_LOGS]
    ]
    if len(told) > SHOWN_LOGS:
        ends.append("and " + ", ".join(f"{escape(run.log or '')}" for run in told[SHOWN_LOGS:]))
    return Group(table, f"{len(runs)} runs: {counts or 'none'}", *ends)
