"""Loading a Hugging Face directory with the Auto classes: local files, no remote code, no pickles.

torch and transformers are imported inside the functions, so this module is cheap to import.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sft.models.model_kind import is_vision, model_config
from sft.runtime.stage import StageError

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase, ProcessorMixin

# Either file makes a directory one of a processor that handles pictures, also where there is no model beside it.
PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json")


def load_model(
    directory: Path | str, dtype: str = "float32", device: str = "cpu", quantization: Any = None
) -> nn.Module:
    """The model of `directory` in evaluation mode, weights cast to `dtype` on `device`.

    `dtype` is a torch name ("float32", "bfloat16") or "auto", which keeps what the files hold. `quantization` is
    transformers' configuration of a quantised model (see sft.models.quantised), which stays on the CPU.

    A model with a vision tower is an AutoModelForImageTextToText, any other an AutoModelForCausalLM.
    StageError for a directory without config.json or weights, and for weights that do not fill the model.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    directory = Path(directory)
    auto = AutoModelForImageTextToText if is_vision(directory) else AutoModelForCausalLM
    if "auto_map" in model_config(directory):
        raise StageError(
            f"{directory / 'config.json'}: auto_map asks for code from the model's author, which is not run"
        )
    model, info = auto.from_pretrained(
        directory,
        dtype=dtype if dtype == "auto" else getattr(torch, dtype),
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
        output_loading_info=True,
        **({"quantization_config": quantization, "device_map": {"": "cpu"}} if quantization is not None else {}),
    )
    # transformers fills missing weights with random numbers and says so in a log line only.
    faults = {kind: sorted(map(str, info[kind])) for kind in ("missing_keys", "mismatched_keys") if info[kind]}
    if faults:
        named = "; ".join(f"{kind}: {', '.join(names[:5])} ({len(names)} in all)" for kind, names in faults.items())
        raise StageError(f"{directory}: the weights do not fill the model. {named}")
    return model.eval() if quantization is not None else model.eval().to(device)


def load_processor(directory: Path | str) -> ProcessorMixin | PreTrainedTokenizerBase:
    """The processor of a directory that handles pictures, the tokenizer of one that does not.

    StageError when a directory that should handle pictures yields a tokenizer only: AutoProcessor falls back
    to it without a word when it cannot make the processor class that the files name.
    """
    from transformers import AutoTokenizer

    directory = Path(directory)
    if not directory.is_dir():
        raise StageError(f"{directory} is missing: no processor to load")
    pictures = any((directory / name).is_file() for name in PROCESSOR_FILES)
    if not pictures and (directory / "config.json").is_file():
        pictures = is_vision(directory)
    if not pictures:
        return AutoTokenizer.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    from transformers import AutoProcessor  # 5 CPU seconds more than a tokenizer's import

    processor = AutoProcessor.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    if not hasattr(processor, "image_processor"):
        raise StageError(
            f"{directory}: AutoProcessor gave a {type(processor).__name__}, which takes no pictures. "
            f"Check processor_class in processor_config.json: it must be a class that this transformers can make "
            f"(classes with a video processor need torchvision)"
        )
    return processor


def tokenizer_of(processor: ProcessorMixin | PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """The tokenizer inside a processor, or the tokenizer itself."""
    return getattr(processor, "tokenizer", processor)
