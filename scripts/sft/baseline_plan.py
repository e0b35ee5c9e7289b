"""The baselines of an experiment, planned: one for each set of training rows that its cells have."""

from dataclasses import dataclass

from sft.config.baseline import Baseline
from sft.config.fields import key_fields
from sft.node import Node


@dataclass(frozen=True)
class Fitted:
    """What a cell's models are trained on and asked about: its divided data set, its tests, its audit."""

    cell: str
    train: Node
    tests: dict[str, Node]
    split: str
    audit: Node


def baseline_nodes(name: str, baseline: Baseline, cells: list[Fitted]) -> list[tuple[str, Node, list[str]]]:
    """(label, node, cells) of every different result that `baseline` has for `cells`.

    Cells that are trained on the same rows and asked about the same ones share a baseline. It is called `name` where
    all cells do, and `name_cell` after the first such cell otherwise.
    """
    found: dict[str, tuple[Node, list[str]]] = {}
    for cell in cells:
        node = _node(baseline, cell)
        known, labels = found.setdefault(node.directory, (node, []))
        known.gates |= node.gates
        labels.append(cell.cell)
    return [(name if len(found) == 1 else f"{name}_{labels[0]}", node, labels) for node, labels in found.values()]


def _node(baseline: Baseline, cell: Fitted) -> Node:
    own = key_fields(baseline) | ({} if cell.split == "test" else {"split": cell.split})
    return Node(
        "fit_baseline",
        f"{baseline.method}-{cell.train.label}",
        {**own, "datasets": [node.id for node in cell.tests.values()]},
        own,
        {"train": cell.train} | cell.tests,
        parent="results/baselines/{id}",
        gates={f"audit-{cell.audit.id}": cell.audit},
    )
