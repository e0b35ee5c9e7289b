"""Small models made from nothing, for the embedded default, twins and tests: no download, minutes on a CPU.

`qwen2_5_vl` takes a picture of 16 x 16 pixels (4 picture tokens) and `mllama`, which is Llama-3.2-Vision, one of up
to 4 tiles of that size (sft/embedded/tiny_mllama.py); `llama` and `qwen2` are text only. All use a byte-level BPE
tokenizer of about 330 tokens (sft/embedded/tiny_tokenizer.py), with the special tokens and the template of their
family. torch and transformers are imported inside the functions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sft.embedded import tiny_mllama
from sft.embedded.tiny_tokenizer import CHATML_TOKENS, as_qwen2, tiny_tokenizer, token_id
from sft.runtime.stage import StageError

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase, ProcessorMixin

FAMILIES = ("qwen2_5_vl", "llama", "mllama", "qwen2")
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.content is string %}{{ m.content }}{% else %}{% for c in m.content %}"
    "{% if c.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ c.text }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Qwen2.5 puts a system message of its own before a conversation that has none.
QWEN2 = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    + CHATML
)
PICTURE_PIXELS = 256
PATCH_PIXELS = 4


def make_processor(family: str) -> ProcessorMixin | PreTrainedTokenizerBase:
    """The processor of a family: for pictures and text, or, of one that takes text only, the tokenizer alone."""
    _check_family(family)
    if family == "mllama":
        return tiny_mllama.make_processor(tiny_tokenizer(**tiny_mllama.TOKENIZER))
    tokenizer = tiny_tokenizer(
        CHATML_TOKENS,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=QWEN2 if family == "qwen2" else CHATML,
        extra_special_tokens={"image_token": "<|image_pad|>", "video_token": "<|video_pad|>"},
    )
    if family == "llama":
        return tokenizer
    if family == "qwen2":
        return as_qwen2(tokenizer)
    from transformers import PaddleOCRVLProcessor
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    images = Qwen2VLImageProcessorPil(
        patch_size=PATCH_PIXELS,
        merge_size=2,
        temporal_patch_size=2,
        size={"shortest_edge": PICTURE_PIXELS, "longest_edge": PICTURE_PIXELS},
    )
    # Qwen2_5_VLProcessor has a video processor, which needs torchvision. This stock class has none and makes the
    # same tensors; AutoProcessor takes its name from processor_config.json, whatever the model beside it is.
    return PaddleOCRVLProcessor(images, tokenizer, chat_template=CHATML)


def make_model(source: dict[str, Any], tokenizer: PreTrainedTokenizerBase) -> nn.Module:
    """A float32 model with seeded random weights, for the vocabulary of `tokenizer`.

    `source`: {"initialise": family, "hidden_size", "num_layers", "initializer_range", "seed"}. The default sizes
    (128, 2) give 0.52 million parameters. An initializer_range of 0.1, not the usual 0.02, is what makes a model
    of this size learn in about a hundred steps. StageError for sizes that do not divide.
    """
    import torch

    family, hidden, layers = source["initialise"], source["hidden_size"], source["num_layers"]
    _check_family(family)
    if hidden % 64:
        raise StageError(f"model.source.hidden_size {hidden}: give a multiple of 64")
    if family == "mllama":
        torch.manual_seed(source["seed"])
        return tiny_mllama.make_model(source, tokenizer)
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": hidden,
        "intermediate_size": 2 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "initializer_range": source["initializer_range"],
        "bos_token_id": None,
        "eos_token_id": token_id(tokenizer, "<|im_end|>"),
        "pad_token_id": token_id(tokenizer, "<|endoftext|>"),
    }
    torch.manual_seed(source["seed"])
    if family == "llama":
        from transformers import LlamaConfig, LlamaForCausalLM

        return LlamaForCausalLM(LlamaConfig(**text, tie_word_embeddings=True)).eval()
    if family == "qwen2":
        from transformers import Qwen2Config, Qwen2ForCausalLM

        return Qwen2ForCausalLM(Qwen2Config(**text, tie_word_embeddings=True)).eval()
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    # Positions of a picture token in time, height and width share the rotary half of a head: 16 = 4 + 6 + 6.
    half = hidden // 4 // 2
    section = [half - 2 * (3 * half // 8), 3 * half // 8, 3 * half // 8]
    text["rope_parameters"] = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": section}
    vision = {
        "depth": layers,
        "hidden_size": hidden // 2,
        "intermediate_size": hidden,
        "num_heads": 4,
        "patch_size": PATCH_PIXELS,
        "out_hidden_size": hidden,
        "fullatt_block_indexes": list(range(layers)),
        "initializer_range": source["initializer_range"],
    }
    config = Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=token_id(tokenizer, "<|image_pad|>"),
        video_token_id=token_id(tokenizer, "<|video_pad|>"),
        vision_start_token_id=token_id(tokenizer, "<|vision_start|>"),
        vision_end_token_id=token_id(tokenizer, "<|vision_end|>"),
        tie_word_embeddings=True,
    )
    return Qwen2_5_VLForConditionalGeneration(config).eval()


def _check_family(family: str) -> None:
    if family not in FAMILIES:
        raise StageError(f"initialise {family!r}: the families are {', '.join(FAMILIES)}")
