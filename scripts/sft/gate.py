"""The parity gate: shows that a converted directory is the trained model, or says what it is instead.

Three parts, in the order in which they can fail: what is stored (files, names, shapes, types, configuration,
processor), the tensors of a fresh load against the trained state, and its logits on the run's recorded probe
inputs against those of the model in training. Everything compared here is loaded anew from disk: a model object
that went through a trainer can keep a forward bound to another object's weights.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sft import parity
from sft.export import required_files
from sft.loading import load_model, load_processor
from sft.logit_drift import LARGEST_SPREAD, MERGE_BOUND, SPREAD_FACTOR, TYPE_FACTOR, drift_faults, logit_drift
from sft.merge import ADAPTER_FILES, changed_names, merged_by_formula, stored_whole, with_adapter
from sft.stage import StageError
from sft.weights import WeightFiles

Logits = dict[str, Tensor]


@dataclass
class Gate:
    """What the trained models of one run are held against.

    `recorded`: the tensors of probe.safetensors; `precision`: that of training, "float32" or "bfloat16".
    """

    base: Path
    processor: Path
    method: str
    dtype: str
    precision: str
    recorded: Mapping[str, Tensor]

    def base_spread(self) -> tuple[list[str], dict[str, Any]]:
        """Whether the base loaded here is the one that training started from; its drifts set `self.spread`.

        The same base gives equal logits on the same machine with the same threads. Elsewhere it does not, and by
        how much is measured here, on the model whose bytes are known to be equal.
        """
        drifts = self._drifts(self._recorded_logits(0), self._logits(load_model(self.base)))
        self.spread = max(drift["relative"] for drift in drifts.values())
        allowed = LARGEST_SPREAD[self.precision]
        faults = _faults("base model against the run's step 0", drifts, allowed)
        return faults, {"relative": self.spread, "allowed": allowed, **drifts}

    def check(self, step: int, checkpoint: Path, target: Path) -> tuple[list[str], dict[str, Any]]:
        """Faults of the converted `target` of `checkpoint` (none: it is the trained model), and what was measured."""
        required = required_files(self.processor, self.base)
        if self.method == "lora":
            required += [f"adapter/{name}" for name in ADAPTER_FILES]
        faults = parity.file_faults(required, target)
        report: dict[str, Any] = {"required_files": required}
        try:
            faults += self._stored_faults(checkpoint, target)
            reloaded = load_model(target, self.dtype)
            found = load_processor(target)
        except (StageError, OSError, ValueError) as error:
            # What does not load with the Auto classes has nothing to compare; the faults above say more.
            return [*faults, f"does not load: {error}"], report
        faults += parity.processor_faults(load_processor(self.processor), found)
        faults += parity.config_faults(self._expected_config(checkpoint), reloaded.config.to_dict(), self.dtype)

        expected, tolerances = self._expected_state(checkpoint)
        tensor_faults, report["tensors"] = parity.tensor_faults(expected, reloaded.state_dict(), self.dtype, tolerances)
        faults += tensor_faults
        del expected
        if step > 0:
            faults += parity.base_faults(WeightFiles(self.base), WeightFiles(target))
        logit_faults, report["logits"] = self._logit_faults(step, checkpoint, reloaded)
        return faults + logit_faults, report

    def _stored_faults(self, checkpoint: Path, target: Path) -> list[str]:
        base, stored = WeightFiles(self.base), WeightFiles(target)
        shapes = {name: base.shape(name) for name in base}
        for name in self._untied(checkpoint):
            shapes.setdefault(name, next(iter(WeightFiles(checkpoint, ADAPTER_FILES[1]).shapes_of(name))))
        got = {name: (stored.shape(name), stored.dtype(name)) for name in stored}
        return parity.stored_faults(shapes, got, self.dtype)
