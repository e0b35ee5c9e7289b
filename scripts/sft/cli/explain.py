"""Prints the settings in which two results differ, and nothing that they share: `sft explain A B`."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from sft.cli.plans import planned
from sft.planning.differences import Difference, differences, record_differences
from sft.planning.plan import Plan
from sft.runtime import manifest
from sft.terms.nearest import nearest


class UnknownResultError(Exception):
    """A text that names no result; says what would."""


def run(options: argparse.Namespace) -> int:
    """Compare the two, as text or JSON; 1 where one of them is nothing that is known."""
    try:
        first, second = (result(name, options.files) for name in (options.first, options.second))
    except UnknownResultError as error:
        print(error, file=sys.stderr)
        return 1
    found = differences(first["identity"], second["identity"])
    records = [manifest.read(document["directory"]) for document in (first, second)]
    made = [] if found or records[0] is None or records[1] is None else record_differences(records[0], records[1])
    if options.json:
        print(
            json.dumps(
                {
                    "first": first["id"],
                    "second": second["id"],
                    "equal": not found,
                    "differences": [difference._asdict() for difference in found],
                    "made_differently": [difference._asdict() for difference in made],
                },
                indent=1,
            )
        )
    elif found:
        show(found, first["id"], second["id"])
        print(f"{len(found)} fields differ; all others are equal")
    else:
        print(f"{options.first} and {options.second} are one result: {first['id']}")
        if made:
            print("Their settings are equal, but they were not made alike:")
            show(made, first["directory"], second["directory"])
    return 0


def result(name: str, files: list[Path]) -> dict[str, Any]:
    """`{id, identity, directory, ...}` of what `name` means; UnknownResultError where it means nothing."""
    for directory in (Path(name), Path("results/runs", name)):
        try:
            document = written(directory)
        except (FileNotFoundError, NotADirectoryError):
            continue
        return document | {"directory": str(directory), "identity": whole_identity(document, {})}
    return cell(name, planned(files))


def written(directory: Path) -> dict[str, Any]:
    """The `config.json` of a result; UnknownResultError for a damaged one."""
    try:
        return json.loads((directory / "config.json").read_text())
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise UnknownResultError(f"{directory}/config.json is damaged. Delete it: Snakemake writes it") from None


def whole_identity(document: dict[str, Any], known: dict[str, Any]) -> dict[str, Any]:
    """Its identity, with what stands behind the digests in it where that lies in the directories that it names.

    `known`: those of directories that were read already, and what is added to them.
    """
    identity, above = document["identity"], {}
    for name, one in identity.get("from", {}).items():
        directory = document["inputs"].get(name, "")
        if directory not in known and Path(directory, "config.json").is_file():
            known[directory] = whole_identity(written(Path(directory)), known)
        above[name] = known.get(directory, one)
    return identity | {"from": above}


def cell(name: str, plan: Plan) -> dict[str, Any]:
    """The result that the plan has under this id, directory or experiment/cell/seed."""
    known = {node.id: node for node in plan.nodes.values()} | plan.nodes
    for runs in plan.runs.values():
        for run in runs:
            known[f"{run.experiment}/{run.cell}/{run.seed}"] = run.train
            if all(other.cell == run.cell for other in runs):
                known[f"{run.experiment}/{run.seed}"] = run.train
    key = name.rstrip("/").replace("/seed-", "/")
    if key not in known:
        near = nearest(key, known)
        hint = f"Did you mean {near}?" if near else "Give a directory with a config.json, or experiment/cell/seed"
        raise UnknownResultError(f"{name}: no such result, run or cell. {hint}")
    found = known[key]
    return {"id": found.id, "identity": found.whole_identity(), "directory": found.directory}


def show(found: list[Difference], first: str, second: str) -> None:
    """Print the table of differences."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("field", no_wrap=True)
    table.add_column("A", overflow="fold")
    table.add_column("B", overflow="fold")
    for row in found:
        table.add_row(*map(Text, row))
    print(f"A = {first}\nB = {second}\n")
    Console().print(table)
    print()
