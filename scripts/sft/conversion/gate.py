"""The parity gate: shows that a converted directory is the trained model, or says what it is instead.

Three parts, in the order in which they can fail: what is stored (files, names, shapes, types, configuration,
processor), the tensors of a fresh load against the trained state, and its logits on the run's recorded probe
inputs against those of the model in training. Everything compared here is loaded anew from disk: a model object
that went through a trainer can keep a forward bound to another object's weights.
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sft.conversion import parity
from sft.conversion.export import plain_base, required_files
from sft.conversion.logit_drift import (
    LARGEST_SPREAD,
    LAST_BITS_DRAWS,
    MERGE_BOUND,
    TYPE_FACTOR,
    drift_faults,
    logit_drift,
    mean_loss,
    merge_bound,
    reload_bound,
)
from sft.conversion.merge import (
    ADAPTER_FILES,
    change_last_bits,
    changed_names,
    merged_by_formula,
    stored_whole,
    with_adapter,
)
from sft.models.loading import load_model, load_processor
from sft.models.model_kind import model_config
from sft.models.quantisation_scheme import Scheme
from sft.models.sharded_weights import load_trained
from sft.models.weight_check import weights_digest
from sft.models.weight_files import WeightFiles
from sft.runtime.stage import StageError
from sft.training import probe

Drifts = dict[str, dict[str, Any]]
# What the Auto classes and a forward raise for a directory that is not a whole model of one piece.
LOAD_ERRORS = (StageError, OSError, ValueError, RuntimeError)


class Gate:
    """What the converted models of one run are held against: its base, its processor, its recorded logits.

    `recorded` are the tensors of the run's probe.safetensors; `precision` is that of training ("float32" or
    "bfloat16"), `dtype` that of the conversion, `scheme` how the base was quantised for training, where it was. Loads
    the base model once.
    """

    def __init__(
        self,
        base: Path,
        processor: Path,
        method: str,
        dtype: str,
        precision: str,
        recorded: Mapping[str, Tensor],
        scheme: Scheme | None = None,
    ):
        self.scheme = scheme
        self.base, self.processor, self.method, self.dtype, self.precision = base, processor, method, dtype, precision
        self.recorded = recorded
        self.wanted_processor = load_processor(processor)
        model = plain_base(base, scheme)
        self.config = model.config.to_dict()
        # {name: the name it shares its tensor with}
        self.tied: dict[str, str] = dict(model.all_tied_weights_keys or {})
        self.state = model.state_dict() if method == "lora" else {}
        # The same base gives equal logits on the same machine with the same threads. Elsewhere it does not, and by how
        # much is measured here, on a model whose bytes are known to be equal: the reference, run twice.
        self.base_drifts = self._drifts(self._recorded_logits(0), self._logits(model))
        self.spread = max(drift["relative"] for drift in self.base_drifts.values())

    def check_base(self) -> tuple[list[str], dict[str, Any]]:
        """Faults (none: the base loaded here is the one that training started from), and the measured spread."""
        allowed = LARGEST_SPREAD[self.precision]
        faults = _faults("the base model against the run's step 0", self.base_drifts, allowed)
        return faults, {"spread": self.spread, "largest_spread": allowed, "drift": self.base_drifts}

    def check(self, step: int, checkpoint: Path, digest: str, target: Path) -> tuple[list[str], dict[str, Any]]:
        """Faults of the conversion `target` of `checkpoint` (none: it is the trained model), and what was measured.

        `digest` is that of the weights in memory when the checkpoint was written (kept.json).
        """
        required = required_files(self.processor, self.base)
        if self.method == "lora":
            required = [*required, *(f"adapter/{name}" for name in ADAPTER_FILES)]
        report: dict[str, Any] = {"required_files": required}
        faults = parity.file_faults(required, target)
        untied = self.method == "lora" and not stored_whole(checkpoint).isdisjoint({*self.tied, *self.tied.values()})
        try:
            faults += self._stored_faults(target, untied)
            faults += self._config_faults(target, untied)
            faults += parity.processor_faults(self.wanted_processor, load_processor(target))
            reloaded = load_model(target, self.dtype)
        except LOAD_ERRORS as error:
            return [*faults, f"does not load: {error}"], report

        trained = self._trained(checkpoint)
        if weights_digest(trained.state_dict()) != digest:
            faults.append("checkpoint: its weights are not those that were in memory when it was written (kept.json)")
        if self.method == "lora":
            expected, hard = merged_by_formula(self.state, checkpoint)
            tolerances = dict.fromkeys(changed_names(checkpoint), parity.MERGE_TOLERANCES[self.dtype])
        else:
            expected, hard, tolerances = trained.state_dict(), set(), {}
        # Where no simple formula is known, the logits below decide.
        wanted, found = (
            {name: tensor for name, tensor in state.items() if name not in hard}
            for state in (expected, reloaded.state_dict())
        )
        tensor_faults, measured = parity.tensor_faults(wanted, found, self.dtype, tolerances)
        report["tensors"] = measured | {"by_logits_only": sorted(hard)}
        faults += tensor_faults
        if step > 0:
            faults += parity.base_faults(WeightFiles(self.base), WeightFiles(target))
        try:
            logit_faults, report["logits"] = self._logit_faults(step, checkpoint, trained, reloaded)
            if self.scheme is not None:
                report["quantised"] = asdict(self.scheme) | self._quantised_and_shipped(trained, reloaded)
        except LOAD_ERRORS as error:
            return [*faults, f"does not run on the probe inputs: {error}"], report
        return faults + logit_faults, report

    def _stored_faults(self, target: Path, untied: bool) -> list[str]:
        base, stored = WeightFiles(self.base), WeightFiles(target)
        shapes = {name: base.shape(name) for name in base}
        got = {name: (stored.shape(name), stored.dtype(name)) for name in stored}
        if untied:
            # Training gave the two tensors that were one different values; both are stored now.
            shapes |= {name: got[name][0] for name in self.tied if name in got}
        return parity.stored_faults(shapes, got, self.dtype)

    def _config_faults(self, target: Path, untied: bool) -> list[str]:
        from transformers import AutoConfig

        expected = self.config | ({"tie_word_embeddings": False} if untied else {})
        got = AutoConfig.from_pretrained(target, local_files_only=True, trust_remote_code=False).to_dict()
        # Types as the file says them: a loaded configuration has been told the type that it was loaded in.
        return parity.config_faults(expected, got) + parity.type_faults(model_config(target), self.dtype)

    def _logit_faults(
        self, step: int, checkpoint: Path, trained_model: torch.nn.Module, reloaded: torch.nn.Module
    ) -> tuple[list[str], dict[str, Any]]:
        """The logits of the reloaded conversion against those of the trained model, by what lies between the two."""
        recorded, got = self._recorded_logits(step), self._logits(reloaded)
        same = reload_bound(self.spread)
        report: dict[str, Any] = {}

        def judge(what: str, reference: Mapping[str, Tensor], logits: Mapping[str, Tensor], bound: float) -> list[str]:
            drifts = self._drifts(reference, logits)
            report[what] = {"bound": bound, **drifts}
            return _faults(what.replace("_", " "), drifts, bound)

        if self.method == "full" and self.dtype == "float32":
            return judge("converted_against_trained", recorded, got, same), report
        trained = self._logits(trained_model)
        faults = judge("checkpoint_against_trained", recorded, trained, same)
        if self.dtype == "float32":
            drifts = self._drifts(trained, got)
            bounds = self._merge_bounds(checkpoint, trained, drifts)
            each = {name: drift | {"bound": bounds[name]} for name, drift in drifts.items()}
            report["merged_against_unmerged"] = {"bound": max(bounds.values()), **each}
            for name, drift in drifts.items():
                faults += drift_faults(f"merged against unmerged, {name}", drift, bounds[name])
            return faults, report
        narrow = self._logits(self._ordinary(checkpoint, self.dtype))
        rounding = max(drift["relative"] for drift in self._drifts(trained, narrow).values())
        report["unmerged_rounding"] = rounding
        if self.method == "full":
            faults += judge(f"converted_against_checkpoint_in_{self.dtype}", narrow, got, 0.0)
        return faults + judge("converted_against_float32", trained, got, TYPE_FACTOR * rounding), report

    def _merge_bounds(self, checkpoint: Path, trained: Mapping[str, Tensor], drifts: Drifts) -> dict[str, float]:
        """{inputs: what a merge in float32 may move their logits by}; measured where MERGE_BOUND is passed."""
        answers: dict[str, list[float]] = {name: [] for name in drifts}
        passed = [name for name, drift in drifts.items() if not drift["relative"] <= MERGE_BOUND]
        for seed in range(LAST_BITS_DRAWS if passed else 0):
            other = self._logits(change_last_bits(self._ordinary(checkpoint, "float32"), seed))
            for name, drift in self._drifts(trained, other).items():
                answers[name] += [drift["relative"]] if name in passed else []
        return {name: merge_bound(found) for name, found in answers.items()}

    def _quantised_and_shipped(self, trained: torch.nn.Module, reloaded: torch.nn.Module) -> dict[str, Any]:
        """The model as it was trained, with the products of its quantised layers, beside the one that is shipped."""
        models = {
            "trained": probe.logits(trained, self.recorded, 0, plain=False),
            "shipped": probe.logits(reloaded, self.recorded, 0),
        }
        names = {"prompts": "step-0/logits", "random": "step-0/random_logits"}
        of = {model: {name: logits[key] for name, key in names.items()} for model, logits in models.items()}
        ids, attended = self.recorded["inputs/input_ids"], self.recorded.get("inputs/attention_mask")
        return {
            "loss_of_prompts": {model: mean_loss(logits["prompts"], ids, attended) for model, logits in of.items()},
            "shipped_against_trained": self._drifts(of["trained"], of["shipped"]),
        }

    def _trained(self, checkpoint: Path) -> torch.nn.Module:
        """The model that was trained; of a quantised one, in its quantised layers."""
        if self.scheme is None:
            return self._ordinary(checkpoint, "float32")
        from sft.models.quantised import load_quantised

        return with_adapter(load_quantised(self.base, self.scheme), checkpoint)

    def _ordinary(self, checkpoint: Path, dtype: str) -> torch.nn.Module:
        """The same in ordinary layers of `dtype`, adapters not merged."""
        if self.method == "full":
            return load_trained(checkpoint, self.base, dtype)
        return with_adapter(plain_base(self.base, self.scheme, dtype), checkpoint)

    def _logits(self, model: torch.nn.Module) -> dict[str, Tensor]:
        made = probe.logits(model, self.recorded, 0)
        return {"prompts": made["step-0/logits"], "random": made["step-0/random_logits"]}

    def _recorded_logits(self, step: int) -> dict[str, Tensor]:
        names = {"prompts": f"step-{step}/logits", "random": f"step-{step}/random_logits"}
        missing = [name for name in names.values() if name not in self.recorded]
        if missing:
            raise StageError(f"probe.safetensors: no {' and no '.join(missing)}. Train the run again")
        return {name: self.recorded[key] for name, key in names.items()}

    def _drifts(self, reference: Mapping[str, Tensor], got: Mapping[str, Tensor]) -> Drifts:
        attended = {"prompts": self.recorded.get("inputs/attention_mask")}
        return {name: logit_drift(reference[name], got[name], attended.get(name)) for name in reference}


def _faults(what: str, drifts: Drifts, bound: float) -> list[str]:
    return [fault for name, drift in drifts.items() for fault in drift_faults(f"{what}, {name}", drift, bound)]
