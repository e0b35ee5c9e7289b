"""A model as its weights say: in float32, without what makes training cheaper.

Logits that are to be compared between training and a converted model (sft.training.probe) are made so on both sides:
no mixed precision, no FP8, no compiled blocks, no products with 4-bit weights, the attention that the model loads with.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

# Attribute of a model that was given another attention: the one that it had.
LOADED_ATTENTION = "attention_when_loaded"


@contextmanager
def plain_arithmetic(model: nn.Module) -> Iterator[None]:
    """Within it, `model` computes plainly; everything is put back."""
    from torch.nn import Linear

    with ExitStack() as undo:
        # accelerate replaces `forward` by one that enters autocast; the one before it stays in `_original_forward`.
        original = model.__dict__.get("_original_forward")
        if original is not None:
            undo.callback(setattr, model, "forward", model.__dict__.get("forward"))
            model.forward = original
        for module in model.modules():
            if (compiled := module._compiled_call_impl) is not None:
                undo.callback(setattr, module, "_compiled_call_impl", compiled)
                module._compiled_call_impl = None
            if hasattr(type(module), "exact_products"):
                undo.callback(setattr, module, "exact_products", False)
                module.exact_products = True
            elif type(module).__name__ == "Float8Linear":
                # As an attribute of the module it goes before the class's.
                undo.callback(module.__dict__.pop, "forward")
                module.__dict__["forward"] = Linear.forward.__get__(module)
        if (loaded := getattr(model, LOADED_ATTENTION, None)) is not None:
            undo.callback(model.set_attn_implementation, model.config._attn_implementation)
            model.set_attn_implementation(loaded)
        yield
