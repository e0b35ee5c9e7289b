"""Writes results/report.html with Snakemake, from the results that are there: `sft report`."""

import argparse
import shlex
import sys

from sft.cli.plans import attached
from sft.cli.run import given, start
from sft.workflow import ARCHIVE

SHOWN = ("plot_", "tabulate_", "compare_expected", "audit_splits", "audit_labels")


def run(options: argparse.Namespace) -> int:
    """Start Snakemake for the report; 1 where there is nothing to show, else Snakemake's exit code."""
    words = (
        options.passed if given(options.passed, "--report") else ["--report", "results/report.html", *options.passed]
    )
    if ARCHIVE.exists():
        return start([], words)
    known = attached(options.files)
    shown = [node for node in known.plan.nodes.values() if node.rule.startswith(SHOWN)]
    ready = [node.manifest for node in shown if known.fresh(node.directory)]
    if len(ready) < len(shown):
        command = shlex.join(["sft", "run", *map(str, options.files)])
        some = f"{len(shown) - len(ready)} of {len(shown)} figures, tables and audits are not there"
        print(f"{some}{' and are left out' if ready else ''}. Make them with: {command}", file=sys.stderr)
    if not ready:
        return 1
    # Snakemake makes no report of a target that is not there, so the others are named.
    return start(options.files, words, ready if len(ready) < len(shown) else [])
