"""`training:` and `lora:` what the optimizer does. Names are those of TRL, transformers and PEFT where the meaning is.

Every default that shapes a result is stated here, not inherited from a library: an upgrade cannot change it unseen.
"""

import re
from typing import Any, Literal

from pydantic import field_validator, model_validator

from sft.config import exclusions
from sft.config.distributed import Distributed
from sft.config.errors import FieldError, refuse
from sft.config.fields import Integer, Number, Section, Truth, execution, identity
from sft.config.trainer_extra import extra_faults
from sft.terms.strategies import SHARDED_STATE


class Tokens(Section):
    """How rows become tokens and labels: what `tokenize_dataset` reads."""

    max_length: Integer = identity(describe="longest row after tokenisation", unit="tokens", gt=0)
    on_too_long: Literal["error", "drop", "truncate"] = identity(
        "error", describe="what happens to longer rows; never silent"
    )
    truncation_side: Literal["right", "left"] = identity(
        "right", describe="where on_too_long: truncate cuts", added_with="right"
    )
    loss_on: Literal["completion", "assistant", "last", "all"] = identity(
        "completion", describe="what is learned: the answer; every answer or the last one of a conversation; all"
    )
    control_tokens: Literal["refuse", "neutralise", "allow"] = identity(
        "refuse", describe="control tokens such as <|im_end|> in the text of rows", added_with="refuse"
    )
    packing: Literal["none", "bfd_split", "bfd", "wrapped"] = identity(
        "none", describe="several rows in one sequence of max_length; a batch then counts packs", added_with="none"
    )


class Optimization(Section):
    """What the optimizer does with them: `training` in the config.json of a run."""

    learning_rate: Number = identity(describe="peak learning rate", gt=0)
    global_batch_size: Integer = identity(describe="rows per optimizer step, over all devices", unit="rows", gt=0)
    max_steps: Integer | None = identity(None, describe="optimizer steps; or give num_train_epochs", unit="steps", gt=0)
    num_train_epochs: Number | None = identity(
        None, describe="passes over train; or give max_steps", unit="epochs", gt=0
    )
    lr_scheduler_type: Literal["linear", "cosine", "cosine_with_min_lr", "constant", "constant_with_warmup"] = identity(
        "cosine", describe="shape of the learning rate"
    )
    warmup_steps: Integer = identity(0, describe="linear warm-up", unit="steps", ge=0)
    optim: Literal["adamw_torch", "adamw_8bit", "paged_adamw_8bit", "adafactor", "sgd"] = identity(
        "adamw_torch", describe="optimizer; the 8-bit ones are bitsandbytes'"
    )
    weight_decay: Number = identity(0.0, describe="decoupled weight decay", ge=0)
    adam_beta1: Number = identity(0.9, describe="Adam's first decay", ge=0, lt=1)
    adam_beta2: Number = identity(0.999, describe="Adam's second decay", ge=0, lt=1)
    adam_epsilon: Number = identity(1e-8, describe="Adam's epsilon", gt=0)
    max_grad_norm: Number = identity(1.0, describe="gradients are clipped to this norm; 0: not clipped", ge=0)
    save_steps: Integer | None = identity(
        None,
        describe="every how many steps a checkpoint is kept and evaluated; null: only the last",
        unit="steps",
        gt=0,
    )
    eval_steps: Integer | None = identity(
        None, describe="every how many steps the validation loss is measured; null: first and last", unit="steps", gt=0
    )
    logging_steps: Integer = identity(
        1, describe="every how many steps loss and grad_norm are recorded", unit="steps", gt=0
    )
    activation_checkpointing: Truth = identity(False, describe="recompute activations to save memory")
    activation_offloading: Truth = identity(
        False, describe="keep activations in the host's memory; needs CUDA", added_with=False
    )
    quantization: Literal["none", "nf4", "int8"] = identity(
        "none", describe="with method lora: the frozen base in 4 or 8 bit (bitsandbytes)", added_with="none"
    )
    double_quantization: Truth = identity(True, describe="nf4: its scales are quantised too", added_with=True)
    quantization_compute: Literal["float32", "bfloat16"] | None = identity(
        None, describe="nf4: type of the products with the base; null: that of precision", added_with=None
    )
    float8: Literal["none", "tensorwise", "rowwise", "rowwise_with_gw_hp"] = identity(
        "none", describe="linear layers multiply in FP8, with this recipe of torchao", added_with="none"
    )
    float8_emulated: Truth = identity(
        False, describe="FP8 without its hardware: rounds as FP8 does, and is slow", added_with=False
    )
    attention: Literal["eager", "sdpa", "flash_attention_2", "flex_attention"] | None = identity(
        None, describe="implementation of attention in training; null: the model's own choice", added_with=None
    )
    kernels: Literal["stock", "liger"] = identity(
        "stock",
        describe="liger: fused kernels of liger-kernel for norms, MLP and positions; needs CUDA",
        added_with="stock",
    )
    compile: Literal["none", "default", "reduce-overhead", "max-autotune"] = identity(
        "none", describe="torch.compile of each block, in this mode", added_with="none"
    )
    frozen: tuple[str, ...] = identity(
        (),
        describe="with method full: parameters that are not trained, as patterns of their names (visual: the tower)",
        added_with=(),
    )
    backend: Literal["trl", "unsloth"] = identity(
        "trl", describe="what trains; unsloth needs an environment of its own", added_with="trl"
    )
    extra: dict[str, Any] = identity({}, describe="further fields of TRL's SFTConfig, checked against its names")


