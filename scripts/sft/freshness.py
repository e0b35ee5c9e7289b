"""Which planned results exist and are what the plan says, and why the others are not.

The answer comes from manifests alone: never from times of files, and not from Snakemake's records, which may
be lost or may describe another checkout. Touching, copying, cloning or moving results therefore changes nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sft import manifest
from sft.canonical import digest
from sft.code import code_digest
from sft.node import Node
from sft.plan import Plan


@dataclass(frozen=True)
class State:
    """`fresh`, `missing` or `stale`; `reason` in words; `other_code`: made by an older version of our source."""

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
        return State("missing", "not made yet")
    if record.get("identity_digest") != digest(node.identity):
        return State("stale", "was made from another configuration")
    for name, above in node.inputs.items():
        if not states[above.directory].fresh:
            return State("stale", f"its {name} has to be made again ({above.id})")
        used = record["inputs"].get(name, {}).get("content")
        if used != made[above.directory]["content"]:
            return State("stale", f"its {name} is not the one it was made from ({above.id})")
    for relative, expected in record["outputs"].items():
        file = Path(node.directory, relative)
        if not file.is_file():
            return State("stale", f"{relative} is missing")
        if file.stat().st_size != expected["bytes"]:
            return State("stale", f"{relative} was changed after it was made")
    for file, expected in record["facts"].get("files", {}).items():
        if change := _changed_source(Path(file), expected):
            return State("stale", change)
    if node.rule == "download_dataset" and (new := _unseen_files(node, record)):
        return State("stale", f"{new} joined the source")
    if record["code"] != code(node.rule):
        reason = f"was made by an older version of scripts/{node.rule}.py or a module it imports"
        return State("stale", reason, other_code=True) if code_policy == "rerun" else State("fresh", reason, True)
    return State("fresh")


def _changed_source(file: Path, expected: dict[str, Any]) -> str:
    """Why a local source file is not the one that was read; empty where it is (a mere touch is no change)."""
    if not file.is_file():
        return f"its source {file} is gone"
    stat = file.stat()
    if stat.st_size == expected["bytes"] and stat.st_mtime_ns == expected["mtime_ns"]:
        return ""
    if stat.st_size != expected["bytes"] or manifest.file_digest(file) != expected["sha256"]:
        return f"its source {file} has other bytes now"
    return ""


def _unseen_files(node: Node, record: dict[str, Any]) -> str:
    from sft.config.fields import matching_files

    path = node.config["source"].get("path")
    if path is None:
        return ""
    there = [f for match in matching_files(path) for f in (match.rglob("*") if match.is_dir() else [match])]
    known = record["facts"].get("files", {})
    new = sorted(
        str(f) for f in there if f.is_file() and str(f.resolve()) not in known and str(f.absolute()) not in known
    )
    return new[0] if new else ""


def _in_order(plan: Plan) -> list[Node]:
    """Every node after all that it is made from."""
    ordered: dict[str, Node] = {}

    def visit(node: Node) -> None:
        if node.directory not in ordered:
            for above in node.inputs.values():
                visit(above)
            ordered[node.directory] = node

    for node in plan.nodes.values():
        visit(node)
    return list(ordered.values())
