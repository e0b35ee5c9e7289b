"""How torch and the libraries above it are started: offline, repeatable, on one device, without what is not needed."""

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from sft.runtime.stage import StageError


def prepare(
    threads: int,
    needs_bitsandbytes: bool,
    every_device: bool = False,
    needs_torchao: bool = False,
    first: Callable[[], None] = lambda: None,
) -> None:
    """Import the training libraries and make them repeatable. Call before anything else imports torch.

    `every_device`: leave all CUDA devices visible, for a rank, which takes the one of its number. `first`: what has
    to be imported before all else.
    """
    # Nothing may be fetched or reported: every input is a local, verified directory.
    os.environ |= {
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TOKENIZERS_PARALLELISM": "false",
        # cuBLAS repeats itself only with a fixed workspace (CUDA toolkit documentation, cublasSetWorkspace).
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    }
    # One process trains on one device; with several visible, Trainer would choose nn.DataParallel.
    if not every_device:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0")
        os.environ["CUDA_VISIBLE_DEVICES"] = visible.split(",")[0]
    first()
    if needs_torchao:
        if sys.modules.get("torchao", ...) is None:
            del sys.modules["torchao"]
    else:
        # accelerate imports it wherever it finds it, which costs half a CPU second and a warning.
        sys.modules.setdefault("torchao", None)  # type: ignore[arg-type]
    if needs_bitsandbytes:
        remind_peft_of_bitsandbytes()
    else:
        _import_peft_without_bitsandbytes()
    import torch
    import transformers

    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    # With the line above torch also fills fresh memory with NaN, which nothing here reads.
    torch.utils.deterministic.fill_uninitialized_memory = False
    torch.backends.cudnn.benchmark = False
    transformers.utils.logging.set_verbosity_warning()
    transformers.utils.logging.disable_progress_bar()


def _import_peft_without_bitsandbytes() -> None:
    """peft imports bitsandbytes, and so torch's compiler, wherever it finds it; that costs 2 to 5 CPU seconds."""
    if "bitsandbytes" in sys.modules:
        return
    # None in sys.modules makes an import fail and find_spec return None (Python reference, "The module cache").
    sys.modules["bitsandbytes"] = None  # type: ignore[assignment]
    try:
        import peft.import_utils

        peft.import_utils.is_bnb_available()  # remembers its first answer
    finally:
        del sys.modules["bitsandbytes"]


def remind_peft_of_bitsandbytes() -> None:
    """PEFT that was imported without it in this process looks again."""
    if (known := sys.modules.get("peft.import_utils")) is not None:
        known.is_bnb_available.cache_clear()
        known.is_bnb_4bit_available.cache_clear()


def chosen_device(asked: str) -> str:
    """ "cpu" or "cuda"; StageError when CUDA is asked for and there is none."""
    import torch

    available = torch.cuda.is_available()
    if asked == "cuda" and not available:
        raise StageError(
            f"--device cuda: torch {torch.__version__} sees no CUDA device. Use --device cpu, or install the CUDA "
            f"build of torch and check the driver with nvidia-smi"
        )
    return "cuda" if available and asked != "cpu" else "cpu"


def device_facts(device: str) -> dict[str, Any]:
    """What the device is, for the record: names and versions, None where there is none."""
    import torch

    if device == "cpu":
        return {"device": "cpu", "device_name": None, "cuda": None, "driver": None}
    asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        driver = subprocess.run(asked, capture_output=True, text=True, timeout=20, check=True).stdout.split()[0]
    except (OSError, subprocess.SubprocessError, IndexError):
        driver = None
    return {
        "device": "cuda",
        "device_name": torch.cuda.get_device_name(),
        "cuda": torch.version.cuda,
        "driver": driver,
    }