class Training(Tokens, Optimization):
    """One optimisation."""

    precision: Literal["float32", "bfloat16"] = identity(
        "float32", describe="bfloat16: mixed precision over float32 master weights"
    )
    distributed: Distributed = execution(Distributed(), describe="the processes that train together")

    @model_validator(mode="after")
    def _one_length(self) -> "Training":
        if (self.max_steps is None) == (self.num_train_epochs is None):
            listed = "neither" if self.max_steps is None else "both"
            raise FieldError("", f"{listed} given of max_steps and num_train_epochs", "Give exactly one")
        if self.max_steps is not None and self.warmup_steps > self.max_steps:
            raise FieldError("warmup_steps", f"{self.warmup_steps} is more than max_steps {self.max_steps}", "Lower it")
        if self.max_steps is not None and self.save_steps is not None and self.max_steps % self.save_steps:
            # The last checkpoint would stand off the grid of the others.
            near = max(n for n in range(1, self.save_steps + 1) if self.max_steps % n == 0)
            raise FieldError(
                "save_steps", f"{self.save_steps} does not divide max_steps {self.max_steps}", f"{near} does"
            )
        return self

    @model_validator(mode="after")
    def _patterns(self) -> "Training":
        for pattern in self.frozen:
            try:
                re.compile(pattern)
            except re.error as error:
                raise FieldError("frozen", f"{pattern!r} is no pattern: {error}", "See Python's re") from None
        return self

    @model_validator(mode="after")
    def _rows_for_every_process(self) -> "Training":
        processes = self.distributed.processes
        if self.global_batch_size % processes:
            near = processes * max(1, round(self.global_batch_size / processes))
            raise FieldError(
                "global_batch_size",
                f"{self.global_batch_size} rows cannot be shared by {processes} processes evenly",
                f"{near} would be; or change distributed.processes",
            )
        return self

    @model_validator(mode="after")
    def _state_in_shards(self) -> "Training":
        strategy = self.distributed.strategy
        if strategy in SHARDED_STATE and self.optim not in ("adamw_torch", "sgd"):
            raise FieldError(
                "optim",
                f"{self.optim} keeps a state that strategy {strategy} cannot shard with the weights",
                "Use adamw_torch or sgd, or strategy ddp",
            )
        return self

    @model_validator(mode="after")
    def _methods(self) -> "Training":
        refuse(exclusions.in_training(self))
        return self

    @model_validator(mode="after")
    def _alone(self) -> "Training":
        if self.backend == "unsloth" and self.distributed.strategy != "none":
            fix = "Use one process, or backend: trl"
            raise FieldError("backend", "unsloth trains with one process here", fix)
        stock = {name: field.default for name, field in type(self).model_fields.items()}
        for name in ("quantization", "float8", "attention", "kernels", "compile", "activation_offloading"):
            if self.backend == "unsloth" and getattr(self, name) != stock[name]:
                raise FieldError(name, "is stock TRL's; unsloth brings its own", "Remove it, or use backend: trl")
        return self

    @model_validator(mode="after")
    def _lengths(self) -> "Training":
        if self.truncation_side != "right" and self.on_too_long != "truncate":
            raise FieldError("truncation_side", f"has no effect with on_too_long: {self.on_too_long}", "Remove it")
        if self.packing in ("bfd_split", "wrapped") and self.on_too_long != "error":
            fix = "Remove on_too_long, or choose packing: bfd"
            raise FieldError("on_too_long", f"packing: {self.packing} splits long rows; none is too long", fix)
        return self

    @field_validator("extra")
    @classmethod
    def _known_extra(cls, extra: dict[str, Any]) -> dict[str, Any]:
        refuse(extra_faults(extra))
        return extra


class Lora(Section):
    """Low-rank adapters (PEFT's LoraConfig)."""

    r: Integer = identity(16, describe="rank", gt=0)
    alpha: Integer = identity(32, describe="lora_alpha: the update is scaled by alpha / r", gt=0)
    dropout: Number = identity(0.0, describe="lora_dropout", ge=0, lt=1)
    target_modules: str | tuple[str, ...] = identity("all-linear", describe="all-linear, a regex, or module names")
    layers: tuple[Integer, ...] | None = identity(
        None, describe="layers_to_transform: numbers of the blocks that are adapted; null: all", added_with=None
    )
    use_rslora: Truth = identity(False, describe="scale by alpha / sqrt(r)")
    use_dora: Truth = identity(False, describe="weight-decomposed LoRA")
    modules_to_save: tuple[str, ...] = identity((), describe="modules trained in full and saved with the adapter")

    @model_validator(mode="after")
    def _mergeable(self) -> "Lora":
        # PEFT merges a LoRA on tied embeddings wrongly, with only a warning (measured: logits off by 4.7).
        if not isinstance(self.target_modules, str) and "embed_tokens" in self.target_modules:
            fix = "Put it into modules_to_save"
            raise FieldError("target_modules", "embed_tokens cannot be merged where embeddings are tied", fix)
        return self

    @model_validator(mode="after")
    def _chosen_layers(self) -> "Lora":
        if self.layers is not None and isinstance(self.target_modules, str):
            fix = "List the modules: target_modules: [q_proj, v_proj]"
            raise FieldError("layers", f"PEFT reads no layers beside target_modules: {self.target_modules}", fix)
        if self.layers is not None and (not self.layers or min(self.layers) < 0):
            raise FieldError("layers", f"{list(self.layers)} are no numbers of layers", "Count from 0, or remove it")
        return self
