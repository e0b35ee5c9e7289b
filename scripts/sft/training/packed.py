"""Shows, before a packed run starts, that the rows of a pack do not see each other in this very model."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sft.runtime.stage import StageError
from sft.training.backends.trl import label_scores
from sft.training.collate import REAL_TOKENS, SAMPLE_IDS, Collator

if TYPE_CHECKING:
    from torch import nn

# Of the loss summed over a pack's rows. Float32 sums in another order: 1e-6 was measured; a row that sees the
# one before it: 1e-2 and more. bfloat16 rounds at 4e-3.
TOLERANCE = {"float32": 1e-4, "bfloat16": 2e-2}


def unpacked(pack: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows that a pack is made of."""
    rows, place = [], 0
    for number, length in enumerate(pack["seq_lengths"]):
        part = slice(place, place + length)
        rows.append({"id": str(number), "input_ids": pack["input_ids"][part], "labels": pack["labels"][part]})
        place += length
    return rows


def require_separate_rows(
    model: nn.Module, collator: Collator, packs: Any, prepare: Callable[[dict[str, Any]], dict[str, Any]], dtype: str
) -> dict[str, float]:
    """Compare the loss of the first pack of several rows with that of its rows alone; StageError where they differ.

    `prepare` moves a batch to the model's device. Returns both sums, for the run's record.
    """
    import torch

    pack = next((pack for pack in packs if len(pack["seq_lengths"]) > 1), None)
    if pack is None:
        return {}

    def loss(rows: list[dict[str, Any]]) -> float:
        batch = collator(rows)
        for name in (SAMPLE_IDS, REAL_TOKENS):
            batch.pop(name, None)
        log_probs, _, _ = label_scores(model, prepare(batch))
        return -float(log_probs.sum(dtype=torch.float64))

    training = model.training
    with torch.no_grad():
        model.eval()
        packed, alone = loss([pack]), sum(loss([row]) for row in unpacked(pack))
        model.train(training)
    if abs(packed - alone) > TOLERANCE[dtype] * max(abs(alone), 1.0):
        attention = getattr(model.config, "_attn_implementation", "unknown")
        raise StageError(
            f"training.packing: the loss of a pack is {packed:.6f}, that of its rows alone {alone:.6f}: with attention "
            f"{attention!r} rows of a pack see each other. Set training.packing to none"
        )
    return {"packed_loss": packed, "loss_of_rows_alone": alone}
