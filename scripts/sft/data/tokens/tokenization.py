"""Examples to token ids and labels.

A row is tokenised as its whole text, pictures expanded by the processor; the labels are those ids where the loss
counts and -100 elsewhere. With loss_on "completion", "last" and "assistant" that is the answer, the last answer or
every answer, each with what the template puts behind it (`<|im_end|>` and a newline in ChatML), which is what TRL
masks for conversational prompt-completion rows; with "all" it is everything but the picture tokens, whose ids are
placeholders that say nothing. Text without roles is learned whole, the tokenizer's end of text included.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from sft.config.training_settings import Tokens
from sft.data.read import turns
from sft.data.tokens import masking, rendering
from sft.data.tokens.control_tokens import ControlTokens, control_tokens_of
from sft.data.tokens.label_counts import IGNORED, LabelCounts, learned
from sft.data.tokens.masking import MaskedTokens
from sft.data.tokens.row_checks import RowChecks
from sft.data.tokens.token_bytes import token_bytes_of
from sft.runtime.stage import StageError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, ProcessorMixin

# Rows that are rendered and tokenised in one call, at most; and of long ones or pictures, so many bytes.
ROWS_PER_BATCH = 1000
BYTES_PER_BATCH = 8 * 2**20
# Decoded pictures are large; so many rows of them are in memory at once.
PICTURES_PER_BATCH = 16
# Texts that were read are kept up to so many tokens (about 40 bytes each): rows of pictures often share their text.
TOKENS_KEPT = 2_000_000
# So many rows with pictures have their prompt encoded alone, as evaluation will do it.
ROWS_CHECKED_ALONE = 3


class Tokenization:
    """Tokenises one split row by row and counts what becomes of the rows."""

    def __init__(self, processor: ProcessorMixin | PreTrainedTokenizerBase, settings: Tokens, split: str):
        from sft.models.loading import tokenizer_of

        self.processor = processor
        self.tokenizer = tokenizer_of(processor)
        self.split = split
        self.max_length = settings.max_length
        self.on_too_long = settings.on_too_long
        self.side = settings.truncation_side
        self.loss_on = settings.loss_on
        self.control = settings.control_tokens
        # Rows that are split over packs (see sft/data/tokens/packing.py) are never too long.
        self.splits_rows = settings.packing in ("bfd_split", "wrapped")
        self.placeholders = {
            number
            for name in ("image_token_id", "video_token_id")
            if (number := getattr(processor, name, None)) is not None
        }
        self.closing = masking.closing_ids(self.tokenizer)
        self.token_bytes = token_bytes_of(self.tokenizer)
        self.control_tokens = ControlTokens(control_tokens_of(self.tokenizer))
        self.checks = RowChecks(processor)
        self.counts = LabelCounts()
        self._masked: dict[tuple[Any, ...], tuple[str, str, MaskedTokens]] = {}
        self._tokens_kept = 0

    def tokenise(self, examples: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Rows {"id", "input_ids", "labels", "images"} in order, tokens as arrays; too long ones as the policy says.

        StageError, once all rows were seen, where rows are too long or hold control tokens and that is not allowed.
        """
        counts = self.counts
        for batch in _batched(examples):
            yield from self._batch(batch)
        if counts.counted["with_control_tokens"] and self.control == "refuse":
            raise StageError(
                f"{self.split}: {counts.counted['with_control_tokens']} of {counts.rows} rows hold control tokens of "
                f"the tokenizer in their own text (ids {counts.some('with_control_tokens')}). Mend the rows, or set "
                f"training.control_tokens to neutralise or allow"
            )
        if counts.counted["too_long"] and self.on_too_long == "error":
            raise StageError(
                f"{self.split}: {counts.counted['too_long']} of {counts.rows} rows are longer than max_length "
                f"{self.max_length} (the longest has {max(counts.tokens)} tokens; ids {counts.some('too_long')}). "
                f"Raise training.max_length, or set training.on_too_long to drop or truncate"
            )
        if counts.counted["picture_cut"]:
            raise StageError(
                f"{self.split}: {counts.counted['picture_cut']} of {counts.rows} rows would lose a part of their "
                f"pictures to max_length {self.max_length} (ids {counts.some('picture_cut')}). Raise "
                f"training.max_length, lower maximum_pixels, or set training.on_too_long to drop"
            )
        if counts.rows and not counts.kept:
            raise StageError(
                f"{self.split}: no row is left of {counts.rows}: {counts.counted['too_long']} are longer than "
                f"max_length {self.max_length}, {counts.counted['fully_masked']} of them without a token to learn"
            )

    def facts(self) -> dict[str, Any]:
        """What became of the rows, as JSON (one split of labels.json)."""
        return self.counts.facts(self.tokenizer)

    def _batch(self, batch: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        for example in batch:
            if self.control_tokens.found(example):
                self.counts.note("with_control_tokens", example["id"])
        if self.control == "neutralise":
            batch = [self.control_tokens.neutralised(example) for example in batch]
        read = self._read(batch)
        if not any(example["images"] for example in batch):
            for example, (_, _, masked) in zip(batch, read, strict=True):
                yield from self._row(example, masked)
            return
        for first in range(0, len(batch), PICTURES_PER_BATCH):
            part, texts = batch[first : first + PICTURES_PER_BATCH], read[first : first + PICTURES_PER_BATCH]
            images = [self._decoded(example) for example in part]
            encoded = self._encode([full for full, _, _ in texts], images, part)
            for example, (_, prompt, masked), decoded, ids in zip(part, texts, images, encoded, strict=True):
                whole = masking.expand(masked, ids, self.placeholders, example["id"])
                self._check_alone(example, prompt, decoded, whole.ids)
                yield from self._row(example, whole)

    def _read(self, batch: list[dict[str, Any]]) -> list[tuple[str, str, MaskedTokens]]:
        """(text, prompt, tokens and mask) of each row; many rows differ in their pictures only and are read once."""
        if not any(example["images"] for example in batch):
            return self._read_new(batch)
        keys = [_text_key(example) for example in batch]
        new = {key: example for key, example in zip(keys, batch, strict=True) if key not in self._masked}
        if self._tokens_kept > TOKENS_KEPT:
            self._masked = {key: self._masked[key] for key in keys if key in self._masked}
            self._tokens_kept = sum(len(masked.ids) for _, _, masked in self._masked.values())
        for key, made in zip(new, self._read_new(list(new.values())), strict=True):
            self._masked[key] = made
            self._tokens_kept += len(made[2].ids)
        return [self._masked[key] for key in keys]

    def _read_new(self, batch: list[dict[str, Any]]) -> list[tuple[str, str, MaskedTokens]]:
        if not batch:
            return []
        texts = rendering.rendered_rows(self.processor, batch, self.loss_on)
        rows = [(row["id"], text) for row, text in zip(batch, texts, strict=True)]
        masked = masking.mask_rows(self.tokenizer, rows, self.closing, self.token_bytes)
        for row, text, tokens in zip(batch, texts, masked, strict=True):
            if not turns.is_text(row):
                self.checks.check(row, text, tokens)
        return [
            (text.full, text.prompt, masking.closed(self.tokenizer, tokens) if turns.is_text(row) else tokens)
            for row, text, tokens in zip(batch, texts, masked, strict=True)
        ]

    def _row(self, example: dict[str, Any], whole: MaskedTokens) -> Iterator[dict[str, Any]]:
        counts, ids = self.counts, whole.ids
        ends: Sequence[int | None] = whole.ends
        counts.rows += 1
        counts.tokens[len(ids)] += 1
        bos = self.tokenizer.bos_token_id
        counts.double_bos += bos is not None and list(ids[:2]) == [bos, bos]
        if self.loss_on == "all":
            labels = array("i", [IGNORED if number in self.placeholders else number for number in ids])
        else:
            labels = whole.labels()
        if len(ids) > self.max_length and not self.splits_rows:
            counts.note("too_long", example["id"])
            if self.on_too_long == "drop":
                counts.note("dropped", example["id"])
                return
            ids, labels, ends = self._cut(example["id"], ids, labels, ends)
        if not learned(labels):
            counts.note("fully_masked", example["id"])
            return
        counts.keep(example["id"], ids, labels)
        closed = [end for end in ends if end is not None and 0 <= end < len(labels) and labels[end] != IGNORED]
        if len(closed) == len(ends):
            counts.ended += 1
        else:
            counts.note("without_end_of_turn", example["id"])
        counts.ends.update(labels[end] for end in closed)
        yield {"id": example["id"], "input_ids": ids, "labels": labels, "images": example["images"]}

    def _cut(
        self, identifier: str, ids: array, labels: array, ends: Sequence[int | None]
    ) -> tuple[array, array, list[int | None]]:
        """A row cut to max_length; counted apart where something that is learned is lost."""
        away = len(ids) - self.max_length
        lost = labels[:away] if self.side == "left" else labels[self.max_length :]
        gone = ids[:away] if self.side == "left" else ids[self.max_length :]
        if self.on_too_long == "truncate" and not self.placeholders.isdisjoint(gone):
            self.counts.note("picture_cut", identifier)
        if self.on_too_long == "truncate":
            self.counts.note("truncated", identifier)
            if learned(lost):
                self.counts.note("answer_truncated", identifier)
        if self.side == "left":
            return ids[away:], labels[away:], [None if end is None else end - away for end in ends]
        return ids[: self.max_length], labels[: self.max_length], list(ends)

    def _check_alone(self, example: dict[str, Any], prompt: str, images: list[Any], whole: array) -> None:
        """StageError unless evaluation, which renders the prompt alone, asks with the tokens that training saw.

        Looked at are the first rows, with their pictures; the texts of all rows are checked when they are read.
        """
        if self.counts.rows >= ROWS_CHECKED_ALONE or turns.is_text(example):
            return
        alone = self._encode([prompt], [images], [example])[0]
        if whole[: len(alone)] != array("i", alone):
            raise StageError(f"id {example['id']}: the prompt alone has other tokens than before its answer")

    def _decoded(self, example: dict[str, Any]) -> list[Any]:
        from sft.data.read import pictures

        if example["images"] and not rendering.takes_pictures(self.processor):
            raise StageError(
                f"id {example['id']} has a picture, but the model takes text only. Choose a model with a vision "
                f"tower, or leave the data set's image_keys empty"
            )
        try:
            return [pictures.decode(image) for image in example["images"]]
        except ValueError as error:
            raise StageError(f"id {example['id']}: {error}. Mend the picture in the source") from None

    def _encode(self, texts: list[str], images: list[list[Any]], batch: list[dict[str, Any]]) -> list[list[int]]:
        try:
            return rendering.encode(self.processor, texts, images)
        except ValueError as error:
            if len(batch) > 1:
                for text, of_row, row in zip(texts, images, batch, strict=True):
                    self._encode([text], [of_row], [row])
            raise StageError(
                f"id {batch[0]['id']}: the processor refuses the row ({error}). The model may not take such a picture: "
                f"leave the row out. Or the row has other placeholders than pictures: the chat template must write one "
                f"for each, and no row may hold it in its text"
            ) from error


def special_token_ids(processor: ProcessorMixin | PreTrainedTokenizerBase) -> dict[str, int | None]:
    """Ids of the tokens that training and generation depend on; None for one the tokenizer lacks."""
    from sft.models.loading import tokenizer_of

    tokenizer = tokenizer_of(processor)
    return {
        "pad": tokenizer.pad_token_id,
        "eos": tokenizer.eos_token_id,
        "bos": tokenizer.bos_token_id,
        "image": getattr(processor, "image_token_id", None),
    }


def _text_key(example: dict[str, Any]) -> tuple[Any, ...]:
    texts = (example[name] for name in ("system", "prompt", "completion"))
    return (*texts, example.get("messages"), example.get("tools"), len(example["images"]))


def _batched(rows: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    batch, size = [], 0
    for row in rows:
        batch.append(row)
        texts = (row[name] or "" for name in ("prompt", "completion"))
        size += sum(map(len, (*texts, row.get("messages") or "", *row["images"])))
        if len(batch) == ROWS_PER_BATCH or size >= BYTES_PER_BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
