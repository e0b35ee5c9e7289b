"""TRL's SFTTrainer with the run's own bookkeeping: one place a step for counting, logging, evaluating and saving.

What is TRL's stays TRL's (the loss, the optimizer, the schedule, the order of rows). Ours: rows arrive tokenised
with their ids; the loss is weighted by tokens under accumulation; a loss or gradient that is not finite stops the
run before the optimizer uses it; checkpoints are whole or absent; what is resumed is proved to be what was saved.
Which methods it overrides, why, and in what order the libraries call them: docs/training_step.md.
"""

from __future__ import annotations

import math
import resource
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from accelerate.data_loader import SeedableRandomSampler
from torch.utils.data import RandomSampler
from transformers import PrinterCallback, set_seed

from sft.runtime.stage import StageError
from sft.training import probe, sharding
from sft.training.accounting import samples_digest
from sft.training.backends.trl import loss_is_scaled, trainer_class
from sft.training.bookkeeping import Bookkeeping, Step
from sft.training.callback import RunCallback
from sft.training.checkpoint import Checkpoint
from sft.training.collate import IGNORED, REAL_TOKENS, SAMPLE_IDS
from sft.training.effective import built
from sft.training.evaluating import Evaluates
from sft.training.packed import require_separate_rows
from sft.training.random_state import preserved_random_state
from sft.training.rank_shares import RankShare, ShareLoader, in_step_order
from sft.training.ranks import Ranks
from sft.training.ranks_plan import RanksPlan
from sft.training.saving import SavesCheckpoints
from sft.training.sharded_state import whole

if TYPE_CHECKING:
    from trl import SFTTrainer
else:
    SFTTrainer = trainer_class()


