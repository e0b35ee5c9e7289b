"""Which planned results exist and are what the plan says, and why the others are not.

The answer comes from manifests alone: never from times of files, and not from Snakemake's records, which may
be lost or may describe another checkout. Touching, copying, cloning or moving results therefore changes nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

from sft.planning.node import Node
from sft.planning.plan import Plan
from sft.planning.unfinished import newest
from sft.runtime import manifest
from sft.runtime.canonical import digest
from sft.runtime.code import code_digest
from sft.runtime.installed import VENV_PYTHON
from sft.sources import local_files
from sft.sources.source_files import find_documents, find_files


@dataclass(frozen=True)
class State:
    """`fresh`, `missing` or `stale`; `reason` in words.

    `other_code`: it, or something that it is made from, was made by other code of ours than there is now.
    """

    status: str
    reason: str = ""
    other_code: bool = False

    @property
    def fresh(self) -> bool:
        return self.status == "fresh"


def examine(
    plan: Plan,
    code_policy: str = "rerun",
    given: frozenset[str] = frozenset(),
    code: Callable[[str], str] = code_digest,
) -> dict[str, State]:
    """The state of every planned node, by directory; those in `given` are taken as they are (an archive's ledger)."""
    made: dict[str, dict[str, Any] | None] = {}
    states: dict[str, State] = {}
    code = cache(code)
    for node in _in_order(plan):
        made[node.directory] = manifest.read(node.directory)
        if node.directory in given and made[node.directory] is not None:
            states[node.directory] = State("fresh")
            continue
        states[node.directory] = _state(node, made, states, code_policy, code)
    return states


def _state(
    node: Node,
    made: dict[str, dict[str, Any] | None],
    states: dict[str, State],
    code_policy: str,
    code: Callable[[str], str],
) -> State:
    record = made[node.directory]
    if record is None:
        return _unmade(node, states, code_policy, code)
    other = record["code"] != code(node.rule)
    # Whatever else it is stale for, making it again is, then, also what an edit of our code costs.
    counted = code_policy == "rerun" and (other or _above_is_of_other_code(node, states))
    if change := _change(node, record, made, states):
        return State("stale", change, counted)
    if other:
        reason = "was made by other code than there is now"
        return State("stale" if code_policy == "rerun" else "fresh", reason, True)
    return State("fresh")


def _unmade(node: Node, states: dict[str, State], code_policy: str, code: Callable[[str], str]) -> State:
    """Not there; or trained in part, by code whose steps a run of now does not continue (sft.training.resume)."""
    begun = newest(Path(node.directory)) if node.rule == "train_model" else None
    if begun and begun[1] != code(node.rule) and node.execution.get("code_policy", code_policy) == "rerun":
        return State("missing", f"its steps so far were trained by other code ({begun[0]})", True)
    return State("missing", "not made yet", code_policy == "rerun" and _above_is_of_other_code(node, states))


def _above_is_of_other_code(node: Node, states: dict[str, State]) -> bool:
    return any(states[above.directory].other_code for above in node.inputs.values())


def _change(
    node: Node, record: dict[str, Any], made: dict[str, dict[str, Any] | None], states: dict[str, State]
) -> str:
    """Why a result is not what the plan says, other than by its code; empty where it is."""
    if record["identity_digest"] != digest(node.identity):
        return "was made from another configuration"
    for name, above in node.inputs.items():
        if not states[above.directory].fresh:
            return f"its {name} has to be made again ({above.id})"
        used, there = record["inputs"].get(name, {}).get("content"), made[above.directory]
        if there is None or used != there["content"]:
            return f"its {name} is not the one it was made from ({above.id})"
    for relative, expected in record["outputs"].items():
        file = Path(node.directory, relative)
        if not file.is_file():
            return f"{relative} is missing"
        if file.stat().st_size != expected["bytes"]:
            return f"{relative} was changed after it was made"
    for file, expected in record["facts"].get("source_files", {}).items():
        if change := local_files.change(file, expected):
            return change
    if node.rule == "download_dataset" and (new := _unseen_file(node, record)):
        return f"{new} joined the source"
    if node.rule == "make_environment" and not Path(node.directory, VENV_PYTHON).exists():
        return "its packages are gone"
    return ""


def _unseen_file(node: Node, record: dict[str, Any]) -> str:
    """A file that lies in a local source now and did not when it was read."""
    source = node.config["source"]
    if "path" in source:
        found = find_files(source["path"], source.get("files"), labelled=bool(source.get("labels")))
    elif "markdown" in source:
        found = find_documents(source["markdown"])
    else:
        return ""
    known = record["facts"].get("source_files", {})
    names = (local_files.recorded_name(path) for path in found.values())
    return next((name for name in names if name not in known), "")


def _in_order(plan: Plan) -> list[Node]:
    """Every node after all that it is made from."""
    above = {node.directory: [made.directory for made in node.inputs.values()] for node in plan.nodes.values()}
    return [plan.nodes[directory] for directory in TopologicalSorter(above).static_order()]
