"""The arguments that the trainer is given: every one that shapes a result is set here, in sight.

Imports nothing heavy, so the configuration is checked against it before anything is started. The names and
types that the installed TRL knows are in trainer_fields.json (made by scripts/make_trainer_fields.py).
"""

import difflib
import json
import math
from pathlib import Path
from typing import Any

from sft.stage import StageError

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

# Keys of `training` that the trainer knows under the same name.
SAME_NAME = (
    "learning_rate",
    "lr_scheduler_type",
    "warmup_steps",
    "weight_decay",
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
    "optim",
    "max_grad_norm",
    "activation_checkpointing",
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

PYTHON_TYPES = {"bool": bool, "int": int, "float": (int, float), "str": str, "dict": dict, "list": list}


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


def micro_batch(global_batch_size: int, micro_batch_size: int, processes: int = 1) -> tuple[int, int]:
    """`(rows per forward pass, accumulation steps)` of each process; a micro batch size of 0 means all rows at once."""
    if global_batch_size % processes:
        raise StageError(
            f"training.global_batch_size {global_batch_size} cannot be shared evenly by --processes {processes}"
        )
    share = global_batch_size // processes
    micro = micro_batch_size or share
    if micro < 1 or share % micro:
        what = "training.global_batch_size" if processes == 1 else f"the share of each of {processes} processes,"
        raise StageError(
            f"--micro-batch-size {micro} does not divide {what} {share}. "
            f"Use one of: {', '.join(str(n) for n in range(1, share + 1) if share % n == 0)}"
        )
    return micro, share // micro


def smaller_micro_batch(global_batch_size: int, micro: int, processes: int = 1) -> int | None:
    """The largest micro batch that is at most half of `micro` and divides a process's share; None below one row."""
    share = global_batch_size // processes
    return next((n for n in range(micro // 2, 0, -1) if share % n == 0), None)


def total_steps(training: dict[str, Any], rows: int) -> int:
    """Optimizer steps of the whole run over `rows` training rows; the last batch of an epoch may be smaller."""
    if training["max_steps"]:
        return int(training["max_steps"])
    return math.ceil(training["num_train_epochs"] * math.ceil(rows / training["global_batch_size"]))


def kept_steps(training: dict[str, Any], total: int) -> list[int]:
    """Steps whose checkpoints are kept and evaluated: every `save_steps`-th and always the last."""
    every = training["save_steps"]
    return sorted({*(range(every, total + 1, every) if every else ()), total})


def requested_arguments(
    config: dict[str, Any], device: str, micro_batch_size: int, output_dir: str, processes: int = 1
) -> dict[str, Any]:
    """The keyword arguments of `SFTConfig` for the resolved `config` of a run.

    Logging, evaluation and saving are the run's own (sft.training.trainer), hence off here.
    """
    training = config["training"]
    micro, accumulation = micro_batch(training["global_batch_size"], micro_batch_size, processes)
    length = (
        {"max_steps": training["max_steps"]}
        if training["max_steps"]
        else {
            "max_steps": -1,
            "num_train_epochs": training["num_train_epochs"],
        }
    )
    return {
        "output_dir": output_dir,
        **length,
        **{name: training[name] for name in SAME_NAME},
        "per_device_train_batch_size": micro,
        "per_device_eval_batch_size": micro,
        "gradient_accumulation_steps": accumulation,
        "seed": config["seed"],
        "data_seed": config["seed"],
        "bf16": config["precision"] == "bfloat16",
        "fp16": False,
        "tf32": False,  # float32 means float32, also in matrix products on a GPU
        "use_cpu": device == "cpu",
        # Rows come tokenised, with labels; their lengths were settled and counted at tokenisation.
        "dataset_kwargs": {"skip_prepare_dataset": True},
        "remove_unused_columns": False,
        "max_length": None,
        "packing": False,
        "eval_packing": False,
        "padding_free": False,
        "pad_to_multiple_of": None,
        "shuffle_dataset": False,
        "train_sampling_strategy": "random",
        "dataloader_drop_last": False,
        "dataloader_num_workers": 0,
        "dataloader_pin_memory": device != "cpu",
        "assistant_only_loss": False,
        "loss_type": "nll",
        "label_smoothing_factor": 0.0,
        "neftune_noise_alpha": None,
        "average_tokens_across_devices": True,
        "activation_offloading": training.get("activation_offloading", False),
        "torch_compile": False,  # block by block instead (sft.training.compiled)
        "use_liger_kernel": training.get("kernels") == "liger",
        "use_cache": False,
        # True (the library's default) replaces a loss that is not a number by the mean of the earlier ones.
        "logging_nan_inf_filter": False,
        "logging_strategy": "no",
        "eval_strategy": "no",
        "eval_on_start": False,
        "save_strategy": "no",
        "load_best_model_at_end": False,
        "auto_find_batch_size": False,
        "ignore_data_skip": False,
        "full_determinism": False,
        "enable_jit_checkpoint": False,
        "report_to": "none",
        "disable_tqdm": True,
        "push_to_hub": False,
        **training["extra"],
    }
