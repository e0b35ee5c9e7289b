"""Any known kind of trained weights into a complete model directory, with the proof; for `sft convert`."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sft.conversion import parity
from sft.conversion.checkpoint_kinds import Source, find_source
from sft.conversion.export import ends
from sft.conversion.likeness import Likeness, summary
from sft.conversion.logit_drift import (
    LAST_BITS_DRAWS,
    MERGE_BOUND,
    TYPE_FACTOR,
    drift_faults,
    logit_drift,
    merge_bound,
)
from sft.conversion.merge import change_last_bits, merged_weight
from sft.conversion.published_names import Named, find_names, linear_names, names_in_memory
from sft.conversion.stream import write_weights
from sft.models.model_files import refuse_remote_code
from sft.models.model_kind import model_config
from sft.models.quantisation_scheme import Scheme
from sft.models.weight_files import WeightFiles
from sft.runtime.stage import StageError

CARD = """---
base_model: {base}
library_name: transformers
---

# {name}

Trained weights of kind "{kind}", converted to {dtype}. Base model: `{base}`.
{merged}conversion.json says what was measured. Evaluate this directory, not the checkpoint that it came from.
"""


@dataclass(frozen=True)
class Request:
    """What to convert and how; as the options of `sft convert`."""

    checkpoint: Path
    base: Path
    dtype: str | None
    processor: Path | None
    lora_alpha: float | None
    logits: Path | None
    step: int | None
    may_equal_base: bool
    shard_bytes: int
    quantised: Scheme | None = None


def convert(request: Request, target: Path) -> Iterator[str]:
    """Write the model into `target` (an empty directory) and yield what is worth telling; StageError for any fault."""
    refuse_remote_code(request.base)
    source, base = find_source(request.checkpoint), WeightFiles(request.base)
    shapes = {name: base.shape(name) for name in base}
    dtype = request.dtype or base.dtype(next(iter(shapes)))
    named = _names(source, shapes, request.base)
    yield f"{source.path}: {source.kind}, {len(source.tensors)} tensors, for {len(shapes)} of {request.base}"
    trained = Trained(
        source, base, named, _settings(source, named, request), _quantised(named, request), request.quantised
    )
    trained.check_tied()
    likeness = Likeness()

    def tensor_of(name: str) -> Tensor:
        tensor = trained[name]
        if tuple(tensor.shape) != shapes[name]:
            raise StageError(f"{source.path}: {name} {parity.shape_fault(shapes[name], tuple(tensor.shape))}")
        likeness.see(name, base.lend(name), tensor)
        return tensor

    files = write_weights(shapes, tensor_of, dtype, target, request.shard_bytes)
    faults = likeness.faults()
    if likeness.equal == len(shapes) and not request.may_equal_base:
        faults.append("the weights are the base model's: no tensor differs (--may-equal-base allows it)")
    _write_settings(request, dtype, target)
    stored = WeightFiles(target)
    got = {name: (stored.shape(name), stored.dtype(name)) for name in stored}
    faults += parity.stored_faults(shapes, got, dtype)
    faults += parity.type_faults(model_config(target), dtype)
    report: dict[str, Any] = {
        "kind": source.kind,
        "dtype": dtype,
        "files": files,
        "merged": len(named.lora),
        **({"base_quantised": asdict(request.quantised)} if request.quantised else {}),
        "against_base": summary(likeness),
        "norms": likeness.norms,
    }
    if request.logits is not None and not faults:
        logit_faults, report["logits"] = _logit_faults(request, request.logits, dtype, named, target)
        faults += logit_faults
    if faults:
        raise StageError("\n  ".join([f"{request.checkpoint}: not a sound model:", *faults[:20]]))
    (target / "conversion.json").write_text(json.dumps(report, indent=1, sort_keys=True) + "\n")
    merged = f"{len(named.lora)} adapted weights were merged in float32 and cast once.\n" if named.lora else ""
    if request.quantised:
        merged += f"The base's linear weights are the values that they have in {request.quantised.kind}.\n"
    card = CARD.format(
        base=request.base.name, name=target.name.strip("."), kind=source.kind, dtype=dtype, merged=merged
    )
    (target / "README.md").write_text(card)
    against = report["against_base"]
    yield f"{len(shapes)} tensors in {len(files)} files; {against['equal_to_base']} equal the base's"
    for name, alike in against["unlike_base"].items():
        yield f"warning: {name} is far from the base's (correlation {alike:.2f})"
    if "logits" in report:
        yield f"logits: {report['logits']['relative']:.2g} of the largest (bound {report['logits']['bound']:.2g})"
    else:
        yield "logits were not compared (--logits)"


class Trained:
    """`trained[published name]`: the tensor as it was trained, adapters merged in float32."""

    def __init__(
        self,
        source: Source,
        base: WeightFiles,
        named: Named,
        settings: dict[str, Any],
        quantised: Collection[str],
        scheme: Scheme | None,
    ):
        self.source, self.base, self.named, self.settings = source, base, named, settings
        self.quantised, self.scheme = quantised, scheme

    def __getitem__(self, name: str) -> Tensor:
        whole = self.named.whole.get(name)
        weight = self.base[name] if whole is None else self.source.tensors[whole]
        if self.scheme is not None and name in self.quantised and whole is None:
            from sft.models.quantised import stands_for

            weight = stands_for(weight, self.scheme)
        if name not in self.named.lora:
            return weight
        parts = {part: self.source.tensors[key] for part, key in self.named.lora[name].items()}
        merged = merged_weight(weight, parts, self.settings)
        if merged is None:
            raise StageError(f"{self.source.path}: {name}: adapter parts {', '.join(sorted(parts))} cannot be merged")
        return merged

    def check_tied(self) -> None:
        """StageError when the source has two different tensors for what the base stores once."""
        known = {**{source: name for name, source in self.named.whole.items()}}
        extra = [name for name in self.source.tensors if name not in known and name.endswith("lm_head.weight")]
        held = [source for source, name in known.items() if name.endswith("embed_tokens.weight")]
        for head in extra:
            if held and not torch.equal(self.source.tensors[head], self.source.tensors[held[0]]):
                raise StageError(
                    f"{self.source.path}: {head} differs from {held[0]}, which the base model ties. Training untied "
                    f"them: give a --base with tie_word_embeddings false"
                )


def _names(source: Source, shapes: dict[str, tuple[int, ...]], base: Path) -> Named:
    """Where each published tensor comes from; the model is made (without values) only where plain names do not do."""
    try:
        return find_names(source.tensors, shapes, {}, _tied(base))
    except StageError:
        return find_names(source.tensors, shapes, names_in_memory(base), _tied(base))


def _settings(source: Source, named: Named, request: Request) -> dict[str, Any]:
    settings = dict(source.adapter or {})
    if request.lora_alpha is not None:
        settings["lora_alpha"] = request.lora_alpha
    if named.lora and "lora_alpha" not in settings:
        raise StageError(
            f"{source.path}: has LoRA factors and no adapter_config.json, so their scale is unknown. Give --lora-alpha"
        )
    if named.lora and (beyond := [key for key in ("alpha_pattern", "rank_pattern", "lora_bias") if settings.get(key)]):
        raise StageError(
            f"{source.path}: {', '.join(beyond)} of adapter_config.json is not merged here. Merge with PEFT"
        )
    if any("embed_tokens" in name for name in named.lora) and model_config(request.base).get("tie_word_embeddings"):
        raise StageError(f"{source.path}: an adapter on tied embeddings (embed_tokens) changes half of the tie only")
    return settings


def _quantised(named: Named, request: Request) -> set[str]:
    """Names of the weights that adapters were trained on in a quantised form."""
    if request.quantised is None:
        return set()
    if not named.lora:
        raise StageError(
            f"{request.checkpoint}: has no adapter, and --base-quantised is for adapters alone. Leave it out"
        )
    return linear_names(request.base)


def _tied(base: Path) -> list[str]:
    """Names that a state dict of a tied model holds besides the published one."""
    config = model_config(base)
    tied = config.get("tie_word_embeddings", (config.get("text_config") or {}).get("tie_word_embeddings", True))
    return ["lm_head.weight"] if tied else []


def _write_settings(request: Request, dtype: str, target: Path) -> None:
    from sft.models.loading import load_processor

    config = _with_type(model_config(request.base), dtype)
    (target / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    processor = request.processor or request.base
    refuse_remote_code(processor)
    expected = load_processor(processor)
    expected.save_pretrained(target)
    if (request.base / "generation_config.json").is_file():
        settings = json.loads((request.base / "generation_config.json").read_text())
        known = settings.get("eos_token_id")
        if (found := ends(expected, known)) != known:
            settings["eos_token_id"] = found
        (target / "generation_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    if faults := parity.processor_faults(expected, load_processor(target)):
        raise StageError("; ".join(faults))


def _with_type(config: dict[str, Any], dtype: str) -> dict[str, Any]:
    """The configuration with the type said in it, in nested parts too."""
    changed = {key: _with_type(value, dtype) if isinstance(value, dict) else value for key, value in config.items()}
    if "torch_dtype" in changed or "dtype" in changed:
        changed.pop("torch_dtype", None)
        changed["dtype"] = dtype
    return changed | ({"dtype": dtype} if "model_type" in config and "architectures" in config else {})


def _logit_faults(
    request: Request, logits: Path, dtype: str, named: Named, target: Path
) -> tuple[list[str], dict[str, Any]]:
    """The logits of the written model, loaded from disk, against recorded ones."""
    from safetensors.torch import load_file

    recorded = load_file(logits)
    if "logits" in recorded:
        inputs, wanted = {"input_ids": recorded["input_ids"]}, recorded["logits"]
        attended = recorded.get("attention_mask")
        inputs |= {"attention_mask": attended} if attended is not None else {}
    else:
        steps = sorted(int(name[5:].split("/")[0]) for name in recorded if name.endswith("/logits"))
        step = request.step if request.step is not None else steps[-1]
        if step not in steps:
            raise StageError(f"{logits}: no logits of step {step}; it has {', '.join(map(str, steps))}")
        inputs = {name.removeprefix("inputs/"): value for name, value in recorded.items() if name.startswith("inputs/")}
        wanted, attended = recorded[f"step-{step}/logits"], inputs.get("attention_mask")
    got = _logits(target, dtype, inputs)
    drift = logit_drift(wanted.float(), got, attended)
    bound = MERGE_BOUND
    if dtype != "float32":
        # What a narrow type costs depends on the model: as much as it costs the base on the same inputs.
        wide, narrow = (_logits(request.base, kind, inputs) for kind in ("float32", dtype))
        bound = TYPE_FACTOR * logit_drift(wide, narrow, attended)["relative"]
    elif named.lora and not drift["relative"] <= MERGE_BOUND:
        # As of runs of this workflow: as far as the model itself goes with other last bits of what was merged.
        published = names_in_memory(request.base)
        merged = [name for name in published if published[name] in named.lora]
        others = (_logits(target, dtype, inputs, seed, merged) for seed in range(LAST_BITS_DRAWS))
        bound = merge_bound(logit_drift(got, other, attended)["relative"] for other in others)
    faults = drift_faults("converted against recorded", drift, bound)
    return faults, drift | {"bound": bound, "merged": bool(named.lora)}


def _logits(
    directory: Path, dtype: str, inputs: dict[str, Tensor], seed: int = 0, changed: Collection[str] = ()
) -> Tensor:
    from sft.models.loading import load_model

    model = change_last_bits(load_model(directory, dtype), seed, changed)
    with torch.no_grad():
        return model(**inputs).logits.float()
