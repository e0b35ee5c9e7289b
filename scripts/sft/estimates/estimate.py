"""What a run will need, before anything is started: parameters, memory a device, disk, tokens, arithmetic.

From the model's shape and the configuration alone, without torch. Memory is the sum of what a step holds at its peak:

    weights      4 bytes a parameter (float32, also under mixed precision)
    gradients    4 bytes a trained parameter
    optimizer    8 bytes a trained parameter with Adam, 2 with an 8-bit one, 0 with SGD
    activations  what autograd keeps of a Llama-shaped block with fused attention (`block_bytes`), and the gradients
                 that pass through one block; with activation checkpointing the inputs of the blocks, and one block
    logits       of the positions that are scored, and what their loss needs beside them; or, where it is larger, the
                 gradient of the head, which comes when they go

Gradients come as activations go. Where every step is one micro batch, the larger of the two counts and the smaller is
0; where gradients are accumulated over micro batches, both are there.

The count of activations is what autograd saves, tensor by tensor (tests/smoke/test_saved_activations.py), and
reproduces published peaks of litgpt and PEFT on GPUs (tests/unit/test_estimate.py).
Arithmetic is counted as 6 operations a parameter and token for full training, 4 with frozen weights (no gradient of the
weights), attention left aside.
"""

import json
import math
import struct
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sft.config.distributed import Distributed
from sft.config.nodes import TrainSettings
from sft.config.training_settings import Lora, Optimization
from sft.terms.strategies import SHARDED_STATE

GIB = 2**30
MIB = 2**20
# PyTorch, transformers and TRL imported, on a CPU; a CUDA context with its kernels on a device.
FRAMEWORK_BYTES = {"cpu": 700 * MIB, "cuda": 600 * MIB}
OPTIMIZER_BYTES = {"adamw_torch": 8, "adamw_8bit": 2, "paged_adamw_8bit": 2, "adafactor": 0, "sgd": 0}


@dataclass(frozen=True)
class Shape:
    """The sizes of a decoder that decide what it costs; `parameters` counts everything, a vision tower included."""

    parameters: int
    layers: int
    hidden: int
    intermediate: int
    key_value: int  # width of keys, and of values, over all their heads
    vocabulary: int
    vision_parameters: int = 0

    @classmethod
    def of_config(cls, config: dict[str, Any], parameters: int | None = None) -> "Shape":
        """From a model's config.json; the number of parameters is computed where it is not known.

        KeyError for a configuration that does not name its sizes in the usual way.
        """
        text = config.get("text_config") or config
        hidden, layers = text["hidden_size"], text["num_hidden_layers"]
        heads = text["num_attention_heads"]
        width = text.get("head_dim") or hidden // heads
        key_value = (text.get("num_key_value_heads") or heads) * width
        block = (
            2 * hidden * heads * width + 2 * hidden * key_value + 3 * hidden * text["intermediate_size"] + 2 * hidden
        )
        tied = text.get("tie_word_embeddings", config.get("tie_word_embeddings", False))
        whole = layers * block + hidden + text["vocab_size"] * hidden * (1 if tied else 2)
        vision = _vision_parameters(config.get("vision_config") or {}, hidden)
        return cls(
            parameters=whole + vision if parameters is None else parameters,
            layers=layers,
            hidden=hidden,
            intermediate=text["intermediate_size"],
            key_value=key_value,
            vocabulary=text["vocab_size"],
            vision_parameters=vision if parameters is None else max(parameters - whole, 0),
        )

    @classmethod
    def of_directory(cls, directory: Path) -> "Shape":
        """From a model directory: its config.json, and the headers of its weight files for the number of parameters."""
        config = json.loads((directory / "config.json").read_text())
        counted = sum(map(_stored_values, directory.glob("model*.safetensors")))
        return cls.of_config(config, counted or None)

    def lora_parameters(self, rank: int, vision: bool = True) -> int:
        """Of an adapter on every linear layer (`all-linear`): rank times the sum of both widths of each."""
        hidden, key_value, inner = self.hidden, self.key_value, self.intermediate
        block = 2 * (2 * hidden) + 2 * (hidden + key_value) + 3 * (hidden + inner)
        # A vision tower's widths are not read; its adapters are in proportion to its parameters.
        text = self.parameters - self.vision_parameters
        return round(rank * self.layers * block * (1 + vision * self.vision_parameters / text))


@dataclass(frozen=True)
class Where:
    """How a run is carried out, as far as memory depends on it."""

    device: str
    micro_batch_size: int | None = None
    distributed: Distributed = field(default_factory=Distributed)


