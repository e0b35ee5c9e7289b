"""Test rows as batches of model inputs: rendered as in training, padded on the left, prepared once for all models.

The batches depend on the rows' content and ids, never on the order in which they come: adding up in another order
moves the last bits of logits, and a score must not change because a file was sorted.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sft.data.read import pictures
from sft.data.tokens import rendering
from sft.models.loading import tokenizer_of
from sft.runtime.canonical import digest
from sft.runtime.stage import StageError

# Prepared pictures are kept for the next checkpoint up to this size; beyond it they are prepared again.
MEMORY_BYTES = 2 * 2**30


@dataclass
class Batch:
    """Rows that go through the model together: their ids, their inputs, and the number of tokens of each prompt."""

    ids: list[str]
    inputs: dict[str, Tensor]
    prompt_tokens: list[int]


class PromptBatches:
    """The rows of one test split, in batches of `size`. `errors` holds {id: why} for rows that cannot be asked.

    `rows`: canonical examples. `behind`: a text behind every prompt. StageError for pictures where the processor takes
    none.
    """

    def __init__(
        self,
        rows: Sequence[Mapping[str, Any]],
        processor: Any,
        size: int,
        memory_bytes: int = MEMORY_BYTES,
        behind: str = "",
    ):
        self.processor = processor
        self.tokenizer = tokenizer_of(processor)
        # Generation continues at the right end of every row.
        self.tokenizer.padding_side = "left"
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self.takes_pictures = rendering.takes_pictures(processor)
        if not self.takes_pictures and any(row["images"] for row in rows):
            raise StageError("the test rows have pictures, but the model takes text only. Evaluate on another data set")
        self.rows = {row["id"]: row for row in rows}
        self.texts = {row["id"]: rendering.prompt_text(processor, row) + behind for row in rows}
        self.errors: dict[str, str] = {}
        self._free_bytes = memory_bytes
        self._kept: dict[int, list[Batch]] = {}
        # Rows of like length together, so that little is padding; rows with and without pictures apart, because a
        # processor takes pictures for all texts of a call or for none.
        ordered = sorted(self.rows, key=lambda id: (len(self.rows[id]["images"]) > 0, len(self.texts[id]), id))
        split = next((n for n, id in enumerate(ordered) if self.rows[id]["images"]), len(ordered))
        self._chunks = [
            part[n : n + size] for part in (ordered[:split], ordered[split:]) for n in range(0, len(part), size)
        ]

    def __iter__(self) -> Iterator[Batch]:
        for number, ids in enumerate(self._chunks):
            made = self._kept.get(number)
            if made is None:
                made = self._prepared(ids)
                size = sum(tensor.nbytes for batch in made for tensor in batch.inputs.values())
                if size <= self._free_bytes:
                    self._free_bytes -= size
                    self._kept[number] = made
            yield from made

    def prompts_digest(self) -> str:
        """sha256 of all rendered prompts by id: what the model is asked, to the letter."""
        return digest(dict(sorted(self.texts.items())))

    def shown(self, count: int) -> list[dict[str, Any]]:
        """The first rows by id: the rendered prompt, its number of tokens, whether a training row begins with those.

        StageError when the template renders the prompt otherwise in training (see `rendering.texts`).
        """
        made: list[dict[str, Any]] = []
        for id in sorted(self.rows):
            if len(made) == count:
                break
            try:
                decoded = [pictures.decode(image) for image in self.rows[id]["images"]]
            except ValueError:
                continue
            prompt, full = rendering.texts(self.processor, self.rows[id])
            asked, trained = rendering.encode(self.processor, [prompt, full], [decoded, decoded])
            begins = trained[: len(asked)] == asked
            made.append({"id": id, "prompt": prompt, "prompt_tokens": len(asked), "begins_the_training_row": begins})
        return made

    def _prepared(self, ids: Sequence[str]) -> list[Batch]:
        """One batch of these rows without those that fail; which ones fail is found out one by one."""
        decoded = {}
        for id in ids:
            try:
                decoded[id] = [pictures.decode(image) for image in self.rows[id]["images"]]
            except ValueError as error:
                self.errors[id] = str(error)
        if not decoded:
            return []
        try:
            return [self._batch(decoded)]
        except ValueError:
            sound = {}
            for id, images in decoded.items():
                try:
                    self._batch({id: images})
                except ValueError as error:
                    self.errors[id] = f"the processor refuses the row: {error}"
                else:
                    sound[id] = images
            return [self._batch(sound)] if sound else []

    def _batch(self, decoded: Mapping[str, list[Any]]) -> Batch:
        arguments: dict[str, Any] = {"text": [self.texts[id] for id in decoded]}
        if any(decoded.values()):
            arguments["images"] = list(decoded.values())
        made = self.processor(**arguments, padding=True, return_tensors="pt", add_special_tokens=False)
        inputs = {name: value for name, value in made.items() if torch.is_tensor(value)}
        # Text models that do not know it refuse it.
        inputs.pop("token_type_ids", None)
        return Batch(list(decoded), inputs, inputs["attention_mask"].sum(1).tolist())
