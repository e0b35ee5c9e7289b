"""Memory of a conversion: at most 1.2 times the model in the type asked for and one shard, pages of files included.

Tests: sft.conversion.mapped, sft.conversion.stream
"""

import os
from pathlib import Path

import pytest
import torch
import trained_weights as saved
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

from sft.conversion.convert import Request, convert
from sft.embedded.tiny_models import make_processor

pytestmark = pytest.mark.slow

MIB = 2**20
SHARD = 24 * MIB


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> tuple[Path, dict[str, torch.Tensor]]:
    """A base of 37 million parameters (142 MiB in float32), and weights near it."""
    base = tmp_path_factory.mktemp("base")
    sizes = {"hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 8, "vocab_size": 8192}
    made = LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=8, num_key_value_heads=8))
    made.save_pretrained(base)
    make_processor("llama").save_pretrained(base)
    return base, {name: tensor.detach() + 1e-3 for name, tensor in made.state_dict().items()}


@pytest.mark.parametrize("kind", ["full", "dcp", "zero2", "zero3", "hf", "bfloat16"])
def test_memory_is_that_of_the_model_and_one_shard(model, tmp_path: Path, kind: str) -> None:
    base, state = model
    source = tmp_path / "source"
    match kind:
        case "full":
            source = saved.as_full_state_dict(state, source / "full_weights.pt")
        case "dcp" | "bfloat16":
            saved.as_dcp(state, source)
        case "zero2" | "zero3":
            saved.as_zero(state, source, int(kind[-1]))
        case "hf":
            source.mkdir()
            save_file(state, source / "model.safetensors")
    nothing = dict.fromkeys(("processor", "lora_alpha", "logits", "step"))
    dtype = "bfloat16" if kind == "bfloat16" else "float32"
    request = Request(checkpoint=source, base=base, dtype=dtype, may_equal_base=False, shard_bytes=SHARD, **nothing)
    peak = _peak(lambda: list(convert(request, tmp_path / "model")), tmp_path / "model")
    size = sum(tensor.numel() for tensor in state.values()) * (2 if dtype == "bfloat16" else 4)
    assert peak <= 1.2 * size + SHARD


def _peak(work, target: Path) -> int:
    """Bytes by which a forked child's resident memory grew at most while it worked."""
    target.mkdir()
    receive, send = os.pipe()
    child = os.fork()
    if not child:
        code = 1
        try:
            torch.set_num_threads(1)  # a forked process has none of its parent's threads
            Path("/proc/self/clear_refs").write_text("5")  # the peak starts again (man 5 proc_pid_clear_refs)
            before = _kib("VmRSS")
            work()
            os.write(send, str((_kib("VmHWM") - before) * 1024).encode())
            code = 0
        finally:
            os._exit(code)
    os.close(send)
    with os.fdopen(receive) as pipe:
        told = pipe.read()
    assert os.waitpid(child, 0)[1] == 0
    return int(told)


def _kib(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key))
