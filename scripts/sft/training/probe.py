"""Logits of the model in memory on fixed inputs, recorded while it is trained.

Whoever converts a checkpoint shows with them that the converted model is the one that was trained.
`probe.safetensors` holds `inputs/<model argument>` (validation rows with their answers, padded, and their picture
features), `random/input_ids` (random ids, without pictures), and for step 0 and each kept step `step-<N>/logits`
(rows, positions, vocabulary) and `step-<N>/random_logits`, all float32, in plain arithmetic, dropout off.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from sft.models.plain_arithmetic import plain_arithmetic
from sft.training.collate import REAL_TOKENS, SAMPLE_IDS, Collator

if TYPE_CHECKING:
    from torch import Tensor, nn

ROWS = 8
CANDIDATES = 256
RANDOM_SHAPE = (2, 16)
# Logits of a model with a large vocabulary: fewer rows rather than hundreds of MB for each step.
LARGEST_LOGITS = 2**25

# File in a checkpoint that holds the inputs and the logits of step 0; and those of its own step.
START_FILE = "probe-start.safetensors"
STEP_FILE = "probe.safetensors"


def probe_inputs(
    rows: Iterable[dict[str, Any]], collator: Collator, vocabulary: int, avoid: set[int], seed: int
) -> dict[str, Tensor]:
    """The inputs under their names in the file, made of the first rows that fit; random ids avoid `avoid`."""
    candidates = list(itertools.islice(rows, CANDIDATES))
    chosen: list[dict[str, Any]] = []
    for row in candidates:
        longest = max(len(one["input_ids"]) for one in [*chosen, row])
        if (len(chosen) + 1) * longest * vocabulary <= LARGEST_LOGITS and len(chosen) < ROWS:
            chosen.append(row)
    chosen = chosen or [min(candidates, key=lambda row: len(row["input_ids"]))]
    batch = collator(chosen)
    allowed = torch.tensor([number for number in range(vocabulary) if number not in avoid])
    drawn = torch.randint(len(allowed), RANDOM_SHAPE, generator=torch.Generator().manual_seed(seed))
    return {
        **{f"inputs/{name}": batch[name] for name in batch if name not in (SAMPLE_IDS, REAL_TOKENS, "labels")},
        "random/input_ids": allowed[drawn],
    }


def logits(model: nn.Module, inputs: Mapping[str, Tensor], step: int, plain: bool = True) -> dict[str, Tensor]:
    """`{step-<N>/logits, step-<N>/random_logits}` of `model`; its mode is put back, nothing is drawn.

    `plain`: of its weights, in plain arithmetic; otherwise as it computes.
    """
    device = next(model.parameters()).device
    given = {name.removeprefix("inputs/"): value for name, value in inputs.items() if name.startswith("inputs/")}
    training = model.training
    with torch.no_grad(), plain_arithmetic(model) if plain else nullcontext():
        model.eval()
        try:
            made = {
                "logits": model(**{name: value.to(device) for name, value in given.items()}).logits,
                "random_logits": model(input_ids=inputs["random/input_ids"].to(device)).logits,
            }
        finally:
            model.train(training)
    return {f"step-{step}/{name}": value.float().cpu().contiguous() for name, value in made.items()}


def save(tensors: dict[str, Tensor], path: Path) -> None:
    from safetensors.torch import save_file

    save_file(tensors, path)


def load(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(path)


def assemble(checkpoints: list[Path], target: Path) -> dict[str, list[int]]:
    """Write the whole of `probe.safetensors` from the files in the kept checkpoints; returns each tensor's shape."""
    tensors = load(checkpoints[-1] / START_FILE)
    for checkpoint in checkpoints:
        tensors |= load(checkpoint / STEP_FILE)
    save(tensors, target)
    return {name: list(tensor.shape) for name, tensor in sorted(tensors.items())}
