"""The moments of training at which the library calls us by its public hooks; what happens then is the trainer's.

How these calls lie between those of the methods that the trainer overrides: docs/training_step.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

if TYPE_CHECKING:
    from sft.training.trainer import RunTrainer


class RunCallback(TrainerCallback):
    """Calls the trainer of a run: before the first step, before each step, after each step. On every rank."""

    def __init__(self, trainer: RunTrainer):
        self.trainer = trainer

    def on_train_begin(self, _args: Any, _state: Any, _control: Any, **given: Any) -> None:
        self.trainer.begin(given["train_dataloader"])

    def on_step_begin(self, _args: Any, _state: Any, _control: Any, **_given: Any) -> None:
        self.trainer.begin_step()

    def on_step_end(self, _args: Any, _state: Any, control: Any, **_given: Any) -> None:
        if self.trainer.end_step():
            control.should_training_stop = True
