"""Starts the command line: `sft VERB …`, or `python -m sft.cli VERB …`. Only the module of that verb is imported."""

import gc
import importlib
import signal
import sys

from sft.cli import arguments


def main(words: list[str] | None = None) -> int:
    """Do what `words` ask for (default: those of the command line) and return the exit code."""
    gc.set_threshold(100_000)  # a verb is a moment, and most of it makes many small objects that stay
    options = arguments.parsed(sys.argv[1:] if words is None else words)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `sft check | head` ends quietly
    verb = importlib.import_module(f"sft.cli.{options.verb}")
    try:
        return verb.run(options)
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
