"""Unsloth: the same trainer with its kernels and its way of loading models, in an environment of its own.

It has to be imported before TRL, transformers and PEFT, which it changes in place, so the trainer's class is still the
one that sft.training.backends.trl names. Most of what Unsloth asks of its users does not arise here: rows arrive
tokenised, so nothing is formatted or mapped by its processes, and pictures are put into batches by our own collator,
whose batches are those of a processor (tests/smoke/test_collate.py). What remains is below.

Without a GPU, Unsloth trains text models only. What it does on one was not seen by us, and no test of it needs one.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sft.config.nodes import TrainSettings
from sft.config.training_settings import Lora
from sft.runtime.stage import StageError

if TYPE_CHECKING:
    from torch import nn

LOADS_MODELS = True
# Names that SFTConfig got after the TRL and transformers that Unsloth asks for.
OLDER_NAMES = {
    "activation_checkpointing": "gradient_checkpointing",
    "activation_checkpointing_kwargs": "gradient_checkpointing_kwargs",
}


def start(device: str) -> None:
    """Import Unsloth, first of all; StageError where it is missing or too late, or has no GPU that was asked for."""
    os.environ |= {
        "UNSLOTH_DISABLE_STATISTICS": "1",  # it would fetch a file to count its users
        # Sources that it generates; by default they land in the working directory.
        "UNSLOTH_COMPILE_LOCATION": str(Path(tempfile.gettempdir()) / f"unsloth-compiled-{os.getuid()}"),
        "UNSLOTH_DATASET_NUM_PROC": "0",  # no rows are mapped here, and none by processes of its own
    }
    if device == "cuda":
        os.environ["UNSLOTH_DISABLE_CPU_FALLBACK"] = "1"
    if early := [name for name in ("trl", "transformers", "peft") if name in sys.modules]:
        raise StageError(f"training.backend unsloth: {', '.join(early)} was imported before Unsloth. Report this")
    try:
        import unsloth  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name != "unsloth":
            raise
        raise StageError(
            "training.backend unsloth: Unsloth is not installed here. Name a lock that has it as the experiment's "
            "environment: unsloth, or cpu-unsloth where there is no GPU"
        ) from None


def refusal(settings: TrainSettings, directory: Path, device: str) -> str | None:
    """Why Unsloth cannot train this model on this device; None where it can."""
    from sft.models.model_kind import is_vision

    if device == "cpu" and is_vision(directory):
        return "Unsloth trains models with a vision tower on a GPU only. Set training.backend: trl"
    if device == "cpu" and settings.precision != "float32" and not _is_fast_in_bfloat16():
        return "this CPU has no bfloat16, so Unsloth would train in float32. Set precision: float32"
    return None


def arguments(requested: dict[str, Any], device: str) -> dict[str, Any]:
    """`requested` by the names of the older libraries, and with the optimizer that Unsloth puts in on a CPU."""
    made = {OLDER_NAMES.get(name, name): value for name, value in requested.items()}
    if device == "cpu":
        if made["optim"] == "adamw_torch":
            made["optim"] = "adamw_torch_fused"  # the same sums in another order
        if made["gradient_checkpointing"]:
            made.setdefault("gradient_checkpointing_kwargs", {"use_reentrant": False})
    return made


def load_model(directory: Path, settings: TrainSettings, longest: int) -> nn.Module:
    """By Unsloth's own loader, in float32; `longest` row in tokens, for positions that it prepares."""
    import torch
    from transformers import AutoConfig

    loader = _class_for(AutoConfig.from_pretrained(directory, local_files_only=True))
    model, _ = loader.from_pretrained(
        str(directory),
        max_seq_length=longest,
        dtype=torch.float32,
        load_in_4bit=False,
        full_finetuning=settings.method == "full",
        use_gradient_checkpointing=settings.training.activation_checkpointing,
        local_files_only=True,
    )
    return model


def new_adapter(model: nn.Module, lora: Lora, seed: int) -> nn.Module:
    """`model` with a freshly drawn adapter, by Unsloth's function, which draws as PEFT's does."""
    from sft.training import adapter

    adapted = _class_for(model.config).get_peft_model(
        model, **adapter.named_as_in_peft(lora), random_state=seed, use_gradient_checkpointing=False
    )
    adapter.refuse_unmergeable(adapted)
    return adapted


def stored_adapter(model: nn.Module, checkpoint: Path) -> nn.Module:
    """`model` with the adapter of a checkpoint, ready to be trained on."""
    from sft.training import adapter

    return adapter.stored_adapter(model, checkpoint)


def _class_for(config: Any) -> Any:
    """Unsloth's class for a model, by its configuration."""
    from unsloth import FastLanguageModel, FastVisionModel

    return FastVisionModel if hasattr(config, "vision_config") else FastLanguageModel


def _is_fast_in_bfloat16() -> bool:
    from unsloth import is_bfloat16_supported

    return is_bfloat16_supported()
