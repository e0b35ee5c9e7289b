"""How the base model of a run is quantised, as its configuration says; imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass

from sft.config.nodes import TrainSettings


@dataclass(frozen=True)
class Scheme:
    """`kind` is nf4 or int8; `double`: nf4's scales are quantised too; `compute`: type of its products in training."""

    kind: str
    double: bool
    compute: str

    @classmethod
    def of(cls, settings: TrainSettings) -> Scheme | None:
        """That of a run; None where its base is not quantised."""
        training = settings.training
        if training.quantization == "none":
            return None
        compute = training.quantization_compute or settings.precision
        return cls(training.quantization, training.double_quantization, compute)
