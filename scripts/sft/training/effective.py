"""What the trainer really runs with, after the libraries have applied their own defaults and rules.

A requested value that did not take effect is an error, not a surprise in the results.
"""

from __future__ import annotations

import enum
import math
from typing import TYPE_CHECKING, Any

from sft.runtime.stage import StageError

if TYPE_CHECKING:
    from torch.utils.data import DataLoader
    from transformers import Trainer, TrainingArguments

# Where the machine or the run's place shows through; equal runs have equal records.
UNRECORDED = ("output_dir", "logging_dir", "run_name", "local_rank", "hub_token", "push_to_hub_token")


def effective_arguments(requested: dict[str, Any], arguments: TrainingArguments) -> dict[str, Any]:
    """`{requested, effective}`, JSON values; StageError naming each requested value that is not in effect."""
    effective = {name: _plain(value) for name, value in arguments.to_dict().items()}
    wanted = {name: _plain(value) for name, value in requested.items()}
    lost = [
        f"{name}: requested {value!r}, in effect {effective.get(name)!r}"
        for name, value in wanted.items()
        if not _same(value, effective.get(name))
    ]
    if lost:
        raise StageError(f"the trainer changed what was asked for: {'; '.join(lost)}. Request what it can do")
    return {
        "requested": {name: value for name, value in sorted(wanted.items()) if name not in UNRECORDED},
        "effective": {name: value for name, value in sorted(effective.items()) if name not in UNRECORDED},
    }


def built(trainer: Trainer, train_dataloader: DataLoader) -> dict[str, Any]:
    """What was built from the arguments: optimizer with its groups, scheduler, sampler, attention, types."""
    optimizer = getattr(trainer.optimizer, "optimizer", trainer.optimizer)
    batches = train_dataloader.batch_sampler
    sampler = getattr(batches, "sampler", None) or getattr(getattr(batches, "batch_sampler", None), "sampler", None)
    return {
        "optimizer": {
            "class": f"{type(optimizer).__module__}.{type(optimizer).__qualname__}",
            "groups": [
                {
                    **{name: _plain(value) for name, value in sorted(group.items()) if name not in ("params", "lr")},
                    "parameters": sum(parameter.numel() for parameter in group["params"]),
                }
                for group in optimizer.param_groups
            ],
        },
        "scheduler": type(getattr(trainer.lr_scheduler, "scheduler", trainer.lr_scheduler)).__name__,
        "sampler": type(sampler).__name__,
        "batches_per_epoch": len(train_dataloader),
        "attention": getattr(trainer.model.config, "_attn_implementation", None),
        "model_class": type(trainer.model).__name__,
        "weights_dtype": sorted({str(p.dtype).removeprefix("torch.") for p in trainer.model.parameters()}),
        "mixed_precision": trainer.accelerator.mixed_precision,
        "processes": trainer.accelerator.num_processes,
    }


def _plain(value: Any) -> Any:
    """A JSON value that means the same; objects without one become their text."""
    if isinstance(value, enum.Enum):
        return _plain(value.value)
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in sorted(value.items())}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def _same(wanted: Any, got: Any) -> bool:
    if wanted in ("none", None):
        # report_to "none" becomes [], and empty settings become {}.
        return not got
    if isinstance(wanted, dict) and isinstance(got, dict):
        return all(_same(value, got.get(name)) for name, value in wanted.items())
    return wanted == got
