"""How the base model of a run is quantised, as its configuration says; imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Scheme:
    """`kind` is nf4 or int8; `double`: nf4's scales are quantised too; `compute`: type of its products in training."""

    kind: str
    double: bool
    compute: str

    @classmethod
    def of(cls, config: dict[str, Any]) -> Scheme | None:
        """That of a run's configuration; None where its base is not quantised."""
        training = config.get("training", {})
        kind = training.get("quantization", "none")
        if kind == "none":
            return None
        compute = training.get("quantization_compute") or config["precision"]
        return cls(kind, training.get("double_quantization", True), compute)