@dataclass(frozen=True)
class Estimate:
    """Bytes of one device at the peak of a step by what they are for, and totals of the run."""

    parameters: int
    trained: int
    memory: dict[str, int]
    disk: int
    tokens: int
    operations: float

    @property
    def device_bytes(self) -> int:
        """All of `memory`."""
        return sum(self.memory.values())


def block_bytes(shape: Shape, compute_bytes: int, trained_norms: bool, mixed: bool = False) -> int:
    """What autograd keeps of one block for each token.

    Of both norms the input and, for the gradient of their weights, the normed values, in float32; the inputs of the
    products, queries, keys and values, and four values of the gated layer in between. `mixed`: float32 weights under
    autocast, which casts the output of a norm anew for each of the products that read it.
    """
    hidden, narrow = shape.hidden, compute_bytes == 2
    products = 4 * hidden + 2 * shape.key_value + 4 * shape.intermediate
    if mixed:
        products += 3 * hidden
    # A norm computes in float32; its output is cast before it meets a narrow weight.
    normed = 2 * hidden * (4 if mixed or not narrow else 2) if trained_norms else 0
    return 2 * hidden * 4 + normed + products * compute_bytes


def step_bytes(
    shape: Shape,
    trained: int,
    rows: int,
    length: int,
    scored: int,
    weight_bytes: float = 4,
    compute_bytes: int = 4,
    optimizer_bytes: int = 8,
    gradient_bytes: int = 4,
    quantised_bytes: float | None = None,
    checkpointing: bool = False,
    shards: int = 1,
    accumulates: bool = True,
    dropped: int = 0,
) -> dict[str, int]:
    """Memory of one step of `rows` rows of `length` tokens; `scored` positions get logits.

    `quantised_bytes`: of a weight inside the blocks, where the base is quantised (embeddings and head never are); the
    largest matrix is then whole in the computed type while it is used.

    `compute_bytes`: of an activation (2 under bfloat16). Narrow ones of float32 weights are autocast's, which keeps the
    weights of the blocks in the narrow type beside them. `accumulates`: gradients of micro batches before are there.
    `dropped`: values of a token and block that an adapter's dropout copies, each with a byte of mask. `shards`:
    processes that share weights, gradients and optimizer; each still has one block whole while it is used.
    """
    tokens = rows * length
    full = trained >= shape.parameters
    mixed = weight_bytes == 4 and compute_bytes == 2
    block = block_bytes(shape, compute_bytes, full, mixed) + dropped * (compute_bytes + 1)
    # Gradients pass through one block at a time: of the gated layer's three inputs, and of the block's own.
    passing = (3 * shape.intermediate + shape.hidden) * compute_bytes
    kept = (shape.layers * shape.hidden * compute_bytes + block if checkpointing else shape.layers * block) + passing
    outside = 2 * shape.vocabulary * shape.hidden  # of the blocks: embeddings and head
    casts = 2 * max(shape.parameters - outside, 0) if mixed else 0
    casts = casts // shape.layers if checkpointing or shards > 1 else casts
    whole_block = (quantised_bytes or weight_bytes) * shape.parameters / shape.layers if shards > 1 else 0
    weights = weight_bytes * shape.parameters
    if quantised_bytes is not None:
        weights = weight_bytes * outside + quantised_bytes * (shape.parameters - outside)
        weights += compute_bytes * shape.hidden * shape.intermediate
    head = gradient_bytes * shape.vocabulary * shape.hidden if full else 0
    made = {
        "weights": round(weights / shards + whole_block),
        "gradients": round(gradient_bytes * trained / shards),
        "optimizer": round(optimizer_bytes * trained / shards),
        "activations": tokens * kept + casts,
        # The logits as computed, in float32, and their gradient.
        "logits": max(scored * shape.vocabulary * (compute_bytes + 8), 0 if accumulates else head // shards),
    }
    if not accumulates:
        while_forward = made["activations"] + made["logits"]
        made |= {"gradients": 0} if while_forward >= made["gradients"] else {"activations": 0, "logits": 0}
    return made


def estimate(shape: Shape, run: TrainSettings, length: int, where: Where) -> Estimate:
    """Of one run whose rows have at most `length` tokens.

    Every row is taken to be as long as that and every token to be scored, so this is an upper bound.
    """
    training, lora, full = run.training, run.lora or Lora(), run.method == "full"
    processes, strategy = where.distributed.processes, where.distributed.strategy
    rows = where.micro_batch_size or training.global_batch_size // processes
    trained = shape.parameters if full else shape.lora_parameters(lora.r)
    narrow = run.precision == "bfloat16"
    memory = step_bytes(
        shape,
        trained,
        rows,
        length,
        scored=rows * length,
        compute_bytes=2 if narrow else 4,
        optimizer_bytes=OPTIMIZER_BYTES[training.optim],
        quantised_bytes=_quantised_bytes(training),
        checkpointing=training.activation_checkpointing,
        shards=processes if strategy in SHARDED_STATE else 1,
        accumulates=rows * processes < training.global_batch_size,
        # The inputs of attention (three times) and its output, of the gated layer (twice) and within it.
        dropped=6 * shape.hidden + shape.intermediate if not full and lora.dropout else 0,
    )
    if strategy == "deepspeed_zero2":
        memory["weights"] = 4 * shape.parameters  # whole in each process
    if strategy == "ddp":
        memory["gradients"] += 4 * trained  # the buckets in which they are sent
    memory["framework"] = FRAMEWORK_BYTES["cuda" if where.device == "cuda" else "cpu"]
    steps = training.max_steps
    tokens = steps * training.global_batch_size * length if steps else 0
    kept = -(-steps // training.save_steps) if steps and training.save_steps else 1
    state = 4 + OPTIMIZER_BYTES[training.optim]
    saved = 4 * (shape.parameters if full else trained)
    converted = 4 * shape.parameters
    # Two checkpoints can be continued from at any time; what is converted is the whole model, once for each kept step.
    disk = kept * (saved + converted) + 2 * state * trained
    return Estimate(
        parameters=shape.parameters,
        trained=trained,
        memory=memory,
        disk=disk,
        tokens=tokens,
        operations=(6 if full else 4) * shape.parameters * tokens,
    )


def _quantised_bytes(training: Optimization) -> float | None:
    """Of a weight of a quantised base, its share of the scales included; None where the base is not quantised.

    nf4: half a byte, and 4 bytes of scale for 64 weights, or 1 byte with a scale for 256 of them (T. Dettmers et al.,
    arXiv:2305.14314). int8 has a scale a row.
    """
    if training.quantization == "nf4":
        return 0.5 + ((1 + 4 / 256) / 64 if training.double_quantization else 4 / 64)
    return 1.0 if training.quantization == "int8" else None


def cheapest_change(shape: Shape, run: TrainSettings, length: int, where: Where, limit: int) -> str:
    """The first of the changes that cost least, by which the run fits `limit` bytes a device; words for a person."""
    rows = where.micro_batch_size or run.training.global_batch_size // where.distributed.processes
    checkpointing = run.training.model_copy(update={"activation_checkpointing": True})

    def fits(elsewhere: Where, **changes: Any) -> bool:
        return estimate(shape, run.model_copy(update=changes), length, elsewhere).device_bytes <= limit

    for smaller in (n for n in range(rows - 1, 0, -1) if rows % n == 0):
        if fits(replace(where, micro_batch_size=smaller)):
            return f"execution.micro_batch_size: {smaller}"
    one = replace(where, micro_batch_size=1)
    if fits(one, training=checkpointing):
        return "training.activation_checkpointing: true, with execution.micro_batch_size: 1"
    if run.method == "full" and fits(one, method="lora"):
        return "method: lora, with execution.micro_batch_size: 1"
    for processes in (2, 4, 8, 16, 32, 64):
        spread = Distributed(strategy="fsdp2", processes=processes)
        if fits(replace(one, distributed=spread), training=checkpointing):
            return f"training.distributed: {{strategy: fsdp2, processes: {processes}}}, with activation_checkpointing"
    return "no setting that is known here; use a smaller model or shorter rows (training.max_length)"


def _vision_parameters(config: dict[str, Any], hidden: int) -> int:
    """Matrices of a tower of transformer blocks, and of what merges 2 x 2 of its patches into a token."""
    if not config:
        return 0
    width = config["hidden_size"]
    inner = config.get("intermediate_size") or 4 * width
    block = 4 * width * width + 3 * width * inner
    return config.get("depth", config.get("num_hidden_layers", 0)) * block + 16 * width * width + 4 * width * hidden


def _stored_values(file: Path) -> int:
    """Numbers that a safetensors file holds, from its header (8 bytes of length, then JSON)."""
    with file.open("rb") as opened:
        (length,) = struct.unpack("<Q", opened.read(8))
        header = json.loads(opened.read(length))
    return sum(math.prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")
