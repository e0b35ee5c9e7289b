"""The plan: every node that a study needs, by directory, and the runs of each experiment."""

from dataclasses import dataclass, field
from typing import Any

from sft.planning.node import Node
from sft.runtime.installed import VENV_PYTHON


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
    labels: Node
    settings: dict[str, Any]


@dataclass(frozen=True)
class PlannedBaseline:
    """A baseline of an experiment: its name in the file, what it is called in results, its nodes, and its cells."""

    name: str
    label: str
    fitted: Node
    scores: Node
    cells: tuple[str, ...]


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

    def join(self) -> None:
        """Let small nodes be made by the process of the one job that needs them.

        Importing torch and transformers costs a process 10 CPU seconds, more than it takes to convert a small run. A
        node joins the only job that needs it, jobs after that one left aside; where several need it, or where
        the job holds a GPU meanwhile, it stays a job of its own.
        """
        users: dict[str, list[Node]] = {}
        for node in self.nodes.values():
            for above in node.inputs.values():
                users.setdefault(above.directory, []).append(node)
        for node in self.nodes.values():
            found = users.get(node.directory, [])
            hosts = [user for user in found if user.rule == node.joins]
            if len(hosts) != 1 or hosts[0].execution.get("device") == "cuda":
                continue
            if all(user is hosts[0] or hosts[0].directory in _above(user) for user in found):
                hosts[0].first.append(node)
                node.made_with = hosts[0]

    def lie_below(self, results: str) -> None:
        """Move everything to another folder of results (a module's prefix): names and identities stay as they are."""
        for node in self.nodes.values():
            node.results = results
            if "python" in node.execution:
                node.execution["python"] = f"{node.gates['environment'].directory}/{VENV_PYTHON}"
        self.nodes = {node.directory: node for node in self.nodes.values()}

    def of_rule(self, *rules: str) -> list[Node]:
        """The planned nodes that these rules make."""
        return [node for node in self.nodes.values() if node.rule in rules]


def _above(node: Node) -> set[str]:
    """The directories of all that `node` is made from, near and far."""
    found: set[str] = set()
    waiting = list(node.inputs.values())
    while waiting:
        above = waiting.pop()
        if above.directory not in found:
            found.add(above.directory)
            waiting += above.inputs.values()
    return found
