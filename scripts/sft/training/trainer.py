"""TRL's SFTTrainer with the run's own bookkeeping: one place a step for counting, logging, evaluating and saving.

What is TRL's stays TRL's (the loss, the optimizer, the schedule, the order of rows). Ours: rows arrive tokenised
with their ids; the loss is weighted by tokens under accumulation; a loss or gradient that is not finite stops the
run before the optimizer uses it; checkpoints are whole or absent; what is resumed is proved to be what was saved.
Overrides methods of transformers 5.23 and TRL 1.16 whose names start with an underscore.
"""

from __future__ import annotations

import errno
import json
import math
import resource
import shutil
import sys
import time
from collections.abc import Iterator
from typing import Any

import torch
from safetensors import SafetensorError
from trl import SFTTrainer

from sft.models.weight_check import weights_digest
from sft.stage import StageError
from sft.training import probe
from sft.training.accounting import samples_digest
from sft.training.bookkeeping import Bookkeeping, Step
from sft.training.checkpoint import EFFECTIVE, Checkpoint
from sft.training.collate import IGNORED, REAL_TOKENS, SAMPLE_IDS
from sft.training.effective import built
from sft.training.packed import require_separate_rows
from sft.training.random_state import preserved_random_state

# With less than this left, a failure to write is told as a full disk.
SPACE_LEFT_BYTES = 16 * 2**20


