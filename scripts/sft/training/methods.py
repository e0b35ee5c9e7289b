"""How a run's model computes: quantised, in FP8, with other kernels or another attention; and that it does.

What was asked for and did not take effect stops the run. Which settings exclude each other is decided where the
configuration is read (sft.config.exclusions), which is asked here again about the device that was found.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from sft.config import exclusions
from sft.config.nodes import TrainSettings
from sft.config.training_settings import Optimization
from sft.models.loading import load_model
from sft.models.plain_arithmetic import LOADED_ATTENTION
from sft.models.quantisation_scheme import Scheme
from sft.models.weight_check import check_loaded
from sft.runtime.stage import StageError


def require_possible(training: Optimization, device: str) -> None:
    """StageError for what the settings ask of `device` and it cannot do."""
    for key, problem, fix in exclusions.on_device(training, device):
        raise StageError(f"training.{key}: {problem}. {fix}")


def load_base(
    base: Path, settings: TrainSettings, device: str, strategy: str = "none"
) -> tuple[nn.Module, dict[str, Any]]:
    """The base model as a run wants it, its weights held against the files; and what it is, for the record."""
    scheme = Scheme.of(settings)
    if scheme is None:
        model = load_model(base)
        return model, {"tensors": check_loaded(model, base)}
    from sft.models.quantised import check_quantised, load_quantised

    # FSDP 2 shards what looks like numbers, and casts them to the precision of training if they are not in it.
    storage = settings.precision if strategy == "fsdp2" else "uint8"
    model = load_quantised(base, scheme, device, storage)
    return model, {"quantization": check_quantised(model, base, scheme), "tensors": len(model.state_dict())}


def as_configured(model: nn.Module, training: Optimization, device: str) -> dict[str, Any]:
    """Give a loaded base its attention, kernels and FP8 layers, in place; what was done, for the record."""
    record: dict[str, Any] = {}
    if training.attention is not None:
        _use_attention(model, training.attention)
    if training.kernels == "liger":
        record["liger"] = _use_liger(model)
    if training.float8 != "none":
        from sft.training.float8 import use_float8

        record["float8"] = use_float8(model, training.float8, training.float8_emulated, device)
    return record


def _use_attention(model: nn.Module, asked: str) -> None:
    loaded = model.config._attn_implementation
    try:
        model.set_attn_implementation(asked)
    except (ImportError, ValueError) as error:
        reason = str(error).splitlines()[0][:300]
        raise StageError(f"training.attention: {asked} cannot be used here ({reason}). Choose another one") from None
    parts = {name: getattr(model.config, name, None) for name in model.config.sub_configs}
    got = {name: part._attn_implementation for name, part in {"model": model.config, **parts}.items() if part}
    if other := sorted(name for name, found in got.items() if found != asked):
        raise StageError(
            f"training.attention: {asked} was asked for, and {', '.join(f'{name} has {got[name]}' for name in other)}. "
            f"Choose one that all parts of {type(model).__name__} have"
        )
    if asked != loaded:
        setattr(model, LOADED_ATTENTION, loaded)


def _use_liger(model: nn.Module) -> dict[str, int]:
    """Liger's kernels in the place of the model's own, counted by class; StageError where there are none."""
    from transformers.integrations.liger import apply_liger_kernel

    try:
        # TRL computes the loss from hidden states; Liger's own fused loss would take the place of the model's forward.
        apply_liger_kernel(model, {"fused_linear_cross_entropy": False})
    except ImportError as error:
        raise StageError(
            f"training.kernels: liger-kernel is not installed ({error}). Install it beside the CUDA build of torch, "
            f"or write kernels: stock"
        ) from None
    counted: dict[str, int] = {}
    for module in model.modules():
        forward = module.__dict__.get("forward") or type(module).forward
        if getattr(forward, "__module__", "").startswith("liger_kernel"):
            counted[type(module).__name__] = counted.get(type(module).__name__, 0) + 1
    if not counted:
        raise StageError(
            f"training.kernels: Liger has none for {type(model).__name__}, and says so in a log line only. "
            f"Write kernels: stock"
        )
    return counted


@contextmanager
def trained_types_kept(model: nn.Module) -> Iterator[None]:
    """Undo what TRL 1.16 does to adapters of quantised models: it casts them to bfloat16, whatever the precision is.

    A checkpoint holds them in float32, so that a resumed run would go on from rounded ones.
    """
    before = {name: parameter.data for name, parameter in model.named_parameters() if parameter.requires_grad}
    yield
    for name, parameter in model.named_parameters():
        if name in before and parameter.dtype != before[name].dtype:
            parameter.data = before[name].to(parameter.device)
