"""The estimate against published memory peaks of other people's runs, and what it says about ours."""

from dataclasses import replace

import pytest

from sft.config.distributed import Distributed
from sft.config.nodes import TrainSettings
from sft.config.training_settings import Optimization
from sft.estimates.estimate import Shape, Where, cheapest_change, estimate, step_bytes

GB = 1e9

LLAMA_2_7B = Shape(6_738_415_616, 32, 4096, 11008, 4096, 32000)
LLAMA_2_13B = Shape(13_015_864_320, 40, 5120, 13824, 5120, 32000)
LLAMA_3_8B = Shape(8_030_261_248, 32, 4096, 14336, 1024, 128256)
LLAMA_32_3B = Shape(3_212_749_824, 28, 3072, 8192, 1024, 128256)
TINY_LLAMA = Shape(1_100_048_384, 22, 2048, 5632, 256, 32000)
# bfloat16 weights, gradients and Adam states throughout ("bf16-true").
NARROW = {"weight_bytes": 2, "compute_bytes": 2, "gradient_bytes": 2, "optimizer_bytes": 4}
# litgpt's adapters on queries and values drop 5 % of what comes into the one matrix of both (lora_dropout of setup() in
# litgpt/finetune/lora.py).
LITGPT_7B, LITGPT_13B = (NARROW | {"dropped": width} for width in (4096, 5120))
# NF4: half a byte, and a float32 scale for every 64 values.
NF4 = {"quantised_bytes": 0.5 + 4 / 64}

# (where, shape, trained, rows, longest row, options, published GB)
PUBLISHED = [
    ("litgpt resource-tables: Llama-2-7B LoRA", LLAMA_2_7B, 4_194_304, 1, 1304, LITGPT_7B, 21.30),
    ("litgpt resource-tables: Llama-2-7B LoRA, 2 rows", LLAMA_2_7B, 4_194_304, 2, 1304, LITGPT_7B, 29.07),
    ("litgpt resource-tables: Llama-2-7B NF4", LLAMA_2_7B, 4_194_304, 1, 1304, LITGPT_7B | NF4, 14.14),
    ("litgpt resource-tables: Llama-2-13B LoRA", LLAMA_2_13B, 6_553_600, 1, 1304, LITGPT_13B, 38.12),
    ("litgpt resource-tables: Llama-2-13B NF4", LLAMA_2_13B, 6_553_600, 1, 1304, LITGPT_13B | NF4, 23.14),
    ("litgpt config_hub: Llama-3-8B LoRA", LLAMA_3_8B, 20_971_520, 1, 512, LITGPT_7B, 19.73),
    ("litgpt config_hub: TinyLlama full", TINY_LLAMA, 1_100_048_384, 4, 512, NARROW, 14.10),
    ("PEFT MetaMathQA: Llama-3.2-3B LoRA r32 q,v", LLAMA_32_3B, 9_175_040, 4, 768, NARROW, 22.27),
    ("PEFT MetaMathQA: Llama-3.2-3B full", LLAMA_32_3B, 3_212_749_824, 4, 768, NARROW, 37.24),
]


@pytest.mark.parametrize(("where", "shape", "trained", "rows", "length", "options", "published"), PUBLISHED)
def test_published_peaks(where, shape, trained, rows, length, options, published) -> None:
    made = sum(step_bytes(shape, trained, rows, length, rows * length, **options).values()) / GB
    print(f"{where}: {made:.2f} GB, published {published} ({made / published - 1:+.1%})")
    assert made == pytest.approx(published, rel=0.15)


LENGTH = 4096
TRAINING = Optimization(learning_rate=1e-4, global_batch_size=16, max_steps=1000, save_steps=500)
RUN = TrainSettings(method="full", lora=None, seed=0, precision="bfloat16", training=TRAINING)
WHERE = Where("cuda", micro_batch_size=1)


def test_full_training_of_8_billion_does_not_fit_one_device_of_80_gb() -> None:
    full = estimate(LLAMA_3_8B, RUN, LENGTH, WHERE)
    # Weights, gradients and Adam alone: 16 bytes a parameter.
    assert full.device_bytes > 128 * GB
    assert full.trained == full.parameters == LLAMA_3_8B.parameters
    assert full.tokens == 1000 * 16 * 4096
    assert full.operations == pytest.approx(6 * 8.03e9 * full.tokens, rel=1e-3)


@pytest.mark.parametrize(
    ("limit", "changes", "method", "said"),
    [
        (90 * GB, {}, "full", "method: lora"),
        (90 * GB, {"micro_batch_size": 4}, "lora", "execution.micro_batch_size: 1"),
        (45 * GB, {}, "lora", "activation_checkpointing: true"),
        (30 * GB, {}, "lora", "strategy: fsdp2, processes: 2"),
        (1 * GB, {}, "lora", "no setting"),
    ],
)
def test_the_cheapest_change_that_makes_it_fit(limit, changes, method, said) -> None:
    where = replace(WHERE, **changes)
    run = RUN.model_copy(update={"method": method})
    assert estimate(LLAMA_3_8B, run, LENGTH, where).device_bytes > limit
    assert said in cheapest_change(LLAMA_3_8B, run, LENGTH, where, limit)


def test_shards_cost_each_process_its_part() -> None:
    spread = replace(WHERE, distributed=Distributed(strategy="fsdp2", processes=8))
    alone, shared = (estimate(LLAMA_3_8B, RUN, LENGTH, where).memory for where in (WHERE, spread))
    assert shared["optimizer"] * 8 == pytest.approx(alone["optimizer"], rel=1e-6)
    # Autocast keeps what it cast of the weights; of shards, one block at a time.
    casts = 2 * (LLAMA_3_8B.parameters - 2 * LLAMA_3_8B.vocabulary * LLAMA_3_8B.hidden)
    assert alone["activations"] - shared["activations"] == casts - casts // LLAMA_3_8B.layers


def test_gradients_come_as_activations_go() -> None:
    """Where a step is one micro batch, the larger of the two counts; accumulated gradients are there besides."""
    accumulated = step_bytes(TINY_LLAMA, TINY_LLAMA.parameters, 4, 512, 2048, **NARROW)
    whole = step_bytes(TINY_LLAMA, TINY_LLAMA.parameters, 4, 512, 2048, **NARROW, accumulates=False)
    few = step_bytes(TINY_LLAMA, TINY_LLAMA.parameters, 1, 16, 16, **NARROW, accumulates=False)
    assert (whole["gradients"], whole["activations"]) == (0, accumulated["activations"])
    assert (few["gradients"], few["activations"], few["logits"]) == (accumulated["gradients"], 0, 0)


def test_a_rank_16_adapter_on_every_linear_layer() -> None:
    """4,884,480 for SmolLM2-135M, as PEFT counts them."""
    smol = Shape.of_config(
        {
            "hidden_size": 576,
            "intermediate_size": 1536,
            "num_hidden_layers": 30,
            "num_attention_heads": 9,
            "num_key_value_heads": 3,
            "vocab_size": 49152,
            "tie_word_embeddings": True,
        }
    )
    assert smol.parameters == 134_515_008
    assert smol.lora_parameters(16) == 4_884_480
