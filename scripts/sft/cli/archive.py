"""Packs what a paper can cite, from finished results: `sft archive`."""

import argparse
import sys

from sft.cli.finished import lacking, say_unfinished
from sft.cli.plans import attached
from sft.cli.run import start
from sft.workflow import ARCHIVE


def run(options: argparse.Namespace) -> int:
    """Start Snakemake for the archive; 1 where a result is missing, else Snakemake's exit code."""
    if ARCHIVE.exists():
        print(f"error: an archive is unpacked here ({ARCHIVE}): it is what this command would make", file=sys.stderr)
        return 1
    known = attached(options.files)
    (node,) = known.plan.of_rule("archive")
    if lacked := lacking(known, node):
        say_unfinished(", ".join(known.plan.runs), lacked, options.files)
        return 1
    return start(options.files, options.passed, [node.manifest])
