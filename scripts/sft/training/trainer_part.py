"""What the parts of a run's trainer, each in a file of its own, see of the whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import Trainer

    from sft.training.bookkeeping import Bookkeeping, Step
    from sft.training.checkpoint import Checkpoint
    from sft.training.ranks import Ranks
    from sft.training.ranks_plan import RanksPlan
else:
    Trainer = object  # a part stands before the library's class, whose methods it calls by super()


class TrainerPart(Trainer):
    """A part of `RunTrainer`."""

    books: Bookkeeping
    ranks: Ranks
    plan: RanksPlan | None  # of a rank; None where one process trains alone
    resumed: Checkpoint | None  # whose weights the model already holds
    asked: dict[str, Any]  # how the run is to be spread (see sharding.require_as_asked)
    _step: Step
    _start_logits: dict[str, Any]

    if TYPE_CHECKING:

        def _write(self, row: dict[str, Any]) -> None: ...

        def _epoch(self, step: int) -> float: ...
