"""The plan: every node that a study needs, by directory, and the runs of each experiment."""

from dataclasses import dataclass, field
from typing import Any

from sft.node import Node


class PlanError(Exception):
    """Two different results under one name (a collision of the 32-bit hash); says what to do."""


@dataclass(frozen=True)
class Run:
    """One run of an experiment: its cell, its seed, and its nodes."""

    experiment: str
    cell: str
    seed: int
    train: Node
    scores: Node
    audit: Node
    settings: dict[str, Any]


@dataclass
class Plan:
    """All nodes by directory, and the runs of each experiment in order."""

    nodes: dict[str, Node] = field(default_factory=dict)
    runs: dict[str, list[Run]] = field(default_factory=dict)

    def add(self, node: Node) -> Node:
        """The node of that directory: this one, or the equal one that is planned already."""
        known = self.nodes.setdefault(node.directory, node)
        if known.digest != node.digest:
            raise PlanError(
                f"{node.directory} would hold two different results (equal first 8 digits of their digests). "
                "Change any identity field of one of them, such as a seed"
            )
        known.gates |= node.gates
        return known

    def of_rule(self, *rules: str) -> list[Node]:
        """The planned nodes that these rules make."""
        return [node for node in self.nodes.values() if node.rule in rules]
