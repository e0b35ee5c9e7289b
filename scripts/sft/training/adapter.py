"""LoRA adapters with PEFT: a new one, or that of a checkpoint; refused where it could not be merged."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sft.config.training_settings import Lora
from sft.runtime.stage import StageError

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import nn


def new_adapter(model: nn.Module, lora: Lora, seed: int) -> PeftModel:
    """`model` with a freshly drawn adapter."""
    from peft import LoraConfig, get_peft_model
    from transformers import set_seed

    config = LoraConfig(
        **named_as_in_peft(lora),
        layers_to_transform=list(lora.layers) if lora.layers is not None else None,
        task_type="CAUSAL_LM",
    )
    set_seed(seed)  # the adapter's first values are drawn here
    try:
        adapted = get_peft_model(model, config)
    except ValueError as error:
        raise StageError(f"lora: {error}. Check lora.target_modules against the model's modules") from None
    except RuntimeError as error:
        # A whole copy of a layer whose weights are integers has no gradient.
        raise StageError(f"lora: {error}. Take quantised layers out of lora.modules_to_save") from None
    refuse_unmergeable(adapted)
    return adapted


def named_as_in_peft(lora: Lora) -> dict[str, Any]:
    """The settings of an adapter by the names that PEFT, and whoever wraps it, has for them."""
    targets, saved = lora.target_modules, lora.modules_to_save
    return {
        "r": lora.r,
        "lora_alpha": lora.alpha,
        "lora_dropout": lora.dropout,
        "target_modules": targets if isinstance(targets, str) else list(targets),
        "use_rslora": lora.use_rslora,
        "use_dora": lora.use_dora,
        "modules_to_save": list(saved) if saved else None,
        "bias": "none",
    }


def stored_adapter(model: nn.Module, checkpoint: Path) -> PeftModel:
    """`model` with the adapter of a checkpoint directory, ready to be trained on."""
    from peft import PeftModel

    return PeftModel.from_pretrained(model, checkpoint, is_trainable=True)


def refuse_unmergeable(model: PeftModel) -> None:
    """StageError for an adapter that could not be merged, or would not be trained."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    base = model.get_base_model()
    tied = getattr(base.config.get_text_config(), "tie_word_embeddings", False) or getattr(
        base.config, "tie_word_embeddings", False
    )
    if tied and isinstance(base.get_input_embeddings(), BaseTunerLayer):
        # PEFT merges it wrongly and only warns: the other half of the tie keeps the old weights.
        raise StageError(
            "lora.target_modules: embed_tokens is tied to the output layer, and such an adapter cannot be merged. "
            "Put embed_tokens into lora.modules_to_save instead"
        )
    if isinstance(base.get_output_embeddings(), BaseTunerLayer):
        # TRL computes the loss from lm_head.weight directly, so the adapter would never be trained.
        raise StageError("lora.target_modules: lm_head cannot have an adapter. Put it into lora.modules_to_save")
