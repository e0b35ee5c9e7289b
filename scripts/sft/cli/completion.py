"""Prints a shell's completion script for the whole command line, made by shtab: `sft completion bash`."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sft.cli.arguments import command_line


def run(options: argparse.Namespace) -> int:
    """Print the script for `options.shell`."""
    import shtab

    parser = command_line()
    _complete_files(parser, shtab.FILE)  # what shtab calls a file, in each shell
    print(shtab.complete(parser, options.shell))
    return 0


def _complete_files(parser: argparse.ArgumentParser, files: Mapping[str, Any]) -> None:
    """Let every argument that is a path complete to files; nothing else says so to shtab."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for verb in action.choices.values():
                _complete_files(verb, files)
        elif action.type is Path:
            vars(action)["complete"] = files
