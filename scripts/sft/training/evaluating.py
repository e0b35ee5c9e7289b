"""How the trainer of a run looks at its validation rows: alone or as several ranks."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from typing import Any

import torch

from sft.runtime.stage import StageError
from sft.training.backends.trl import label_scores
from sft.training.collate import SAMPLE_IDS
from sft.training.random_state import preserved_random_state
from sft.training.trainer_part import TrainerPart


class Evaluates(TrainerPart):
    """The part of `RunTrainer` that measures the loss of validation rows."""

    def _evaluates_at(self, step: int) -> bool:
        every = self.books.eval_steps
        if self.eval_dataset is None or not len(self.eval_dataset):
            return False
        return step in (0, self.books.total_steps) or bool(every and step % every == 0)

    def measure_validation(self) -> None:
        """Mean loss of the validation tokens and share predicted right, as exact sums over exact counts."""
        sums = []
        model = self._model_in_precision()
        training = model.training
        with preserved_random_state(), torch.no_grad():
            model.eval()
            for batch, counts in self._evaluation_batches():
                names = batch.pop(SAMPLE_IDS)
                log_probs, likeliest, labelled = label_scores(model, self._prepare_inputs(batch))
                if counts:
                    loss = float(log_probs.sum(dtype=torch.float64))
                    sums.append((loss, int(likeliest.sum()), int(labelled.sum()), len(names)))
            model.train(training)
        # Added in the order of the rows, so that the sum does not depend on who had which batch.
        every = [one for turn in itertools.zip_longest(*self.ranks.gather(sums)) for one in turn if one is not None]
        loss_sum, correct, tokens, rows = 0.0, 0, 0, 0
        for one in every:
            loss_sum, correct, tokens, rows = loss_sum - one[0], correct + one[1], tokens + one[2], rows + one[3]
        if rows != len(self.eval_dataset):
            raise StageError(f"validation: {rows} of {len(self.eval_dataset)} rows were evaluated")
        self._write(
            {
                "step": self.state.global_step,
                "split": "validation",
                "epoch": self._epoch(self.state.global_step),
                "loss": loss_sum / tokens,
                "loss_sum": loss_sum,
                "loss_tokens": tokens,
                "correct_tokens": correct,
                "tokens_seen": self.books.accounting.tokens_seen,
                "supervised_tokens_seen": self.books.accounting.supervised_tokens_seen,
                "time": round(time.time(), 3),
            }
        )

    def _model_in_precision(self) -> Any:
        """The model that computes in the precision of training: DeepSpeed's engine, elsewhere the model itself."""
        return self.model_wrapped if self.is_deepspeed_enabled else self.model

    def _evaluation_batches(self) -> Iterator[tuple[dict[str, Any], bool]]:
        """`(batch, whether it counts)`: every rank-th batch. A rank without one repeats its first: sharded forwards
        need all ranks."""
        if self.ranks.world == 1:
            yield from ((batch, True) for batch in self.get_eval_dataloader())
            return
        size = self.args.per_device_eval_batch_size
        starts = range(0, len(self.eval_dataset), size)
        for turn in range(0, len(starts), self.ranks.world):
            mine = turn + self.ranks.rank
            start = starts[mine] if mine < len(starts) else 0
            rows = self.eval_dataset.select(range(start, min(start + size, len(self.eval_dataset))))
            yield self.data_collator(list(rows)), mine < len(starts)
