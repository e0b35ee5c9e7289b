"""From a run's directory to a trainer that is ready: rows, model, arguments, records."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sft.config.nodes import TrainSettings
from sft.models.model_directory import model_directory
from sft.runtime.stage import Stage, StageError
from sft.runtime.stop_request import StopRequest
from sft.runtime.time_limit import TimeLimit
from sft.runtime.training_log import TrainingLog
from sft.training import metrics_stream
from sft.training.accounting import Accounting
from sft.training.checkpoint import Checkpoints
from sft.training.metrics_stream import MetricsStream
from sft.training.ranks_plan import RanksPlan
from sft.training.resume import Start
from sft.training.tensorboard_mirror import TensorboardMirror
from sft.training.training_arguments import requested_arguments

if TYPE_CHECKING:
    from torch import nn

    from sft.training.trainer import RunTrainer


TENSORBOARD = "tensorboard"


@dataclass(frozen=True)
class Run:
    """What is settled before anything heavy is imported."""

    stage: Stage
    total_steps: int
    kept_steps: list[int]
    provenance: dict[str, Any]
    checkpoints: Checkpoints
    start: Start
    attempt: int
    stop: StopRequest
    time_limit: TimeLimit
    plan: RanksPlan | None = None  # of a rank; None where one process trains alone

    @cached_property
    def settings(self) -> TrainSettings:
        """What is trained, as config.json says it."""
        return self.stage.settings(TrainSettings)

    @property
    def metrics(self) -> Path:
        return self.stage.directory / metrics_stream.NAME


def make_trainer(run: Run, device: str) -> RunTrainer:
    """The trainer of `run`, holding the weights it starts from (base, adapter or checkpoint)."""
    from transformers import set_seed

    from sft.models.loading import load_processor, tokenizer_of
    from sft.models.weight_check import parameter_counts
    from sft.training import probe, sharding
    from sft.training.backends import backend, trl
    from sft.training.bookkeeping import Bookkeeping
    from sft.training.collate import Collator
    from sft.training.effective import effective_arguments
    from sft.training.gathered_state import require_same_layout
    from sft.training.methods import require_possible, trained_types_kept
    from sft.training.ranks import joined_ranks
    from sft.training.token_rows import load_rows, longest_row
    from sft.training.trainer import RunTrainer

    stage, settings, options = run.stage, run.settings, run.stage.options
    training = settings.training
    require_possible(training, device)
    trained_by = backend(training.backend)
    base = model_directory(stage.input("model"), settings.model_step)
    if problem := trained_by.refusal(settings, base, device):
        raise StageError(f"training.backend: {problem}")
    if device == "cpu":
        sharding.allow_on_cpu(options.strategy)
    if resumed := run.start.checkpoint:
        saved_by = resumed.strategy, resumed.marker.get("world_size", 1)
        require_same_layout(resumed.path, saved_by, options.strategy, options.processes)
    processor = load_processor(stage.input("processor") / "processor")
    rows = {split: load_rows(stage.input("tokens"), split) for split in ("train", "validation")}
    set_seed(settings.seed)
    model, methods = load_start(run, device, longest_row(rows["train"]))
    tokenizer = tokenizer_of(processor)
    collator = Collator(processor)
    inputs = probe.probe_inputs(
        rows["validation"] if len(rows["validation"]) else rows["train"],
        collator,
        vocabulary=model.get_input_embeddings().weight.shape[0],
        avoid={*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder},
        seed=settings.seed,
    )
    requested = requested_arguments(
        settings, device, options.micro_batch_size, str(run.checkpoints.directory), options.processes
    )
    requested = trained_by.arguments(requested, device)
    requested |= sharding.arguments(options.strategy, model, requested, settings.precision, options.offload)
    arguments = trl.arguments_class()(**requested)
    ranks = joined_ranks(options.processes)  # the arguments make the process group
    accounting = Accounting.load(run.start.path) if run.start.path else Accounting()
    accounting.note_code(run.start.step, run.provenance["code"], run.provenance["versions"])
    stream = mirror = None
    if ranks.main:
        stream = MetricsStream(run.metrics, run.start.step if run.start.path else None, run.attempt)
        mirror = TensorboardMirror(run.metrics, stage.directory / TENSORBOARD)
    books = Bookkeeping(
        global_batch_size=training.global_batch_size,
        total_steps=run.total_steps,
        kept_steps=run.kept_steps,
        eval_steps=training.eval_steps,
        logging_steps=training.logging_steps,
        checkpoint_seconds=60 * options.checkpoint_minutes,
        keep_optimizer=options.keep_optimizer,
        provenance=run.provenance,
        checkpoints=run.checkpoints,
        stream=stream,
        mirror=mirror,
        log=TrainingLog(stage.say, run.total_steps, run.start.step),
        stop=run.stop,
        time_limit=run.time_limit,
        accounting=accounting,
        probe_inputs=inputs,
    )
    with trained_types_kept(model):
        trainer = RunTrainer(
            model=model,
            args=arguments,
            data_collator=collator,
            train_dataset=rows["train"],
            eval_dataset=rows["validation"] if len(rows["validation"]) else None,
            processing_class=processor,
            bookkeeping=books,
            resumed=resumed,
            ranks=ranks,
            plan=run.plan,
        )
    if len(trainer.train_dataset) != len(rows["train"]):
        raise StageError(f"{len(rows['train'])} rows were prepared, {len(trainer.train_dataset)} reached the trainer")
    books.effective["built"] = {
        "logits": "labelled positions" if trl.score_labelled_positions_only() else "all positions"
    }
    if training.compile != "none":
        from sft.training.compiled import compile_blocks

        methods["compile"] = compile_blocks(trainer.model, training.compile, device)
    if methods:
        books.effective["methods"] = methods
    every, trainable = parameter_counts(trainer.model)
    books.effective |= effective_arguments(requested, trainer.args)
    books.effective["run"] = {
        "device": device,
        "precision": settings.precision,
        "strategy": options.strategy,
        "world_size": ranks.world,
        "attention": model.config._attn_implementation,
        "parameters": every,
        "trainable_parameters": trainable,
        "rows": {split: len(of_split) for split, of_split in rows.items()},
    }
    trainer.asked = {
        "strategy": options.strategy,
        "world_size": options.processes,
        "device": device,
        "wrapped_classes": sharding.blocks(model) if options.strategy in ("fsdp1", "fsdp2") else [],
        "mixed_precision": "bf16" if settings.precision == "bfloat16" else "no",
        "attention": model.config._attn_implementation,
    }
    return trainer


def freeze(model: nn.Module, patterns: Iterable[str]) -> None:
    """Take the parameters whose names a pattern finds out of training; StageError when one finds none, or all go."""
    named = list(model.named_parameters())
    for pattern in patterns:
        found = [parameter for name, parameter in named if re.search(pattern, name)]
        if not found:
            some = ", ".join(sorted({name.rpartition(".")[0] for name, _ in named})[:8])
            raise StageError(f"training.frozen: {pattern!r} finds no parameter of the model. Names are like {some}")
        for parameter in found:
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for _, parameter in named):
        raise StageError("training.frozen: nothing is left to train. Remove a pattern")


def load_start(run: Run, device: str, longest: int) -> tuple[nn.Module, dict[str, Any]]:
    """The model that this attempt trains, its weights compared with the files they come from; and how it computes.

    In full: the base, or the checkpoint. LoRA: the base with a new adapter, or with that of the checkpoint. What is
    trained is always float32; bfloat16 and FP8 are precisions of the computation, not of the weights. The longest row
    has `longest` tokens.
    """
    from sft.models.loading import load_model
    from sft.models.sharded_weights import has_shards, load_shards
    from sft.models.weight_check import check_loaded
    from sft.training.backends import backend
    from sft.training.methods import as_configured, load_base

    settings = run.settings
    trained_by = backend(settings.training.backend)
    base = model_directory(run.stage.input("model"), settings.model_step)
    full_start = run.start.path if settings.method == "full" else None
    if full_start and has_shards(full_start):
        model = load_model(base)
        count = load_shards(model, full_start)
        run.stage.say(f"loaded {full_start}: {count} tensors from shards")
        record: dict[str, Any] = {}
    elif trained_by.LOADS_MODELS:
        model, record = trained_by.load_model(full_start or base, settings, longest), {}
        count = check_loaded(model, full_start or base)
        run.stage.say(f"loaded {full_start or base}: {count} tensors, equal to the files")
    elif full_start:
        model, record = load_model(full_start), {}
        count = check_loaded(model, full_start)
        run.stage.say(f"loaded {full_start}: {count} tensors, equal to the files")
    else:
        model, record = load_base(base, settings, device, run.stage.options.strategy)
        run.stage.say(f"loaded {base}: {record.pop('tensors')} tensors, equal to the files")
    record |= as_configured(model, settings.training, device)
    if settings.method == "full":
        freeze(model, settings.training.frozen)
        return model, record
    if run.start.path:
        return trained_by.stored_adapter(model, run.start.path), record
    return trained_by.new_adapter(model, settings.lora, settings.seed), record
