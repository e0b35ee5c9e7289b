"""Writing a complete Hugging Face model directory: weights, configuration, generation settings, processor, template.

Everything is loaded and saved by its class. Copying the files whose names one knows has lost merges.txt, *.model
and chat_template.jinja for others, and left a config.json that says bfloat16 over float32 weights.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import torch

from sft.conversion.merge import ADAPTER_FILES, merged, with_adapter
from sft.data.tokens.answer_format import AnswerFormat
from sft.models.loading import load_model
from sft.models.quantisation_scheme import Scheme
from sft.models.sharded_weights import has_shards, load_shards

CONFIG_FILES = ("config.json", "generation_config.json")


def write_full(checkpoint: Path, base: torch.nn.Module, processor: Any, target: Path) -> None:
    """The full-SFT checkpoint's weights as `base` stores its own: names, sharding, configuration, type.

    `base` is the loaded base model in the wanted type; its weights are overwritten, so it serves for any number of
    checkpoints. A training checkpoint may use other tensor names than the published models of its family, and its
    config.json has been touched by training (use_cache off); the base's are the ones that other tools expect.
    """
    # Copies into the base's parameters and casts on the way; strict: not a tensor more or less.
    if has_shards(checkpoint):
        load_shards(base, checkpoint)
    else:
        base.load_state_dict(load_model(checkpoint).state_dict(), strict=True)
    _save(base, processor, target)


def write_merged(
    adapter: Path, base: Path, processor: Any, dtype: str, target: Path, scheme: Scheme | None = None
) -> None:
    """The base model with the adapter merged in float32 and cast to `dtype` once; the adapter in target/adapter/.

    With a `scheme`, the base is what its quantised form stands for: that is what the adapter was trained on.
    """
    model = merged(with_adapter(plain_base(base, scheme), adapter))
    cast = getattr(torch, dtype)
    # Not model.to(): it would cast the rotary frequencies too, which a loader keeps in float32.
    for parameter in model.parameters():
        parameter.data = parameter.data.to(cast)
    _declare_type(model.config, cast)
    _save(model, processor, target)
    _save_adapter(adapter, target / "adapter")


def plain_base(base: Path, scheme: Scheme | None, dtype: str = "float32") -> torch.nn.Module:
    """The base that an adapter was trained on, in ordinary layers of `dtype`."""
    if scheme is None:
        return load_model(base, dtype)
    from sft.models.quantised import load_dequantised

    return load_dequantised(base, scheme, dtype)


def required_files(processor: Path, base: Path) -> list[str]:
    """What a converted model must have besides its weights: the processor's files and the base's configuration."""
    names = {path.name for path in processor.iterdir() if path.is_file()}
    return sorted(names | {name for name in CONFIG_FILES if (base / name).is_file()} | {CONFIG_FILES[0]})


def _declare_type(config: Any, dtype: torch.dtype) -> None:
    """Let a configuration and its parts (text, vision) say `dtype`; save_pretrained corrects the outermost only."""
    config.dtype = dtype
    for name in config.sub_configs:
        if (part := getattr(config, name, None)) is not None:
            _declare_type(part, dtype)


def ends(processor: Any, known: int | list[int] | None) -> int | list[int] | None:
    """The tokens at which generation stops: the one that the chat template ends a turn with, and those of the base.

    A base model's own settings end at the end of a text, which a model that was taught to talk never writes.
    """
    before = [] if known is None else known if isinstance(known, list) else [known]
    end = AnswerFormat(processor).end_id if processor.chat_template else None
    return known if end is None or end in before else [end, *before]


def _save(model: torch.nn.Module, processor: Any, target: Path) -> None:
    settings = model.generation_config
    settings.eos_token_id = ends(processor, settings.eos_token_id)
    model.save_pretrained(target)
    processor.save_pretrained(target)


def _save_adapter(adapter: Path, target: Path) -> None:
    target.mkdir()
    settings, weights = ADAPTER_FILES
    shutil.copyfile(adapter / weights, target / weights)
    config = json.loads((adapter / settings).read_text())
    # PEFT writes sets in the order of this process's hashes; sorted, equal adapters have equal files.
    config = {key: sorted(value) if _is_names(value) else value for key, value in config.items()}
    (target / settings).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)
