"""How the trainer of a run saves and continues: whole or in shards, alone or as several ranks."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from sft.models.weight_check import weights_digest
from sft.runtime.stage import StageError
from sft.terms.strategies import GATHERED
from sft.training import gathered_state, probe
from sft.training.checkpoint import EFFECTIVE
from sft.training.random_state import preserved_random_state
from sft.training.sharded_state import (
    OPTIMIZER,
    adapter_state,
    clean_name,
    is_sharded,
    load_optimizer,
    put_in_shards,
    save_optimizer,
    save_weights,
    states_by_name,
)
from sft.training.trainer_part import TrainerPart

# With less than this left, a failure to write is told as a full disk.
SPACE_LEFT_BYTES = 16 * 2**20


class SavesCheckpoints(TrainerPart):
    """The part of `RunTrainer` that writes checkpoints and reads the optimizer's state back."""

    def write_checkpoint(self) -> None:
        """The whole state after the current step, in a directory of its own; StageError where the disk is full.

        Not the library's `_save_checkpoint`, which writes a model card besides, and in place.
        """
        try:
            self._write_all()
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

    def _write_all(self) -> None:
        step, books = self.state.global_step, self.books
        plain = self._plain_model()
        with preserved_random_state():
            logits = probe.logits(self.model, books.probe_inputs, step) if step in books.kept_steps else None
        put_in_shards(plain)
        # Before anything is written: gathering shards takes all ranks, and the marker is written by one.
        whole = self._whole_weights()
        digest = self._weights_digest(whole)

        def describe() -> dict[str, Any]:
            return {"weights_digest": digest, "provenance": books.provenance, "world_size": self.ranks.world}

        with preserved_random_state():
            if self.ranks.main:
                if books.stream is not None:
                    books.stream.sync()
                with books.checkpoints.writing(step, describe) as staging:
                    self.ranks.wait()  # the directory is there
                    self._write_shared(staging, plain)
                    self._write_once(staging, plain, whole, logits)
                    self.ranks.wait()  # everything is written
            else:
                self.ranks.wait()
                self._write_shared(books.checkpoints.staging(step), plain)
                self.ranks.wait()
        if self.ranks.main:
            books.checkpoints.rotate(books.kept_steps, books.keep_optimizer)

    def _write_shared(self, staging: Path, plain: Any) -> None:
        """What every rank writes its part of."""
        self._save_rng_state(str(staging))
        if self._is_gathered:
            step, strategy = self.state.global_step, self.asked["strategy"]
            gathered_state.save_state(
                strategy, self.model_wrapped, self._torch_optimizer(), staging, step, self.ranks.main
            )
        elif is_sharded(plain):
            save_optimizer(plain, self._torch_optimizer(), staging)
            if hasattr(plain, "peft_config"):
                self._adapter = adapter_state(plain)
            else:
                save_weights(plain, staging)

    def _write_once(
        self,
        staging: Path,
        plain: Any,
        whole: dict[str, torch.Tensor] | None,
        logits: dict[str, torch.Tensor] | None,
    ) -> None:
        """What the main process writes, for all."""
        books = self.books
        if whole is not None:
            gathered_state.write_weights(plain, whole, staging)
            torch.save(self.lr_scheduler.state_dict(), staging / "scheduler.pt")
        elif not is_sharded(plain):
            plain.save_pretrained(staging)
            self._save_optimizer_and_scheduler(str(staging))
        else:
            torch.save(self.lr_scheduler.state_dict(), staging / "scheduler.pt")
            self.processing_class.save_pretrained(staging)
            if hasattr(plain, "peft_config"):
                plain.save_pretrained(staging, state_dict=self._adapter)
            else:
                plain.config.save_pretrained(staging)
                plain.generation_config.save_pretrained(staging)
        (staging / "README.md").unlink(missing_ok=True)  # PEFT's empty model card
        self._save_scaler(str(staging))
        self.state.save_to_json(str(staging / "trainer_state.json"))
        books.accounting.save(staging)
        (staging / EFFECTIVE).write_text(json.dumps(books.effective, indent=1, sort_keys=True) + "\n")
        probe.save(self._start_logits, staging / probe.START_FILE)
        if logits is not None:
            probe.save(logits, staging / probe.STEP_FILE)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """Also from shards, whoever wrote them: any number of ranks, or one process."""
        if checkpoint is None:
            return
        path, optimizer = Path(checkpoint), self._torch_optimizer()
        if self.asked["strategy"] == "fsdp1":
            self._load_fsdp1_optimizer(path, optimizer)
        elif not (is_sharded(self._plain_model()) or (path / OPTIMIZER).is_dir()):
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        else:
            load_optimizer(self._plain_model(), optimizer, path)
        self.lr_scheduler.load_state_dict(torch.load(path / "scheduler.pt", weights_only=True))
        for group, rate in zip(optimizer.param_groups, self.lr_scheduler.get_last_lr(), strict=True):
            group["lr"] = rate

    def _load_fsdp1_optimizer(self, path: Path, optimizer: torch.optim.Optimizer) -> None:
        # Each group's parameters by the names that they have unwrapped, in the order of every other strategy.
        named = {parameter: name for name, parameter in self.model_wrapped.named_parameters()}
        groups = [
            {key: value for key, value in group.items() if key != "params"}
            | {"params": [clean_name(named[parameter]) for parameter in group["params"]]}
            for group in optimizer.param_groups
        ]
        trained = [name for group in groups for name in group["params"]]
        gathered_state.load_fsdp1_optimizer(self.model_wrapped, optimizer, states_by_name(trained, path), groups)

    @property
    def _is_gathered(self) -> bool:
        return self.asked.get("strategy") in GATHERED

    def _whole_weights(self) -> dict[str, torch.Tensor] | None:
        """Where shards are put together to be saved: the weights, in the first process."""
        if not self._is_gathered:
            return None
        return gathered_state.whole_weights(self.asked["strategy"], self.model_wrapped, self.ranks.main)

    def _weights_digest(self, whole: dict[str, torch.Tensor] | None) -> str:
        if not self._is_gathered:
            return weights_digest(self._plain_model().state_dict())
        return self.ranks.from_main(None if whole is None else weights_digest(whole))

    def _torch_optimizer(self) -> torch.optim.Optimizer:
        return getattr(self.optimizer, "optimizer", self.optimizer)

    def _plain_model(self) -> Any:
        return self.accelerator.unwrap_model(self.model, keep_torch_compile=False)
