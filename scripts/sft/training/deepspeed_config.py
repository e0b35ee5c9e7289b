"""The DeepSpeed configuration of a run: every number in it comes from our keys, so that there is no second file to
keep in step. `sft check` shows it, the trainer is handed it, and effective.json has it.

Imports nothing heavy.
"""

import os
from pathlib import Path
from typing import Any

from sft.config.nodes import TrainSettings
from sft.training.training_arguments import requested_arguments

STAGES = {"deepspeed_zero2": 2, "deepspeed_zero3": 3}


def deepspeed_config(strategy: str, requested: dict[str, Any], precision: str, offload: bool = False) -> dict[str, Any]:
    """What DeepSpeed is given for a run whose trainer is given `requested` (see training_arguments).

    `offload`: the optimizer's state, and with ZeRO-3 the weights, are kept in the host's memory. The names are those
    of DeepSpeed 0.19. The rows of a step are its product of micro batch, accumulation and processes.
    """
    stage = STAGES[strategy]
    zero: dict[str, Any] = {"stage": stage}
    if stage == 3:
        zero["stage3_gather_16bit_weights_on_model_save"] = True  # checkpoints are whole; in the type of the weights
    if offload:
        for part in ("offload_optimizer", "offload_param")[: stage - 1]:
            zero[part] = {"device": "cpu", "pin_memory": True}
    return {
        "train_micro_batch_size_per_gpu": requested["per_device_train_batch_size"],
        "gradient_accumulation_steps": requested["gradient_accumulation_steps"],
        "gradient_clipping": requested["max_grad_norm"],
        "zero_optimization": zero,
        # The optimizer is the one that `optim` names, as with every other strategy, also where its state is offloaded.
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        # bfloat16 is a precision of the computation here. DeepSpeed's own `bf16` would round the weights.
        "torch_autocast": {"enabled": precision == "bfloat16", "dtype": "bfloat16"},
        "steps_per_print": 10**9,  # the metrics stream has it all
    }


def waits_for() -> str | None:
    """What to tell before DeepSpeed waits, without a word and for ever, for a compilation that may have been killed.

    torch keeps compiled operators where these variables say, with a file `lock` beside those that are being compiled.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "torch_extensions"
    root = Path(os.environ.get("TORCH_EXTENSIONS_DIR") or cache)
    locks = sorted([*root.glob("*/lock"), *root.glob("*/*/lock")])
    if not locks:
        return None
    return (
        f"warning: {locks[0]} is there: another process compiles DeepSpeed's operators, or one was killed meanwhile. "
        f"This run waits until the file is gone; if nothing compiles, delete it"
    )


def of_run(settings: TrainSettings, execution: dict[str, Any]) -> dict[str, Any] | None:
    """What the processes of a planned run will give DeepSpeed; None where they do not use it."""
    distributed = execution["distributed"]
    if distributed["strategy"] not in STAGES:
        return None
    micro, processes = execution["micro_batch_size"] or 0, distributed["processes"]
    requested = requested_arguments(settings, execution["device"], micro, "", processes)
    return deepspeed_config(distributed["strategy"], requested, settings.precision, distributed["offload"])