class RunTrainer(SFTTrainer):
    """Trains one run. `resumed` is the checkpoint whose weights the given model already holds, None for a fresh run."""

    # compute_loss divides by the supervised tokens of the whole global batch, so accumulation needs no scaling.
    loss_is_scaled_for_ga = True

    def __init__(self, *args: Any, bookkeeping: Bookkeeping, resumed: Checkpoint | None, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.books = bookkeeping
        self.resumed = resumed
        self._step: Step
        self._handled = resumed.step if resumed else 0
        self._saved_at = time.monotonic()
        self._step_clock = 0.0

    # What the model and the optimizer start from

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Nothing: the weights were loaded from the checkpoint when the model was made.

        transformers 5.23 loads a checkpoint's old tensor names into the renamed model with strict=False, so a
        fully trained Qwen2.5-VL would silently go on from its base weights.
        """

    def _prepare_for_training(self, max_steps: int, train_dataloader: Any, resume_from_checkpoint: Any) -> Any:
        prepared = super()._prepare_for_training(max_steps, train_dataloader, resume_from_checkpoint)
        if max_steps != self.books.total_steps:
            raise StageError(f"the trainer plans {max_steps} steps, the run has {self.books.total_steps}")
        if self.resumed:
            self._require_saved_weights(self.resumed)
        with preserved_random_state():
            self._begin(prepared[1])
        return prepared

    def _begin(self, train_dataloader: Any) -> None:
        """What belongs before the first step of an attempt: records, logits of the base, an evaluation that is due."""
        books, step = self.books, self._handled
        books.effective["built"] |= built(self, train_dataloader)
        if "seq_lengths" in self.train_dataset.column_names:
            dtype = books.effective["run"]["precision"]
            books.effective["packing"] = require_separate_rows(
                self.model, self.data_collator, self.train_dataset, self._prepare_inputs, dtype
            )
        if self.resumed:
            self._start_logits = probe.load(self.resumed.path / probe.START_FILE)
        else:
            self._start_logits = books.probe_inputs | probe.logits(self.model, books.probe_inputs, 0)
        if self._evaluates_at(step) and (step, "validation") not in books.stream.written:
            self.evaluate()
        self._step_clock = time.monotonic()

    def _require_saved_weights(self, checkpoint: Checkpoint) -> None:
        found, saved = weights_digest(self._plain_model()), checkpoint.marker["weights_digest"]
        if found != saved:
            raise StageError(
                f"{checkpoint.path}: the weights in memory ({found[:12]}…) are not those that were saved "
                f"({saved[:12]}…), so the run would not continue where it stopped. Report this with the versions of "
                f"transformers and peft; delete {checkpoint.path.parent} to train the run again"
            )

    # One optimizer step

    def get_batch_samples(self, epoch_iterator: Iterator, num_batches: int, device: Any) -> tuple[list, Any]:
        """The micro batches of the next optimizer step, counted; their ids do not reach the model."""
        batches = [batch for _, batch in zip(range(num_batches), epoch_iterator, strict=False)]
        ids = [row for batch in batches for row in batch.pop(SAMPLE_IDS)]
        tokens = sum(
            batch.pop(REAL_TOKENS) if REAL_TOKENS in batch else int(batch["attention_mask"].sum()) for batch in batches
        )
        # A label is predicted from the token before it, so the first one of a row never counts.
        supervised = sum(int((batch["labels"][:, 1:] != IGNORED).sum()) for batch in batches)
        self._step = Step(ids, tokens, supervised)
        return batches, torch.tensor(supervised, device=device)

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        loss = super().training_step(*args, **kwargs)
        self._step.losses.append(loss)
        return loss

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> float:
        """The gradient norm before clipping, after making sure that the step to come rests on finite numbers."""
        norm = float(super()._get_grad_norm(model, grad_norm=grad_norm))
        loss = sum(float(part) for part in self._step.losses)
        for name, value in (("loss", loss), ("gradient norm", norm)):
            if not math.isfinite(value):
                ids = self._step.ids
                raise StageError(
                    f"step {self.state.global_step + 1}: the {name} is {value}; the optimizer did not use it. The "
                    f"step's samples: {', '.join(ids[:64])}{' …' if len(ids) > 64 else ''}. Look at these rows, "
                    f"lower training.learning_rate or training.max_grad_norm"
                )
        return norm

    def _maybe_log_save_evaluate(self, _tr_loss, grad_norm, model, trial, *_args, learning_rate=None, **_kwargs):
        """Called after each step (and once more after each epoch): count it, log it, evaluate, save, stop."""
        step = self.state.global_step
        if step == self._handled:
            return
        self._handled = step
        books = self.books
        self._record(step, grad_norm, learning_rate)
        stopping = books.stop.requested and step < books.total_steps
        if self._evaluates_at(step) and not stopping:  # a stopped run evaluates when it continues (`begin`)
            self.evaluate()
        due = time.monotonic() - self._saved_at >= books.checkpoint_seconds
        if step in books.kept_steps or stopping or due:
            self._save_checkpoint(model, trial)
            self._saved_at = time.monotonic()
        if stopping:
            self.control.should_training_stop = True
        self._step_clock = time.monotonic()

    def _record(self, step: int, grad_norm: float, learning_rate: float | None) -> None:
        books, done = self.books, self._step
        seconds = time.monotonic() - self._step_clock
        loss = sum(float(part) for part in done.losses)
        books.accounting.add_step(done.tokens, done.supervised, len(done.ids), loss)
        self._metrics["train"].clear()  # TRL's own, per micro batch and lost on resume
        epochs, rest = divmod(step, math.ceil(len(self.train_dataset) / books.global_batch_size))
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
                    "epoch": self.state.epoch,
                    "loss": loss if books.logging_steps == 1 else loss_sum / loss_tokens,
                    "loss_sum": loss_sum,
                    "loss_tokens": loss_tokens,
                    "grad_norm": float(grad_norm),
                    "learning_rate": learning_rate,
                    "tokens_seen": books.accounting.tokens_seen,
                    "supervised_tokens_seen": books.accounting.supervised_tokens_seen,
                    "samples": samples_digest(done.ids),
                    "tokens_per_second": round(done.tokens / seconds, 1),
                    "peak_memory_mib": peak_memory_mib(self.args.device),
                    "time": round(time.time(), 3),
                }
            )
        books.log.step(step, loss, done.tokens, seconds)

    def _write(self, row: dict[str, Any]) -> None:
        self.books.stream.append(row)
        self.books.mirror.add(row)

    # Validation

    def _evaluates_at(self, step: int) -> bool:
        every = self.books.eval_steps
        if self.eval_dataset is None or not len(self.eval_dataset):
            return False
        return step in (0, self.books.total_steps) or bool(every and step % every == 0)

    def evaluate(self, *_args: Any, **_kwargs: Any) -> dict[str, float]:
        """Mean loss of the validation tokens and share predicted right, as exact sums over exact counts."""
        loss_sum, correct, tokens, rows = 0.0, 0, 0, 0
        training = self.model.training
        with preserved_random_state(), torch.no_grad():
            self.model.eval()
            for batch in self.get_eval_dataloader():
                rows += len(batch.pop(SAMPLE_IDS))
                made = self.model(**self._prepare_inputs(batch), use_cache=False, fused_lm_head=True)
                loss_sum -= float(made.log_probs.sum(dtype=torch.float64))
                correct += int(made.is_top1.sum())
                tokens += int(made.label_mask.sum())
            self.model.train(training)
        if rows != len(self.eval_dataset):
            raise StageError(f"validation: {rows} of {len(self.eval_dataset)} rows were evaluated")
        self._write(
            {
                "step": self.state.global_step,
                "split": "validation",
                "epoch": self.state.epoch or 0.0,
                "loss": loss_sum / tokens,
                "loss_sum": loss_sum,
                "loss_tokens": tokens,
                "correct_tokens": correct,
                "tokens_seen": self.books.accounting.tokens_seen,
                "supervised_tokens_seen": self.books.accounting.supervised_tokens_seen,
                "time": round(time.time(), 3),
            }
        )
        return {"eval_loss": loss_sum / tokens}

    # Checkpoints

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        try:
            self._write_checkpoint()
        except (OSError, RuntimeError, SafetensorError) as error:
            # A full disk is an OSError here, a RuntimeError in torch.save, a SafetensorError there.
            directory = self.books.checkpoints.directory
            free = shutil.disk_usage(directory).free
            if free > SPACE_LEFT_BYTES and getattr(error, "errno", None) != errno.ENOSPC:
                raise
            shutil.rmtree(directory / f".writing-{self.state.global_step}", ignore_errors=True)
            raise StageError(
                f"{directory}: the checkpoint of step {self.state.global_step} could not be written ({error}); "
                f"{free / 2**20:.0f} MiB are free. Make room and start again: the run continues from the one before"
            ) from error

    def _write_checkpoint(self) -> None:
        step, books = self.state.global_step, self.books
        plain = self._plain_model()

        def describe() -> dict[str, Any]:
            return {"weights_digest": weights_digest(plain), "provenance": books.provenance}

        books.stream.sync()
        with preserved_random_state(), books.checkpoints.writing(step, describe) as staging:
            self._save_rng_state(str(staging))
            plain.save_pretrained(staging)
            (staging / "README.md").unlink(missing_ok=True)  # PEFT's empty model card
            self._save_optimizer_and_scheduler(str(staging))
            self._save_scaler(str(staging))
            self.state.save_to_json(str(staging / "trainer_state.json"))
            books.accounting.save(staging)
            (staging / EFFECTIVE).write_text(json.dumps(books.effective, indent=1, sort_keys=True) + "\n")
            probe.save(self._start_logits, staging / probe.START_FILE)
            if step in books.kept_steps:
                probe.save(probe.logits(self.model, books.probe_inputs, step), staging / probe.STEP_FILE)
        books.checkpoints.rotate(books.kept_steps, books.keep_optimizer)

    def _plain_model(self) -> Any:
        return self.accelerator.unwrap_model(self.model, keep_torch_compile=False)

    def log(self, *_args: Any, **_kwargs: Any) -> None:
        """Nothing: the metrics stream has it all; the library's log would grow in every checkpoint."""


def peak_memory_mib(device: torch.device) -> int:
    """The most memory used so far: of the process on a CPU, of torch's allocator on a GPU."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 2**20)
    # Linux counts in KiB (getrusage(2)); macOS in bytes.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10))
