"""Batches for the trainer from tokenised rows: right padding, masks, picture features.

What a processor would emit for the same rows is what comes out, so the losses equal those of TRL's own vision
collator; only the text is not rendered and tokenised again at every step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from sft.data.read import pictures
from sft.runtime.stage import StageError
from sft.training import cross_attention

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, ProcessorMixin

IGNORED = -100
# The key under which a batch carries the ids of its rows; taken off before the model sees it.
SAMPLE_IDS = "sample_ids"
# The same for the number of tokens of each pack of a batch, which has no mask to count.
REAL_TOKENS = "real_tokens"
PICTURE_MEMORY_BYTES = 256 * 2**20


class Collator:
    """Makes a batch of rows with `id`, `input_ids`, `labels` and, for pictures, `images` (a list of encoded bytes).

    Yields `input_ids`, `attention_mask`, `labels` of shape (rows, longest row), what the image processor makes of
    the pictures (concatenated along the first dimension; sft/training/cross_attention.py has the other way) and the
    ids of the rows under `SAMPLE_IDS`. Models that place picture tokens by `mm_token_type_ids` get them: without, they
    fall back to plain positions unseen. Packs (with `seq_lengths`) have `position_ids` instead of a mask, and the
    number of their tokens.
    """

    def __init__(self, processor: ProcessorMixin | PreTrainedTokenizerBase):
        tokenizer = getattr(processor, "tokenizer", processor)
        # Padding is masked everywhere, so any id will do where a tokenizer names none.
        self.pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        self.features = PictureFeatures(processor) if hasattr(processor, "image_processor") else None
        self.crossing = processor if cross_attention.is_used(processor) else None
        self.image_token_id = getattr(processor, "image_token_id", None)
        self.type_key = _token_type_key(processor) if self.features else None

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        length = max(len(row["input_ids"]) for row in rows)
        input_ids = torch.full((len(rows), length), self.pad_id)
        labels = torch.full((len(rows), length), IGNORED)
        attention_mask = torch.zeros((len(rows), length), dtype=torch.long)
        for i, row in enumerate(rows):
            n = len(row["input_ids"])
            input_ids[i, :n] = torch.tensor(row["input_ids"])
            labels[i, :n] = torch.tensor(row["labels"])
            attention_mask[i, :n] = 1
        batch = {SAMPLE_IDS: [row["id"] for row in rows], "input_ids": input_ids, "labels": labels}
        if "seq_lengths" in rows[0]:
            batch[REAL_TOKENS] = [len(row["input_ids"]) for row in rows]
            batch["position_ids"] = _positions([row["seq_lengths"] for row in rows], length)
            for i, row in enumerate(rows):
                # No row predicts the first token of the row that stands behind it in the pack.
                labels[i, torch.tensor([0, *row["seq_lengths"][:-1]]).cumsum(0)] = IGNORED
        else:
            batch["attention_mask"] = attention_mask
        if self.type_key:
            batch[self.type_key] = ((input_ids == self.image_token_id) & (attention_mask == 1)).long()
        if self.crossing and self.features:
            made = [self.features(row["id"], row["images"]) if row.get("images") else None for row in rows]
            batch |= cross_attention.inputs(made, input_ids, self.crossing)
        elif self.features:
            shown = [self.features(row["id"], row["images"]) for row in rows if row.get("images")]
            for name in shown[0] if shown else ():
                batch[name] = torch.cat([one[name] for one in shown])
        return batch


def _positions(packs: list[list[int]], length: int) -> torch.Tensor:
    """Positions (packs, length) that start anew at every row of a pack, and once more at the padding behind it.

    Without an attention mask, transformers keeps attention inside the rows that such positions show.
    """
    positions = torch.empty((len(packs), length), dtype=torch.long)
    for i, lengths in enumerate(packs):
        behind = length - sum(lengths)
        positions[i] = torch.cat([torch.arange(n) for n in (*lengths, behind)])
    return positions


class PictureFeatures:
    """Pixels as the model wants them, from encoded pictures; kept by row id until the memory bound is reached.

    Rows come in a new order every epoch, so what is kept stays: evicting would only turn later hits into misses.
    """

    def __init__(self, processor: ProcessorMixin, memory_bytes: int = PICTURE_MEMORY_BYTES):
        self.image_processor = processor.image_processor
        self.free_bytes = memory_bytes
        self._kept: dict[str, dict[str, Any]] = {}

    def __call__(self, row_id: str, images: list[bytes]) -> dict[str, Any]:
        """What the image processor makes of a row's pictures; StageError names the row of an unreadable one."""
        if row_id in self._kept:
            return self._kept[row_id]
        try:
            decoded = [pictures.decode(image) for image in images]
        except ValueError as error:
            raise StageError(f"row {row_id}: {error}. Mend the source data") from None
        made = dict(self.image_processor(images=decoded, return_tensors="pt"))
        size = sum(value.nbytes for value in made.values() if torch.is_tensor(value))
        if size <= self.free_bytes:
            self.free_bytes -= size
            self._kept[row_id] = made
        return made


def _token_type_key(processor: ProcessorMixin) -> str | None:
    """The key under which this processor marks picture tokens, found by asking it; None when it marks none.

    StageError when it emits something per token that is not the mark of its picture tokens: training would
    give the model another input than evaluation does.
    """
    from PIL import Image

    message = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "a"}]}]
    text = processor.apply_chat_template(message, tokenize=False)
    made = processor(text=[text], images=[[Image.new("RGB", (64, 64))]], return_tensors="pt")
    ids = made["input_ids"]
    marks = [
        name
        for name, value in made.items()
        if name not in ("input_ids", "attention_mask") and torch.is_tensor(value) and value.shape == ids.shape
    ]
    for name in marks:
        if not torch.equal(made[name].long(), (ids == processor.image_token_id).long()):
            raise StageError(f"{type(processor).__name__} emits {name}, which does not mark its picture tokens")
    if len(marks) > 1:
        raise StageError(f"{type(processor).__name__} marks picture tokens twice ({', '.join(marks)})")
    return marks[0] if marks else None
