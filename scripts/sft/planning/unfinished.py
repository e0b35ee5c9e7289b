"""A run that has checkpoints and no manifest: how far it came, by which code of ours, and what that took."""

import json
from pathlib import Path
from typing import Any

from sft.runtime import attempts
from sft.runtime.stage import StageError
from sft.training import metrics_stream
from sft.training.checkpoint import MARKER


def newest(run: Path) -> tuple[int, str] | None:
    """(step, digest of the code) of the newest complete checkpoint; None where there is none. Nothing is verified."""
    found = [made for path in run.glob(f"checkpoints/checkpoint-*/{MARKER}") if (made := _step_and_code(path))]
    return max(found, default=None)


def record(run: Path) -> dict[str, Any]:
    """What a manifest would tell of it by now: `{code, runtime, facts, wall_seconds}`."""
    try:
        told = attempts.counted(run, metrics_stream.read_lines(run / metrics_stream.NAME))
        seconds = sum(one["wall_seconds"] * one.get("processes", 1) for one in told)
    except (OSError, StageError, ValueError, KeyError, TypeError, AttributeError):
        seconds = None  # damaged; training will say so
    _, code = newest(run) or (0, "")
    return {"code": code, "runtime": None, "facts": {}, "wall_seconds": seconds}


def _step_and_code(marker: Path) -> tuple[int, str] | None:
    try:
        made = json.loads(marker.read_text())
        return int(made["step"]), str(made["provenance"]["code"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
