"""TRL: the trainer, its arguments and its fused LM head, and all that this workflow knows of its internals.

A new major version of TRL is this file's work, and that of sft/data/tokens/packing.py, which packs rows with TRL
before there is a trainer. What sft.training.trainer overrides is in docs/training_step.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sft.config.nodes import TrainSettings
from sft.training import adapter

if TYPE_CHECKING:
    from torch import Tensor, nn

LOADS_MODELS = False  # the Auto classes do (sft.models.loading, sft.training.methods)
new_adapter = adapter.new_adapter
stored_adapter = adapter.stored_adapter


def start(_device: str) -> None:
    """Nothing: TRL can be imported in any order."""


def refusal(_settings: TrainSettings, _directory: Path, _device: str) -> str | None:
    """None: what TRL cannot do is refused when the configuration is read."""
    return None


def arguments(requested: dict[str, Any], _device: str) -> dict[str, Any]:
    """`requested` as it is: its names are TRL's."""
    return requested


def trainer_class() -> type:
    """The class whose step, loss and optimizer a run is trained with."""
    from trl import SFTTrainer

    return SFTTrainer


def arguments_class() -> type:
    """The class of its arguments."""
    from trl import SFTConfig

    return SFTConfig


def loss_is_scaled() -> bool | None:
    """Tells the trainer that its loss needs no scaling for accumulation: True, or nothing before transformers 5.19.

    Older ones see it from the model's arguments. Told so all the same, TRL makes them believe it by a text where a
    function of the loss is expected, and Unsloth calls that.
    """
    from transformers import Trainer

    return True if hasattr(Trainer, "loss_is_scaled_for_ga") else None


def score_labelled_positions_only() -> bool:
    """Let TRL's fused LM head compute the logits of labelled positions only; returns whether it now does.

    TRL 1.16 does so where Triton is and scores every position elsewhere, for compilers that want fixed shapes; TRL 1.15
    does so everywhere. On a CPU with a vocabulary of 49,152 and short answers every position costs a third of the time.
    """
    from trl.trainer import utils

    if hasattr(utils, "_use_triton"):
        # Only the choice in this module: the kernels have a binding of their own and still ask for a Triton device.
        utils._use_triton = lambda _device: True
    return hasattr(utils, "add_fused_lm_head")


def label_scores(model: nn.Module, inputs: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
    """Each label's log-probability, whether it is the likeliest token, and where there is one: (rows, positions)."""
    made = model(**inputs, use_cache=False, fused_lm_head=True)
    return made.log_probs, made.is_top1, made.label_mask
