"""What results cost: of every result that an experiment rests on, and by rule; standard library only.

From the manifests that lie in the ledger's provenance. `device_hours` are hours of wall time times processes, on the
device that `device` names; a result that was continued counts every attempt. Joules are NVML's, where the devices have
it; what was not measured says so and is never zero, and a sum with such a part is "not measured" too.
"""

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

NAME = "costs.csv"
NOT_MEASURED = "not measured"  # as sft.runtime.cost records it; figures and tables show this one
COLUMNS = (
    *("rule", "directory", "device", "wall_seconds", "cpu_seconds", "peak_rss_mib", "device_hours", "joules"),
    *("tokens_per_second", "model_flops_utilisation", "peak_memory_mib"),
)
RULE_COLUMNS = ("rule", "results", "wall_seconds", "cpu_seconds", "peak_rss_mib", "device_hours", "joules")
ALL = "all"


def of_results(provenance: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row for each result of `{directory: manifest}`, in its order."""
    return [_of_result(directory, made) for directory, made in provenance.items()]


def _of_result(directory: str, made: Mapping[str, Any]) -> dict[str, Any]:
    facts = made["facts"]
    cost = facts.get("cost", {})
    attempts = facts.get("attempts", [])
    # The manifest's own clock saw the last attempt only.
    wall = sum(one["wall_seconds"] for one in attempts) if len(attempts) > 1 else made["wall_seconds"]
    row = {
        "rule": made["rule"],
        "directory": directory,
        "device": facts.get("device_name") or "cpu",
        "wall_seconds": round(wall, 2),
        # CPU seconds of attempts that were killed are not known.
        "cpu_seconds": NOT_MEASURED if len(attempts) > 1 else made["cpu_seconds"],
        "peak_rss_mib": made["peak_rss_mib"],
        "device_hours": cost.get("device_hours", round(made["wall_seconds"] / 3600, 5)),
        "joules": cost.get("joules", NOT_MEASURED),
    }
    for name in ("tokens_per_second", "peak_memory_mib"):
        row[name] = facts.get(name, "")
    return row | {"model_flops_utilisation": cost.get("model_flops_utilisation", "")}


def write(rows: Iterable[Mapping[str, Any]], path: Path, columns: tuple[str, ...] = COLUMNS) -> None:
    """The rows as CSV."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def read(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file; none of a ledger from before costs were collected."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def by_rule(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Sums (of memory, the largest) by rule, what took longest first, and of all; none of no rows."""
    grouped: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        grouped.setdefault(row["rule"], []).append(row)
    summed = [_summed(rule, group) for rule, group in grouped.items()]
    summed.sort(key=lambda row: (-row["wall_seconds"], row["rule"]))
    return [*summed, _summed(ALL, [row for group in grouped.values() for row in group])] if summed else []


def _summed(rule: str, rows: list[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "rule": rule,
        "results": len(rows),
        "wall_seconds": total(row["wall_seconds"] for row in rows),
        "cpu_seconds": total(row["cpu_seconds"] for row in rows),
        "peak_rss_mib": max(int(row["peak_rss_mib"]) for row in rows),
        "device_hours": total((row["device_hours"] for row in rows), 5),
        "joules": total(row["joules"] for row in rows),
    }


def total(values: Iterable[Any], digits: int = 2) -> float | str:
    """The sum; "not measured" when one of the values is (an empty or missing one is, too), and of no values."""
    found = list(values)
    if not found or any(value in (None, "", NOT_MEASURED) or value != value for value in found):
        return NOT_MEASURED
    return round(sum(map(float, found)), digits)
