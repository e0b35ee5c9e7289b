"""Linear layers that multiply in FP8 while a model trains (torchao), over weights that stay what they were.

Every product casts its operands with a scale taken from them at that moment, so there is nothing to save and nothing to
resume: checkpoints hold ordinary weights. Left as they are: the output layer, the first and the last linear layer
(where precision is lost most; accelerate does the same), and layers with a width that 16 does not divide, which the
hardware cannot multiply. Under LoRA the frozen layers of the base multiply in FP8, the adapter's narrow factors do not.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from torch import nn

from sft.runtime.stage import StageError

# FP8 needs Ada (8.9) or Hopper (9.0) (NVIDIA, CUDA C++ Programming Guide, "Compute Capabilities").
CAPABILITY = (8, 9)


def use_float8(model: nn.Module, recipe: str, emulated: bool, device: str) -> dict[str, Any]:
    """Let `model` (changed in place) multiply by `recipe`; says which layers do: JSON values. StageError for none."""
    import torch

    if device == "cuda" and not emulated and torch.cuda.get_device_capability() < CAPABILITY:
        raise StageError(
            f"training.float8: {torch.cuda.get_device_name()} has compute capability "
            f"{'.'.join(map(str, torch.cuda.get_device_capability()))}; FP8 needs 8.9 or newer. Write float8: none"
        )
    try:
        from torchao.float8 import Float8LinearConfig, convert_to_float8_training
    except ImportError as error:
        raise StageError(f"training.float8: torchao is not installed ({error}). Install what locks/ pins") from None
    linears = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    left = {name: _reason(name, model, linears) for name in linears}
    config = Float8LinearConfig.from_recipe_name(recipe)
    config = dataclasses.replace(config, emulate=emulated)
    convert_to_float8_training(model, config=config, module_filter_fn=lambda _module, name: not left[name])
    made = [name for name, module in model.named_modules() if type(module).__name__ == "Float8Linear"]
    if not made or made != [name for name in linears if not left[name]]:
        raise StageError(
            f"training.float8: {len(made)} of {len(linears)} linear layers multiply in FP8. Widths have to be "
            f"multiples of 16, and the first, the last and the output layer stay as they are. Write float8: none"
        )
    reasons = sorted({reason for reason in left.values() if reason})
    return {
        "recipe": recipe,
        "emulated": emulated,
        "layers": len(made),
        "left": {reason: sum(other == reason for other in left.values()) for reason in reasons},
    }


def _reason(name: str, model: nn.Module, linears: list[str]) -> str:
    """Why a layer is left as it is; empty where it is not."""
    module = model.get_submodule(name)
    inner = [other for other in linears if model.get_submodule(other) is not model.get_output_embeddings()]
    if name not in inner:
        return "output layer"
    if module.in_features % 16 or module.out_features % 16:
        return "width not divided by 16"
    return "first or last" if name in (inner[0], inner[-1]) else ""
