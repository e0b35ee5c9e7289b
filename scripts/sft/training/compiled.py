"""torch.compile of a model's blocks, one compilation for all blocks of a kind.

In place (`nn.Module.compile`): no wrapper and no other names, so that a checkpoint cannot show whether it was compiled.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from sft.runtime.stage import StageError
from sft.training.sharding import blocks

# Graphs of one block: with and without gradients, and the dtypes and masks that batches bring. A block that is compiled
# more often than this stops the run; torch would go on without compiling and say nothing.
LARGEST_NUMBER = 8


def compile_blocks(model: nn.Module, mode: str, device: str) -> dict[str, Any]:
    """Let the blocks of `model` be compiled when they first run; JSON values for the record.

    Lengths are symbols from the start: a batch of another length runs the same code, and a resumed run compiles what
    the undisturbed one did, whichever length it meets first.
    """
    import torch._dynamo
    from torch._dynamo.utils import counters

    _require_compiler(device)
    # A try of this process that ran out of memory has left its graphs.
    torch._dynamo.reset()
    counters.clear()
    torch._dynamo.config.recompile_limit = LARGEST_NUMBER
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    kinds = set(blocks(model))
    found = [module for module in model.modules() if type(module).__name__ in kinds]
    for module in found:
        module.compile(mode=mode, dynamic=True)
    _require_compiled_once(model)
    return {"mode": mode, "blocks": len(found), "classes": sorted(kinds)}


def _require_compiler(device: str) -> None:
    """StageError where the first step would fail, with a traceback of hundreds of lines."""
    if device == "cuda":
        from torch.utils._triton import has_triton

        if not has_triton():
            raise StageError("training.compile: there is no Triton for this device. Write compile: none")
        return
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        raise StageError("training.compile: no C++ compiler was found. Install g++, or write compile: none") from None


def _require_compiled_once(model: nn.Module) -> None:
    """Let the first forward pass of training be a StageError when it compiled nothing, which torch would not say."""
    from torch._dynamo.utils import counters

    def look(module: nn.Module, _given: Any, _made: Any) -> None:
        if not module.training:
            return
        hook.remove()
        if not counters["stats"]["unique_graphs"]:
            raise StageError(
                "training.compile: the first forward pass compiled nothing. Unset TORCH_COMPILE_DISABLE, or write "
                "compile: none"
            )

    hook = model.register_forward_hook(look)
