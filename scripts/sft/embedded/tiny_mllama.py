"""A small Llama-3.2-Vision (transformers' mllama): pictures enter by cross-attention, not as tokens of the text.

What sets the family apart is kept: one `<|image|>` token a picture, whose id lies beyond the output layer; tiles and
aspect ratios; a mask that says which tokens see which tiles; the header template and `<|eot_id|>`; untied embeddings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sft.embedded.tiny_tokenizer import token_id
from sft.runtime.stage import StageError

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase, ProcessorMixin

SPECIAL = [
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<|python_tag|>",
    "<|finetune_right_pad_id|>",
]
IMAGE = "<|image|>"
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
    "{% if m.content is string %}{{ m.content | trim }}{% else %}{% for c in m.content %}"
    "{% if c.type == 'image' %}<|image|>{% else %}{{ c.text | trim }}{% endif %}"
    "{% endfor %}{% endif %}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
TOKENIZER: dict[str, Any] = {
    "special": SPECIAL,
    "bos_token": "<|begin_of_text|>",
    "eos_token": "<|eot_id|>",
    "pad_token": "<|finetune_right_pad_id|>",
    "chat_template": TEMPLATE,
}
TILE_PIXELS = 16
TILES = 4


def make_processor(tokenizer: PreTrainedTokenizerBase) -> ProcessorMixin:
    """The processor for pictures of up to four tiles of 16 x 16 pixels; the picture's token is added as the last."""
    from transformers import MllamaProcessor
    from transformers.models.mllama.image_processing_pil_mllama import MllamaImageProcessorPil

    tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE]})
    images = MllamaImageProcessorPil(size={"height": TILE_PIXELS, "width": TILE_PIXELS}, max_image_tiles=TILES)
    return MllamaProcessor(images, tokenizer, chat_template=TEMPLATE)


def make_model(source: dict[str, Any], tokenizer: PreTrainedTokenizerBase) -> nn.Module:
    """A float32 model with random weights (the caller seeds them); every second layer of the text looks at pictures."""
    import torch
    from transformers import MllamaConfig, MllamaForConditionalGeneration

    hidden, layers, spread = source["hidden_size"], source["num_layers"], source["initializer_range"]
    if layers < 2:
        raise StageError(f"model.source.num_layers {layers}: mllama needs 2, of which one looks at pictures")
    text = {
        "vocab_size": token_id(tokenizer, IMAGE),
        "hidden_size": hidden,
        "intermediate_size": 2 * hidden,
        "num_hidden_layers": layers,
        "cross_attention_layers": list(range(1, layers, 2)),
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
        "initializer_range": spread,
        "bos_token_id": token_id(tokenizer, "<|begin_of_text|>"),
        "eos_token_id": token_id(tokenizer, "<|eot_id|>"),
        "pad_token_id": token_id(tokenizer, "<|finetune_right_pad_id|>"),
        "tie_word_embeddings": False,
    }
    vision = {
        "hidden_size": hidden // 2,
        "intermediate_size": hidden,
        "num_hidden_layers": layers,
        "num_global_layers": 1,
        "attention_heads": 4,
        "intermediate_layers_indices": [0],
        "vision_output_dim": hidden,
        "image_size": TILE_PIXELS,
        "patch_size": 4,
        "max_num_tiles": TILES,
        "initializer_range": spread,
    }
    config = MllamaConfig(vision_config=vision, text_config=text, image_token_id=token_id(tokenizer, IMAGE))
    model = MllamaForConditionalGeneration(config)
    # The gates of cross-attention start closed, so that pictures change nothing; those of a published model are open.
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("cross_attn_attn_gate", "cross_attn_mlp_gate", ".gate", ".gate_attn", ".gate_ffn")):
                parameter.fill_(1.0)
    return model.eval()
