"""The arguments that the trainer is given: every one that shapes a result is set here, in sight.

Imports nothing heavy. What `training.extra` may add is in sft.config.trainer_extra.
"""

import math
from typing import Any

from sft.config.nodes import TrainSettings
from sft.config.training_settings import Optimization
from sft.runtime.stage import StageError
from sft.terms.trainer_keys import SAME_NAME


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


def total_steps(training: Optimization, rows: int) -> int:
    """Optimizer steps of the whole run over `rows` training rows; the last batch of an epoch may be smaller."""
    if training.max_steps is not None:
        return training.max_steps
    assert training.num_train_epochs is not None, "one of the two is given (Training)"
    return math.ceil(training.num_train_epochs * math.ceil(rows / training.global_batch_size))


def kept_steps(training: Optimization, total: int) -> list[int]:
    """Steps whose checkpoints are kept and evaluated: every `save_steps`-th and always the last."""
    every = training.save_steps
    return sorted({*(range(every, total + 1, every) if every else ()), total})


def requested_arguments(
    settings: TrainSettings, device: str, micro_batch_size: int, output_dir: str, processes: int = 1
) -> dict[str, Any]:
    """The keyword arguments of `SFTConfig` for a run.

    Logging, evaluation and saving are the run's own (sft.training.trainer), hence off here.
    """
    training = settings.training
    micro, accumulation = micro_batch(training.global_batch_size, micro_batch_size, processes)
    length = (
        {"max_steps": training.max_steps}
        if training.max_steps is not None
        else {
            "max_steps": -1,
            "num_train_epochs": training.num_train_epochs,
        }
    )
    return {
        "output_dir": output_dir,
        **length,
        **{name: getattr(training, name) for name in SAME_NAME},
        "per_device_train_batch_size": micro,
        "per_device_eval_batch_size": micro,
        "gradient_accumulation_steps": accumulation,
        "seed": settings.seed,
        "data_seed": settings.seed,
        "bf16": settings.precision == "bfloat16",
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
        "activation_offloading": training.activation_offloading,
        "torch_compile": False,  # block by block instead (sft.training.compiled)
        "use_liger_kernel": training.kernels == "liger",
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
        **training.extra,
    }
