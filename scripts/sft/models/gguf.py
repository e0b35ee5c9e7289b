"""A Hugging Face model and tokenizer from a GGUF file (llama.cpp's format), dequantised to float32."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sft.runtime.stage import StageError

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase


def tokenizer_from_gguf(file: Path) -> PreTrainedTokenizerBase:
    """The tokenizer that the file carries, with its chat template."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name, local_files_only=True)


def save_model_from_gguf(file: Path, directory: Path) -> nn.Module:
    """Write the model of `file` into `directory` as safetensors and configuration, and return it.

    The numbers are those of the quantised file, written out in full; StageError unless what loads from the directory
    has every tensor bit for bit.
    """
    import torch
    from transformers import AutoModelForCausalLM

    from sft.models.loading import load_model

    model = AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, dtype=torch.float32, local_files_only=True
    )
    # transformers 5.23 takes the model for a quantised one, which it refuses to save; the weights are plain by now.
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.hf_quantizer = None
    for name in ("is_quantized", "quantization_method"):
        if hasattr(model, name):
            delattr(model, name)
    model.save_pretrained(directory)
    kept, loaded = model.state_dict(), load_model(directory).state_dict()
    changed = [name for name in kept if name not in loaded or not torch.equal(kept[name], loaded[name])]
    if changed or kept.keys() != loaded.keys():
        raise StageError(f"{file.name}: the saved model loads otherwise ({', '.join(changed[:5]) or 'other tensors'})")
    return model