class RunTrainer(SavesCheckpoints, Evaluates, SFTTrainer):
    """Trains one run. `resumed` is the checkpoint whose weights the given model already holds, None for a fresh run."""

    # compute_loss divides by the supervised tokens of the whole global batch, so accumulation needs no scaling.
    loss_is_scaled_for_ga = loss_is_scaled()

    def __init__(
        self,
        *args: Any,
        bookkeeping: Bookkeeping,
        resumed: Checkpoint | None,
        ranks: Ranks,
        plan: RanksPlan | None,
        **kwargs: Any,
    ):
        super().__init__(*args, **kwargs)
        self.books = bookkeeping
        self.resumed = resumed
        self.ranks = ranks
        self.plan = plan
        self.asked = {}
        self._saved_at = time.monotonic()
        self._step_clock = 0.0
        self.remove_callback(PrinterCallback)  # standard output is for one line, and the metrics stream has it all
        self.add_callback(RunCallback(self))

    # What the model and the optimizer start from

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Nothing: the weights were loaded from the checkpoint when the model was made.

        transformers 5.23 loads a checkpoint's old tensor names into the renamed model with strict=False, so a
        fully trained Qwen2.5-VL would silently go on from its base weights.
        """

    def begin(self, train_dataloader: Any) -> None:
        """Before the first step of an attempt, all being prepared and loaded: compare it with what was asked for."""
        if self.state.max_steps != self.books.total_steps:
            raise StageError(f"the trainer plans {self.state.max_steps} steps, the run has {self.books.total_steps}")
        if self.plan is not None:
            self._require_spread()
        if self.resumed:
            self._require_saved_weights(self.resumed)
        with preserved_random_state():
            self._look_first(train_dataloader)

    def _look_first(self, train_dataloader: Any) -> None:
        """What belongs before the first step: records, logits of the base, an evaluation that is due."""
        books, step = self.books, self.state.global_step
        books.effective["built"] |= built(self, train_dataloader)
        if "seq_lengths" in self.train_dataset.column_names:
            dtype = books.effective["run"]["precision"]
            books.effective["packing"] = require_separate_rows(
                self._model_in_precision(), self.data_collator, self.train_dataset, self._prepare_inputs, dtype
            )
        if self.resumed:
            self._start_logits = probe.load(self.resumed.path / probe.START_FILE)
        else:
            self._start_logits = books.probe_inputs | probe.logits(self.model, books.probe_inputs, 0)
        written = books.stream.written if books.stream is not None else None
        if self._evaluates_at(step) and (step, "validation") not in self.ranks.from_main(written):
            self.measure_validation()
        if self.plan is not None and self.ranks.main:
            self.plan.note_training()
        self._step_clock = time.monotonic()
        books.time_limit.begin()

    def _require_spread(self) -> None:
        """Record how the model is spread over the ranks; StageError when that is not what was asked for."""
        got = sharding.found(self, self.ranks)
        sharding.require_as_asked(self.asked, got)
        self.books.effective["distributed"] = got

    def _require_saved_weights(self, checkpoint: Checkpoint) -> None:
        found, saved = self._weights_digest(self._whole_weights()), checkpoint.marker["weights_digest"]
        if found != saved:
            raise StageError(
                f"{checkpoint.path}: the weights in memory ({found[:12]}…) are not those that were saved "
                f"({saved[:12]}…), so the run would not continue where it stopped. Report this with the versions of "
                f"transformers and peft; delete {checkpoint.path.parent} to train the run again"
            )

    # One optimizer step

    def begin_step(self) -> None:
        """The first step after a resume by another number of ranks: random states that follow from seed, step, rank.

        The library has put back those that as many ranks saved; those of other ranks are nobody's.
        """
        step = self.state.global_step
        if self.resumed and step == self.resumed.step and self.resumed.marker.get("world_size", 1) != self.ranks.world:
            set_seed((self.args.seed + 1_000_003 * step + self.ranks.rank) % 2**32)

    def get_batch_samples(self, epoch_iterator: Iterator, num_batches: int, device: Any) -> tuple[list, Any]:
        """The micro batches of the next optimizer step, counted; their ids do not reach the model."""
        batches = [batch for _, batch in zip(range(num_batches), epoch_iterator, strict=False)]
        ids = [batch.pop(SAMPLE_IDS) for batch in batches]
        # A filler row (id None) is no row of the step.
        real = [[row for row, name in enumerate(names) if name is not None] for names in ids]
        tokens = sum(_tokens(batch, rows) for batch, rows in zip(batches, real, strict=True))
        # A label is predicted from the token before it, so the first one of a row never counts.
        supervised = sum(int((batch["labels"][:, 1:] != IGNORED).sum()) for batch in batches)
        parts = self.ranks.gather((ids, tokens, supervised))
        every = [name for name in in_step_order([part[0] for part in parts]) if name is not None]
        self._step = Step(every, sum(part[1] for part in parts), sum(part[2] for part in parts))
        return batches, torch.tensor(self._step.supervised, device=device)

    def get_train_dataloader(self) -> Any:
        """The stock one for one process; for several, each rank's share of the same rows in the same order."""
        if self.ranks.world == 1:
            return super().get_train_dataloader()
        order: Any = self._get_train_sampler(self.train_dataset)
        if type(order) is RandomSampler:
            # accelerate does this in one process (data_loader.prepare_data_loader).
            order = SeedableRandomSampler(
                self.train_dataset, replacement=False, num_samples=order.num_samples, data_seed=self.args.data_seed
            )
        share = RankShare(order, self.ranks, self.args.train_batch_size, self.args.gradient_accumulation_steps)
        return ShareLoader(
            self.train_dataset,
            share,
            order,
            collate_fn=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory,
            persistent_workers=self.args.dataloader_persistent_workers,
            prefetch_factor=self.args.dataloader_prefetch_factor,
        )

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        loss = super().training_step(*args, **kwargs)
        self._step.losses.append(loss)
        return loss

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> float:
        """The gradient norm before clipping, after making sure that the step to come rests on finite numbers."""
        # In shards, each rank holds a part of the norm until it is asked for the whole.
        norm = float(whole(super()._get_grad_norm(model, grad_norm=grad_norm)))
        # The loss that a rank steps on is as many times too large as there are ranks, which average gradients.
        part = sum(float(part) for part in self._step.losses) / self.ranks.world
        losses, norms = zip(*self.ranks.gather((part, norm)), strict=True)
        loss = self._step.loss = sum(losses)
        if any(other != norm and math.isfinite(norm) for other in norms):
            raise StageError(f"step {self.state.global_step + 1}: the gradient norm differs between ranks: {norms}")
        for name, value in (("loss", loss), ("gradient norm", norm)):
            if not math.isfinite(value):
                ids = self._step.ids
                raise StageError(
                    f"step {self.state.global_step + 1}: the {name} is {value}; the optimizer did not use it. The "
                    f"step's samples: {', '.join(ids[:64])}{' …' if len(ids) > 64 else ''}. Look at these rows, "
                    f"lower training.learning_rate or training.max_grad_norm"
                )
        self._step.grad_norm, self._step.learning_rate = norm, self._get_learning_rate()
        return norm

    def end_step(self) -> bool:
        """After the optimizer: count the step, log it, evaluate, save; returns whether training is to stop here."""
        step, books = self.state.global_step, self.books
        peak = peak_memory_mib(self.args.device)
        if books.time_limit.is_near():
            books.stop.request("time limit")
        asked = books.stop.requested or (self.plan is not None and self.plan.stop_is_asked)
        due = time.monotonic() - self._saved_at >= books.checkpoint_seconds
        # One rank's signal or clock is every rank's, or they would wait for each other in different places.
        agreed = self.ranks.gather((asked, due, peak))
        stopping = any(one[0] for one in agreed) and step < books.total_steps
        due = agreed[0][1]
        self._record(step, max(one[2] for one in agreed))
        if self._evaluates_at(step) and not stopping:  # a stopped run evaluates when it continues (`begin`)
            self.measure_validation()
        if step in books.kept_steps or stopping or due:
            before = time.monotonic()
            self.write_checkpoint()
            self._saved_at = time.monotonic()
            books.time_limit.saved(self._saved_at - before)
        self._step_clock = time.monotonic()
        return stopping

    def _record(self, step: int, peak_mib: int) -> None:
        books, done = self.books, self._step
        seconds = time.monotonic() - self._step_clock
        loss = done.loss
        books.accounting.add_step(done.tokens, done.supervised, len(done.ids), loss)
        self._metrics["train"].clear()  # TRL's own, per micro batch and lost on resume
        epochs, rest = divmod(step, self._steps_per_epoch())
        if rest == 0 and books.accounting.rows_seen != epochs * len(self.train_dataset):
            raise StageError(
                f"after {epochs} epochs {books.accounting.rows_seen} rows were trained on instead of "
                f"{epochs * len(self.train_dataset)}. Report this with the versions of trl and transformers"
            )
        if step % books.logging_steps == 0 or step == books.total_steps:
            loss_sum, loss_tokens = books.accounting.take_window()
            self._write(
                {
                    "step": step,
                    "split": "train",
                    "epoch": self._epoch(step),
                    "loss": loss if books.logging_steps == 1 else loss_sum / loss_tokens,
                    "loss_sum": loss_sum,
                    "loss_tokens": loss_tokens,
                    "grad_norm": done.grad_norm,
                    "learning_rate": done.learning_rate,
                    "tokens_seen": books.accounting.tokens_seen,
                    "supervised_tokens_seen": books.accounting.supervised_tokens_seen,
                    "samples": samples_digest(done.ids),
                    "tokens_per_second": round(done.tokens / seconds, 1),
                    "peak_memory_mib": peak_mib,
                    "time": round(time.time(), 3),
                }
            )
        books.log.step(step, loss, done.tokens, seconds)

    def _steps_per_epoch(self) -> int:
        return math.ceil(len(self.train_dataset) / self.books.global_batch_size)

    def _epoch(self, step: int) -> float:
        """Passes over the rows after `step`. The trainer's own counts micro batches, so it depends on their size."""
        epochs, rest = divmod(step, self._steps_per_epoch())
        return epochs + rest / self._steps_per_epoch()

    def _write(self, row: dict[str, Any]) -> None:
        if self.books.stream is not None and self.books.mirror is not None:
            self.books.stream.append(row)
            self.books.mirror.add(row)


def _tokens(batch: dict[str, Any], rows: list[int]) -> int:
    """The tokens of these rows of a batch, padding left out; packs bring their counts, which the model must not see."""
    if REAL_TOKENS in batch:
        counts = batch.pop(REAL_TOKENS)
        return sum(counts[row] for row in rows)
    return int(batch["attention_mask"][rows].sum())


def peak_memory_mib(device: torch.device) -> int:
    """The most memory used so far: of the process on a CPU, of torch's allocator on a GPU."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 2**20)
    # Linux counts in KiB (getrusage(2)); macOS in bytes.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10))
