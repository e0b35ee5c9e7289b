"""A GGUF file becomes the Hugging Face model that it was written from."""

from pathlib import Path

import numpy as np
import pytest
import torch

from sft.models.gguf import save_model_from_gguf
from sft.models.loading import load_model

pytestmark = pytest.mark.slow
HEADS, KEY_HEADS = 4, 2


def write_gguf(model: torch.nn.Module, file: Path) -> None:
    """As llama.cpp writes a Llama: its names, and the rows of q and k in its order of rotary dimensions."""
    import gguf

    config = model.config
    writer = gguf.GGUFWriter(str(file), "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KEY_HEADS)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10_000.0)
    writer.add_vocab_size(config.vocab_size)
    names = {
        "model.embed_tokens.weight": "token_embd.weight",
        "model.norm.weight": "output_norm.weight",
        "lm_head.weight": "output.weight",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
    }
    for name, tensor in model.state_dict().items():
        short = name.replace("model.layers.", "blk.")
        for theirs, ours in names.items():
            short = short.replace(theirs, ours)
        values = tensor.numpy().astype(np.float32)
        heads = {"attn_q": HEADS, "attn_k": KEY_HEADS}.get(short.split(".")[-2])
        if heads:
            parts = values.reshape(heads, 2, values.shape[0] // heads // 2, values.shape[1])
            values = parts.swapaxes(1, 2).reshape(values.shape)
        writer.add_tensor(short, np.ascontiguousarray(values))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_the_model_of_a_gguf_file_is_the_one_that_was_written(tmp_path: Path):
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    shape = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "vocab_size": 128}
    config = LlamaConfig(
        **shape,
        num_attention_heads=HEADS,
        num_key_value_heads=KEY_HEADS,
        max_position_embeddings=64,
        tie_word_embeddings=False,
    )
    original = LlamaForCausalLM(config).eval()
    (tmp_path / "package").mkdir()
    write_gguf(original, tmp_path / "package/tiny.gguf")
    save_model_from_gguf(tmp_path / "package/tiny.gguf", tmp_path / "model")
    loaded = load_model(tmp_path / "model")
    for name, tensor in original.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name]), name
    ids = torch.arange(24).reshape(2, 12)
    with torch.inference_mode():
        assert torch.equal(original(input_ids=ids).logits, loaded(input_ids=ids).logits)
    assert not list((tmp_path / "model").glob("*.gguf"))
