"""From the names that wrappers left on trained tensors to the names that the base model's files use.

Trainers prefix what they wrap: DDP and DeepSpeed `module.`, FSDP 1 `_fsdp_wrapped_module.`, activation checkpointing
`_checkpoint_wrapped_module.`, torch.compile `_orig_mod.`, accelerate's DCP `model.`, PEFT `base_model.model.` and
`.base_layer.`. And transformers' names in memory are not always those of the files. Every trained tensor has to become
exactly one published tensor, and every published tensor has to come from exactly one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sft.runtime.stage import StageError

WRAPPERS = re.compile(r"(^|\.)(?:_fsdp_wrapped_module|_checkpoint_wrapped_module|_orig_mod|_forward_module)\.")
OUTER = ("module.", "model.", "base_model.model.")
LORA = re.compile(r"^(.*)\.lora_(A|B|embedding_A|embedding_B|magnitude_vector)(?:\.(?!weight$)[\w-]+)?(?:\.weight)?$")


@dataclass
class Named:
    """Where each published tensor comes from: `whole` {published: source name}, `lora` {published: {part: source}}."""

    whole: dict[str, str] = field(default_factory=dict)
    lora: dict[str, dict[str, str]] = field(default_factory=dict)


def names_in_memory(base: Path) -> dict[str, str]:
    """`{name in memory: published name}` of the model of a directory, for names that differ by a renaming alone."""
    return _names_in_memory(_without_values(base))


def linear_names(base: Path) -> set[str]:
    """Published names of the weights of linear layers but the output layer: those that bitsandbytes quantises.

    StageError for a model whose files hold them in other pieces.
    """
    from torch.nn import Linear

    model = _without_values(base)
    published, head = _names_in_memory(model), model.get_output_embeddings()
    linears = {
        f"{name}.weight" for name, module in model.named_modules() if isinstance(module, Linear) and module is not head
    }
    if elsewhere := sorted(linears - published.keys()):
        raise StageError(
            f"{base}: {len(elsewhere)} linear layers are in its files in other pieces than in memory "
            f"({', '.join(elsewhere[:3])}), so what they were quantised to is not known here. Merge with PEFT"
        )
    return {published[name] for name in linears}


def _without_values(base: Path) -> Any:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

    from sft.models.model_kind import is_vision

    config = AutoConfig.from_pretrained(base, local_files_only=True, trust_remote_code=False)
    auto = AutoModelForImageTextToText if is_vision(base) else AutoModelForCausalLM
    with torch.device("meta"):
        return auto.from_config(config)


def _names_in_memory(model: Any) -> dict[str, str]:
    from transformers.core_model_loading import revert_weight_conversion

    state = dict(model.state_dict())
    marks = {id(tensor): name for name, tensor in state.items()}
    published = revert_weight_conversion(model, dict(state))
    return {marks[id(tensor)]: name for name, tensor in published.items() if id(tensor) in marks}


def find_names(
    sources: Iterable[str], published: Iterable[str], in_memory: Mapping[str, str], tied: Iterable[str]
) -> Named:
    """Match source names to published ones; StageError lists what fits nothing, is missing, or is there twice.

    `tied`: names that a model may have besides the published one that they share a tensor with; they are passed over.
    Missing tensors are not an error where the source has adapters only: the base's are used.
    """
    known, tied = set(published), set(tied)
    named, strange, twice = Named(), [], []
    for source in sources:
        if ".original_module." in source:  # the base's, beside the one that was trained (modules_to_save)
            continue
        plain = _without_wrappers(source)
        if found := LORA.match(plain):
            target = _published(f"{found[1]}.weight", known, in_memory)
            if target is None:
                strange.append(source)
            elif found[2] in named.lora.setdefault(target, {}):
                twice.append(f"{source} and {named.lora[target][found[2]]}")
            else:
                named.lora[target][found[2]] = source
            continue
        target = _published(plain.replace(".base_layer.", "."), known, in_memory)
        if target is None:
            if not any(plain.endswith(name) for name in tied):
                strange.append(source)
        elif target in named.whole:
            twice.append(f"{source} and {named.whole[target]}")
        else:
            named.whole[target] = source
    faults = [f"{name}: fits no tensor of the base model" for name in strange]
    faults += [f"{pair}: are the same tensor of the model" for pair in twice]
    if named.whole and not _only_extras(named):
        faults += [f"{name}: missing" for name in sorted(known - named.whole.keys())]
    if faults:
        raise StageError("\n  ".join(["the weights are not those of the base model:", *faults[:20], *_more(faults)]))
    return named


def _only_extras(named: Named) -> bool:
    """Whether the whole tensors are those that an adapter stores beside its factors (modules_to_save)."""
    return bool(named.lora) and named.whole.keys().isdisjoint(named.lora)


def _without_wrappers(name: str) -> str:
    before = ""
    while name != before:
        before, name = name, WRAPPERS.sub(r"\1", name)
    return name.replace(".modules_to_save.default.", ".")


def _published(name: str, known: set[str], in_memory: Mapping[str, str]) -> str | None:
    """The published name; outer prefixes are taken off one at a time, and only as long as nothing fits."""
    waiting, seen = [name], set()
    while waiting:
        name = waiting.pop(0)
        if name in seen:
            continue
        seen.add(name)
        if name in known:
            return name
        if in_memory.get(name) in known:
            return in_memory[name]
        waiting += [name.removeprefix(prefix) for prefix in OUTER if name.startswith(prefix)]
    return None


def _more(faults: list[Any]) -> list[str]:
    return [f"… and {len(faults) - 20} more"] if len(faults) > 20 else []
