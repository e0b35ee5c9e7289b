"""Where the model lies inside a finished node: a downloaded base model, or a step of a converted run."""

import re
from pathlib import Path

from sft.runtime import manifest
from sft.runtime.stage import StageError


def model_directory(node: Path, step: int | None = None) -> Path:
    """`model/` of a download, or `step-<N>/` of a conversion: that of `step`, by default the last."""
    if (node / "model").is_dir():
        return node / "model"
    steps = converted_steps(node)
    if not steps:
        raise StageError(f"{node}: neither model/ nor a step-<N>/ in it")
    chosen = max(steps) if step is None else step
    if chosen not in steps:
        raise StageError(f"{node}: no step {chosen}; converted are {', '.join(map(str, sorted(steps)))}")
    return steps[chosen]


def converted_steps(node: Path) -> dict[int, Path]:
    """`{N: node/step-<N>}` of a finished conversion, ascending; only steps that its manifest vouches for."""
    made = manifest.read(node)
    names = made["outputs"] if made else {}
    steps = {int(match[1]) for name in names if (match := re.match(r"step-(\d+)/", name))}
    return {step: node / f"step-{step}" for step in sorted(steps)}
