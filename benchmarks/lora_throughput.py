"""Tokens per second of LoRA on one device: a randomly initialised Llama shape, packed rows of 4096 tokens, bfloat16.

Needs torch, transformers and PEFT, and nothing of this workflow's environment; downloads nothing. Weights are random:
speed and memory do not depend on what they are. Every row holds `--documents` documents that do not see each other
(position_ids that start again; FlashAttention where it is installed, else PyTorch's own attention with a mask).
Prints one line of JSON: tokens/s without the first steps, MFU (4N operations a token, attention left aside, over the
dense bfloat16 peak), the peak of torch's allocator beside this workflow's estimate of it, joules by NVML.

    python benchmarks/lora_throughput.py --shape 8b                       # one GPU with 80 GB
    python benchmarks/lora_throughput.py --shape 1b --compile
    python benchmarks/lora_throughput.py --shape tiny --device cpu        # that it runs at all
"""

import argparse
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

import torch

from sft.estimates.estimate import Shape, step_bytes
from sft.runtime.cost import CONVENTION, NOT_MEASURED, EnergyMeter, cost, visible_devices

# Sizes of Llama 3.2 1B, Llama 3.2 3B and Llama 3.1 8B (their config.json).
SHAPES = {
    "tiny": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    | {"num_key_value_heads": 2, "vocab_size": 512, "tie_word_embeddings": True},
    "1b": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32}
    | {"num_key_value_heads": 8, "vocab_size": 128256, "tie_word_embeddings": True},
    "3b": {"hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 28, "num_attention_heads": 24}
    | {"num_key_value_heads": 8, "vocab_size": 128256, "tie_word_embeddings": True},
    "8b": {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32}
    | {"num_key_value_heads": 8, "vocab_size": 128256, "tie_word_embeddings": False},
}
WARM_UP = 3  # steps that are not timed: kernels are chosen, memory is taken


def make_model(shape: dict[str, Any], device: str, rank: int, checkpointing: bool) -> tuple[torch.nn.Module, str]:
    """The model with adapters on every linear layer, and the attention that it uses."""
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.utils import is_flash_attn_2_available

    attention = "flash_attention_2" if device == "cuda" and is_flash_attn_2_available() else "sdpa"
    config = LlamaConfig(**shape, max_position_embeddings=8192, attn_implementation=attention, dtype=torch.bfloat16)
    previous = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            model = LlamaForCausalLM(config)
    finally:
        torch.set_default_dtype(previous)
    model.config.use_cache = False
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()
    settings = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM")
    return get_peft_model(model, settings), attention


def packed_row(length: int, documents: int, vocabulary: int, device: str) -> dict[str, torch.Tensor]:
    """One row of `documents` random documents, of which each begins at position 0."""
    ids = torch.randint(vocabulary, (1, length), device=device)
    sizes = [length // documents + (i < length % documents) for i in range(documents)]
    positions = torch.cat([torch.arange(size, device=device) for size in sizes])[None]
    labels = ids.masked_fill(positions == 0, -100)  # the first token of a document follows nothing
    return {"input_ids": ids, "position_ids": positions, "labels": labels}


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Train `options.steps` steps and say what they took: JSON values."""
    device, shape = options.device, SHAPES[options.shape]
    torch.manual_seed(0)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    model, attention = make_model(shape, device, options.rank, options.activation_checkpointing)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    parameters = sum(parameter.numel() for parameter in model.parameters())
    optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=device == "cuda")
    stepped = torch.compile(model) if options.compile else model
    meter, devices = EnergyMeter(), (visible_devices() or ["0"]) if device == "cuda" else []
    losses: list[float] = []
    clock, energy = time.monotonic(), None
    for step in range(WARM_UP + options.steps):
        if step == WARM_UP:
            _wait(device)
            clock, energy = time.monotonic(), meter.joules(devices)
        for _ in range(options.rows):
            row = packed_row(options.length, options.documents, shape["vocab_size"], device)
            loss = stepped(**row).loss / options.rows
            loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.detach().float() * options.rows)
    _wait(device)
    seconds = time.monotonic() - clock
    spent = meter.joules(devices)
    speed = options.steps * options.rows * options.length / seconds
    name = torch.cuda.get_device_name() if device == "cuda" else None
    joules = NOT_MEASURED if energy is None or spent is None else round(spent - energy, 1)
    attempt = {"wall_seconds": seconds, "device_name": name} | ({} if isinstance(joules, str) else {"joules": joules})
    count = sum(parameter.numel() for parameter in trained)
    estimated = step_bytes(
        Shape.of_config(shape), count, 1, options.length, options.length, weight_bytes=2, compute_bytes=2,
        checkpointing=options.activation_checkpointing,
    )  # fmt: skip
    made = cost([attempt], parameters, "lora", speed)
    return {
        "device": name or "cpu",
        "torch": torch.__version__,
        "shape": options.shape,
        "parameters": parameters,
        "trained": count,
        "length": options.length,
        "documents": options.documents,
        "rows": options.rows,
        "steps": options.steps,
        "attention": attention,
        "compile": options.compile,
        "activation_checkpointing": options.activation_checkpointing,
        "tokens_per_second": round(speed, 1),
        "model_flops_utilisation": made["model_flops_utilisation"],
        "convention": CONVENTION,
        "peak_memory_gib": round(_peak(device) / 2**30, 2),
        "estimated_memory_gib": round(sum(estimated.values()) / 2**30, 2),
        "joules": joules,
        "first_loss": round(float(losses[0]), 4),
        "last_loss": round(float(losses[-1]), 4),
    }


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def _peak(device: str) -> int:
    """Of torch's allocator; on a CPU of the whole process."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    """The options of the command line, or those given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="8b")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--length", type=int, default=4096, help="tokens a row")
    parser.add_argument("--documents", type=int, default=8, help="documents packed into a row")
    parser.add_argument("--rows", type=int, default=1, help="rows a step, one after the other")
    parser.add_argument("--steps", type=int, default=20, help="steps that are timed")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--compile", action="store_true", help="torch.compile")
    parser.add_argument("--activation-checkpointing", action="store_true")
    return parser.parse_args(given)


if __name__ == "__main__":
    print(json.dumps(measure(arguments()), indent=1))
