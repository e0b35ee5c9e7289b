"""The estimate's count of activations against what autograd really keeps of a block, tensor by tensor."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from sft.estimates.estimate import Shape, block_bytes

SIZES = {"hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 4, "num_key_value_heads": 2}
TOKENS = 512


def saved_bytes(layers: int, adapted: bool, mixed: bool) -> tuple[int, Shape]:
    """Bytes that the forward pass of a Llama keeps for the backward pass, its parameters left out; and its shape."""
    config = LlamaConfig(**SIZES, num_hidden_layers=layers, vocab_size=320, tie_word_embeddings=True, use_cache=False)
    model: torch.nn.Module = LlamaForCausalLM(config)
    if adapted:
        model = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    model.train()
    parameters = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in parameters:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    ids = torch.randint(320, (2, TOKENS // 2))
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=mixed),
    ):
        model(input_ids=ids)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values()), Shape.of_config(config.to_dict())


@pytest.mark.parametrize("mixed", [False, True], ids=["float32", "autocast"])
@pytest.mark.parametrize("adapted", [False, True], ids=["full", "lora"])
def test_what_autograd_keeps_of_a_block(adapted: bool, mixed: bool) -> None:
    (two, shape), (four, more) = (saved_bytes(layers, adapted, mixed) for layers in (2, 4))
    casts = 2 * (more.parameters - shape.parameters) // 2 if mixed else 0
    estimated = TOKENS * block_bytes(shape, 2 if mixed else 4, not adapted, mixed) + casts
    assert (four - two) / 2 == pytest.approx(estimated, rel=0.06)
