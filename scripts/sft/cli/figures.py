"""Draws the figures and tables of finished experiments from their ledgers, and trains nothing: `sft figures`."""

import argparse
import sys
from pathlib import Path

from sft.cli.finished import experiment_of, lacking, say_unfinished
from sft.cli.plans import attached
from sft.cli.run import start
from sft.planning.node import Node
from sft.workflow import ARCHIVE


def run(options: argparse.Namespace) -> int:
    """Start Snakemake for what can be drawn; 1 where that is nothing, else Snakemake's exit code."""
    if ARCHIVE.exists():
        return start([], options.passed, ["figures"])
    known = attached(options.files)
    ready: list[str] = []
    unfinished: dict[str, list[Node]] = {}
    for node in known.plan.nodes.values():
        if node.rule.startswith(("plot_", "tabulate_")):
            if lacked := lacking(known, node):
                unfinished.setdefault(experiment_of(node), lacked)
            else:
                ready.append(node.manifest)
    for experiment, lacked in unfinished.items():
        say_unfinished(experiment, lacked, options.files)
    if ready:
        return start(options.files, options.passed, ready if unfinished else ["figures"])
    others = [path.parts[2] for path in sorted(Path().glob("results/experiments/*/ledger/manifest.json"))]
    others = [name for name in others if name not in known.plan.runs]
    if others:
        shown = ", ".join(others)
        print(f"Ledgers that are here: {shown}. Name the file that defines them: sft figures FILE", file=sys.stderr)
    return 1
