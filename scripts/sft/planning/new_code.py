"""What results an edit of our source makes again: how many, why (file and definition), and what they cost to make.

The cost is what making them took, by their own manifests, in device-minutes: minutes of wall time times processes, on
whatever device that was. Above `execution.rerun_budget_minutes` a workflow stops and asks instead of starting.
"""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sft.planning import unfinished
from sft.planning.freshness import State
from sft.planning.plan import Plan
from sft.runtime import code_records, manifest
from sft.runtime.code import changes, describe

SHOWN = 12


@dataclass(frozen=True)
class NewCode:
    """Results that other code made, by rule; what of each rule's code changed; the device-minutes that they took."""

    rules: dict[str, int]
    changed: dict[str, list[str]]
    minutes: float

    def lines(self) -> list[str]:
        """For people: how many and how dear, then what changed; nothing where there is nothing to tell."""
        if not self.rules:
            return []
        count = ", ".join(f"{number} {rule}" for rule, number in self.rules.items())
        made = f"{sum(self.rules.values())} results ({count}), in {self.minutes:.1f} device-minutes"
        told = [f"other code than there is now made {made}"]
        told += [f"  {rule}: {what}" for rule, found in self.changed.items() for what in found[:SHOWN]]
        return told


def new_code(plan: Plan, states: dict[str, State], directories: Iterable[str] | None = None) -> NewCode:
    """What other code made of the planned results, or of those in `directories`, and is to be made again."""
    rules: Counter[str] = Counter()
    changed: dict[str, list[str]] = {}
    minutes = 0.0
    if directories is not None:
        # What has no job of its own is made by these jobs, too.
        directories = [one for d in directories for one in (*(first.directory for first in plan.nodes[d].first), d)]
    for directory in plan.nodes if directories is None else directories:
        node, state = plan.nodes[directory], states[directory]
        made = _made(Path(directory), state)
        if made is None:
            continue
        rules[node.rule] += 1
        minutes += device_minutes(made)
        for what in _changes(node.rule, directory, made):
            found = changed.setdefault(node.rule, [])
            if what not in found:
                found.append(what)
    return NewCode(dict(rules), changed, minutes)


def device_minutes(made: dict[str, Any]) -> float:
    """What making a result took, by its manifest; 0 where that tells nothing."""
    cost = made["facts"].get("cost")
    hours = _amount(cost.get("device_hours") if isinstance(cost, dict) else None)
    return (_amount(made.get("wall_seconds")) or 0.0) / 60 if hours is None else hours * 60


def _amount(value: Any) -> float | None:
    """`value` where it is one that can be added and compared."""
    return value if isinstance(value, int | float) and 0 <= value < math.inf else None


def _made(directory: Path, state: State) -> dict[str, Any] | None:
    """The record of what other code made there: a manifest, or that of a run that is not finished."""
    if state.fresh or not state.other_code:
        return None
    if state.status == "stale":
        return manifest.read(directory)
    return unfinished.record(directory) if unfinished.newest(directory) else None


def _changes(rule: str, directory: str, made: dict[str, Any]) -> list[str]:
    now = describe(rule)
    before = code_records.read(Path(directory), made["code"])
    if before is None:
        return (
            ["there is no record of the code that made it"]
            if "runtime" in made
            else ["made when code was counted in another way (CHANGELOG.md)"]
        )
    return changes(before, now)
