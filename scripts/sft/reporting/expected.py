"""Comparing a run with published values of its loss and gradient norm, step by step.

Two tolerances for each metric, after TRL's invariance tests (tests/invariant of TRL 1.9): the largest difference at any
step, which is noise of the hardware, and the mean difference over all steps, which noise does not move but a dropped
scaling or a lost micro batch does.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sft.runtime.stage import StageError

METRICS = ("loss", "grad_norm")
TOLERANCES = ("any_step", "mean")


def read(path: Path) -> dict[str, Any]:
    """{source, tolerances: {metric: {any_step, mean}}, loss: [of step 1, 2, …], grad_norm: […]}; StageError."""
    try:
        expected = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StageError(f"{path} is missing. Check the experiment's expected:") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise StageError(f"{path}: not JSON ({error})") from None
    if not isinstance(expected, dict) or not isinstance(expected.get("tolerances"), dict):
        raise StageError(f"{path}: no mapping with tolerances, loss and grad_norm")
    for metric in METRICS:
        values, allowed = expected.get(metric), expected["tolerances"].get(metric)
        if not isinstance(values, list) or not values or not all(_is_number(value) for value in values):
            raise StageError(f"{path}: {metric} is not a list of numbers, one a step")
        if not isinstance(allowed, dict) or not all(_is_number(allowed.get(name)) for name in TOLERANCES):
            raise StageError(f"{path}: tolerances.{metric} needs the numbers {' and '.join(TOLERANCES)}")
    if len({len(expected[metric]) for metric in METRICS}) > 1:
        raise StageError(f"{path}: {' and '.join(METRICS)} have different numbers of steps")
    return expected


def differences(measured: Mapping[int, float], expected: Sequence[float], metric: str) -> list[dict[str, Any]]:
    """One row a step: step, metric, expected, measured (None where the run has none), difference."""
    rows = []
    for step in range(1, max(len(expected), *measured, 0) + 1):
        there = expected[step - 1] if step <= len(expected) else None
        found = measured.get(step)
        difference = found - there if found is not None and there is not None else None
        rows.append({"step": step, "metric": metric, "expected": there, "measured": found, "difference": difference})
    return rows


def faults(rows: Sequence[Mapping[str, Any]], tolerance: Mapping[str, float]) -> list[str]:
    """What is wrong with the differences of one metric, in words; nothing where they are within tolerance."""
    metric = rows[0]["metric"]
    absent = [row["step"] for row in rows if row["difference"] is None]
    if absent:
        return [f"{metric}: run and published values are not both there for step {_some(absent)}"]
    worst = max(rows, key=lambda row: math.inf if math.isnan(row["difference"]) else abs(row["difference"]))
    mean = sum(row["difference"] for row in rows) / len(rows)
    found = []
    # Not `>`: a difference that is no number is not within any tolerance.
    if not abs(worst["difference"]) <= tolerance["any_step"]:
        found.append(
            f"{metric} is {worst['measured']:.6g} at step {worst['step']}, published {worst['expected']:.6g} "
            f"(difference {worst['difference']:.1e}, allowed {tolerance['any_step']:.1e})"
        )
    if not abs(mean) <= tolerance["mean"]:
        found.append(f"{metric} is off by {mean:.1e} on average of all steps (allowed {tolerance['mean']:.1e})")
    return found


def _some(steps: Sequence[int]) -> str:
    return ", ".join(map(str, steps[:5])) + (f" and {len(steps) - 5} more" if len(steps) > 5 else "")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
