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

# Fields of the trainer that a user may look for, and the keys of an experiment that set them.
ELSEWHERE = {
    **{name: f"training.{name}" for name in SAME_NAME},
    **{name: f"training.{name}" for name in ("max_steps", "num_train_epochs", "save_steps", "eval_steps")},
    **{name: f"training.{name}" for name in ("logging_steps", "max_length", "packing", "activation_offloading")},
    **dict.fromkeys(
        ("per_device_train_batch_size", "gradient_accumulation_steps"),
        "training.global_batch_size and execution.micro_batch_size",
    ),
    "per_device_eval_batch_size": "execution.micro_batch_size and evaluation.batch_size",
    "eval_strategy": "training.eval_steps",
    "save_strategy": "training.save_steps",
    "logging_strategy": "training.logging_steps",
    "gradient_checkpointing": "training.activation_checkpointing",
    **dict.fromkeys(("torch_compile", "torch_compile_backend", "torch_compile_mode"), "training.compile"),
    **dict.fromkeys(("use_liger_kernel", "liger_kernel_config"), "training.kernels"),
    **dict.fromkeys(("completion_only_loss", "assistant_only_loss"), "training.loss_on"),
    "truncation_mode": "training.on_too_long and training.truncation_side",
    **dict.fromkeys(("deepspeed", "fsdp", "fsdp_config"), "training.distributed"),
    **dict.fromkeys(("seed", "data_seed"), "seeds"),
    **dict.fromkeys(("bf16", "fp16"), "training.precision"),
    "use_cpu": "execution.device",
    "save_only_model": "execution.keep_optimizer",
}

PYTHON_TYPES: dict[str, type | tuple[type, ...]] = {
    "bool": bool,
    "int": int,
    "float": (int, float),
    "str": str,
    "dict": dict,
    "list": list,
}


def extra_faults(extra: dict[str, Any]) -> list[tuple[str, str, str]]:
    """What is wrong with `training.extra`: all faults as (key, what is wrong, what to do)."""
    known: dict[str, str] = json.loads(FIELDS.read_text())["fields"]
    faults = []
    for name, value in extra.items():
        if name not in known:
            near = difflib.get_close_matches(name, EXTRA, n=1)
            fix = f"Did you mean {near[0]}?" if near else f"It may hold: {', '.join(EXTRA)}"
            faults.append((name, "the trainer has no such setting", fix))
        elif name in ELSEWHERE:
            faults.append((name, f"is set by {ELSEWHERE[name]} of the experiment", "Write it there"))
        elif name not in EXTRA:
            faults.append((name, "is fixed by this workflow", f"Remove it; extra may hold: {', '.join(EXTRA)}"))
        elif not _has_type(value, known[name]):
            faults.append((name, f"{value!r} is a {type(value).__name__}", f"It must be {known[name]}"))
        elif name == "train_sampling_strategy" and value not in ("random", "sequential"):
            # LengthGroupedSampler draws from the global random state when an epoch starts, so a resumed
            # epoch has another order (transformers 5.23).
            faults.append((name, f"{value!r} cannot be resumed in the same order", "Use random or sequential"))
    return faults


def _has_type(value: Any, allowed: str) -> bool:
    types = allowed.split(" | ")
    if value is None:
        return "null" in types
    if isinstance(value, bool):
        return "bool" in types
    return any(isinstance(value, PYTHON_TYPES[name]) for name in types if name not in ("null", "bool"))
