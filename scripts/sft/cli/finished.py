"""What can be made of finished runs alone: ledgers, figures, tables, the archive. Nothing is trained or scored."""

import shlex
import sys
from pathlib import Path

from sft.planning.node import Node
from sft.workflow import Attached

# Rules that need what runs left, and no model.
FROM_LEDGERS = ("collect_metrics", "plot_", "tabulate_", "archive")


def lacking(attached: Attached, node: Node) -> list[Node]:
    """What `node` is made from, near and far, that is not there and takes more than a ledger to make."""
    found: dict[str, Node] = {}
    seen: set[str] = set()
    waiting = [node]
    while waiting:
        one = waiting.pop()
        if one.directory in seen or attached.fresh(one.directory):
            continue
        seen.add(one.directory)
        if not one.rule.startswith(FROM_LEDGERS):
            found[one.directory] = one
        waiting += [*one.inputs.values(), *one.gates.values()]
    return list(found.values())


def experiment_of(node: Node) -> str:
    """The experiment that a figure, table or ledger belongs to."""
    parts = Path(node.directory).parts
    return parts[parts.index("experiments") + 1]


def say_unfinished(experiment: str, lacked: list[Node], files: list[Path]) -> None:
    """One line about an experiment whose figures cannot be drawn yet, and what finishes it."""
    trainings = sum(node.rule == "train_model" for node in lacked)
    of_them = f", {trainings} of them {'trainings' if trainings > 1 else 'a training'}" if trainings else ""
    command = shlex.join(["sft", "run", *map(str, files)])
    print(
        f"{experiment}: not finished, {len(lacked)} results are missing or to be made again{of_them}. "
        f"Finish it with: {command}",
        file=sys.stderr,
    )
