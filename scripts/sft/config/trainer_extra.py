"""Which settings of the trainer `training.extra` may give, and where the others are given instead.

The names and types that the installed TRL knows are in trainer_fields.json (made by tools/make_trainer_fields.py).
"""

import difflib
import json
from pathlib import Path
from typing import Any

from sft.terms.trainer_keys import SAME_NAME

FIELDS = Path(__file__).with_name("trainer_fields.json")

# What `training.extra` may set: settings without a key of their own that neither the loop, the data nor the
# bookkeeping of this workflow depends on.
EXTRA = (
    "activation_checkpointing_kwargs",
    "dataloader_num_workers",
    "dataloader_persistent_workers",
    "dataloader_prefetch_factor",
    "label_smoothing_factor",
    "loss_type",
    "lr_scheduler_kwargs",
    "neftune_noise_alpha",
    "optim_args",
    "optim_target_modules",
    "router_aux_loss_coef",
    "torch_empty_cache_steps",
    "train_sampling_strategy",
)

# Fields that a user may look for, and where they are set instead.
ELSEWHERE = {
    **{name: f"training.{name}" for name in SAME_NAME},
    **{name: f"training.{name}" for name in ("max_steps", "num_train_epochs", "save_steps", "eval_steps")},
    "logging_steps": "training.logging_steps",
    "per_device_train_batch_size": "training.global_batch_size (and --micro-batch-size)",
    "per_device_eval_batch_size": "--micro-batch-size",
    "gradient_accumulation_steps": "training.global_batch_size (and --micro-batch-size)",
    "gradient_checkpointing": "training.activation_checkpointing",
    "activation_offloading": "training.activation_offloading",
    **dict.fromkeys(("torch_compile", "torch_compile_backend", "torch_compile_mode"), "training.compile"),
    **dict.fromkeys(("use_liger_kernel", "liger_kernel_config"), "training.kernels"),
    "seed": "seed",
    "data_seed": "seed",
    "bf16": "precision",
    "fp16": "precision",
    "use_cpu": "--device",
    "max_length": "tokenize.max_length",
}

PYTHON_TYPES: dict[str, type | tuple[type, ...]] = {
    "bool": bool,
    "int": int,
    "float": (int, float),
    "str": str,
    "dict": dict,
    "list": list,
}


def extra_faults(extra: dict[str, Any]) -> list[str]:
    """What is wrong with `training.extra`, one sentence a fault that names the key and the fix; empty when nothing."""
    known: dict[str, str] = json.loads(FIELDS.read_text())["fields"]
    faults = []
    for name, value in extra.items():
        place = f"training.extra.{name}"
        if name not in known:
            near = difflib.get_close_matches(name, EXTRA, n=1)
            hint = f"Did you mean {near[0]}?" if near else f"It may hold: {', '.join(EXTRA)}"
            faults.append(f"{place}: the trainer has no such setting. {hint}")
        elif name in ELSEWHERE:
            faults.append(f"{place}: is set by {ELSEWHERE[name]}. Move the value there")
        elif name not in EXTRA:
            faults.append(f"{place}: is fixed by this workflow. Remove it; extra may hold: {', '.join(EXTRA)}")
        elif not _has_type(value, known[name]):
            faults.append(f"{place}: {value!r} is a {type(value).__name__}; it must be {known[name]}")
        elif name == "train_sampling_strategy" and value not in ("random", "sequential"):
            # LengthGroupedSampler draws from the global random state when an epoch starts, so a resumed
            # epoch has another order (transformers 5.23).
            faults.append(f"{place}: {value!r} cannot be resumed in the same order. Use random or sequential")
    return faults


def _has_type(value: Any, allowed: str) -> bool:
    types = allowed.split(" | ")
    if value is None:
        return "null" in types
    if isinstance(value, bool):
        return "bool" in types
    return any(isinstance(value, PYTHON_TYPES[name]) for name in types if name not in ("null", "bool"))
