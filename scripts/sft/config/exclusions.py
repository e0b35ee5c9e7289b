"""Ways to train that cannot be combined, or cannot run on a device, with the reason; read before anything starts.

A setting that a library would drop, or take back without a word, is refused here. `sft.training.methods` asks the same
of the device that was found. Imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sft.config.training_settings import Lora, Optimization, Training

# (key below training, what is wrong, what to do)
Refusal = tuple[str, str, str]


def in_training(training: Training) -> Iterator[Refusal]:
    """What the settings of a training exclude among each other."""
    quantised, float8 = training.quantization != "none", training.float8 != "none"
    if not quantised and training.quantization_compute is not None:
        yield "quantization_compute", "has no effect with quantization: none", "Remove it, or write quantization: nf4"
    if training.quantization != "nf4" and not training.double_quantization:
        yield "double_quantization", f"has no effect with quantization: {training.quantization}", "Remove it"
    if training.quantization == "int8" and training.quantization_compute is not None:
        yield "quantization_compute", "int8 multiplies in 8 bit, whatever is written here", "Remove it"
    if training.float8_emulated and not float8:
        yield "float8_emulated", "has no effect with float8: none", "Remove it, or choose a recipe of float8"
    if quantised and float8:
        fix = "Remove one of them"
        yield "float8", f"a base in {training.quantization} has no weights that could be cast to FP8", fix
    yield from _in_several_processes(training, training.distributed.strategy)
    if training.compile != "none":
        if quantised:
            fix = "Write compile: none"
            yield "compile", f"bitsandbytes' {training.quantization} layers are no whole graph for the compiler", fix
        if training.kernels != "stock":
            yield "compile", "a compiler and kernels written by hand replace the same code", "Choose one of them"
        if training.attention == "flash_attention_2":
            yield "compile", "flash_attention_2 breaks the graph in every block", "Use attention: sdpa"
        if training.activation_offloading:
            yield "compile", "the hooks of activation_offloading are not compiled", "Choose one of them"
    if training.attention == "flash_attention_2" and training.precision != "bfloat16":
        yield "attention", "flash_attention_2 has no float32", "Write precision: bfloat16, or attention: sdpa"
    if training.activation_offloading and training.activation_checkpointing:
        fix = "Choose one of them: recomputing costs time, offloading costs the bus"
        yield "activation_offloading", "with activation_checkpointing there is little left to offload", fix


def _in_several_processes(training: Training, strategy: str) -> Iterator[Refusal]:
    """What a strategy excludes. What it does not is held against one process in tests/smoke/test_spread_methods.py."""
    if training.quantization == "int8" and strategy not in ("none", "ddp"):
        problem = "int8 layers keep weights and scales beside their parameters, which is not what"
        yield "quantization", f"{problem} strategy {strategy} spreads", "Use nf4 with fsdp2, or strategy ddp"
    if training.quantization == "nf4" and strategy in ("fsdp1", "deepspeed_zero3"):
        problem = f"strategy {strategy} puts 4-bit weights together without their scales, so that nothing proves them"
        yield "quantization", problem, "Use strategy fsdp2, deepspeed_zero2 or ddp"
    if training.compile != "none" and strategy not in ("none", "ddp"):
        fix = "Use strategy ddp, or write compile: none"
        yield "compile", f"compiled blocks were not shown to train right with strategy {strategy}", fix


def in_cell(training: Training, method: str, lora: Lora | None) -> Iterator[Refusal]:
    """What the settings of a training exclude together with the method."""
    if training.quantization != "none":
        if method != "lora":
            fix = "Write method: lora, or quantization: none"
            yield "quantization", f"weights in {training.quantization} cannot be trained, only adapters on them", fix
        if training.quantization == "int8" and lora and lora.use_dora:
            fix = "Use nf4, or use_dora: false"
            yield "quantization", "DoRA divides by norms of weights that int8 layers do not keep", fix
        if training.distributed.strategy == "fsdp2" and lora and lora.use_dora:
            fix = "Use strategy ddp, or use_dora: false"
            yield (
                "quantization",
                "DoRA reads 4-bit weights beside their layer, where fsdp2 has only shards of them",
                fix,
            )
    if training.backend == "unsloth" and lora and lora.layers is not None:
        yield "backend", "unsloth is not told of lora.layers here", "Remove lora.layers, or use backend: trl"


def on_device(training: Optimization, device: str) -> Iterator[Refusal]:
    """What cannot run on a device ("cpu" or "cuda"; "auto" is not known yet)."""
    if device != "cpu":
        return
    attention, mode = training.attention, training.compile
    if training.kernels == "liger":
        yield "kernels", "liger needs CUDA: its kernels are Triton's, which has no CPU", "Write kernels: stock"
    if attention == "flash_attention_2":
        yield "attention", "flash_attention_2 needs CUDA", "Use sdpa"
    if attention == "flex_attention":
        yield "attention", "flex_attention has no backward pass on a CPU (PyTorch 2.13)", "Use sdpa"
    if training.activation_offloading:
        fix = "Use activation_checkpointing: true"
        yield "activation_offloading", "needs CUDA: on a CPU activations are in the host's memory already", fix
    if mode in ("reduce-overhead", "max-autotune"):
        yield "compile", f"{mode} records CUDA graphs", "Write compile: default"
    if training.float8 != "none" and not training.float8_emulated:
        fix = "Write float8_emulated: true to try the road without the hardware, or device: cuda"
        yield "float8", "a CPU has no FP8; what runs there proves nothing about the hardware", fix
