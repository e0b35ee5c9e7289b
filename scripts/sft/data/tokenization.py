"""Examples to token ids and labels, and the audit of what is learnt.

A row is tokenised as its whole text, pictures expanded by the processor; the labels are those ids where the loss
counts and -100 elsewhere. With loss_on "completion" that is the completion with what the template puts behind it
(`<|im_end|>` and a newline in ChatML), which is what TRL masks for conversational prompt-completion rows; with
"all" it is everything but the picture tokens, whose ids are placeholders that say nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sft.data import rendering
from sft.stage import StageError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, ProcessorMixin

IGNORED = -100
ROWS_PER_BATCH = 64
ROWS_SHOWN = 3
TURNS_KEPT = 10_000
# So many rows have their prompt tokenised alone, with its pictures, as evaluation will do it.
ROWS_CHECKED_ALONE = 3
ON_TOO_LONG = ("error", "drop", "truncate")


@dataclass(frozen=True)
class Turn:
    """An example's text, rendered and read once: many examples differ in their pictures only."""

    prompt: str
    full: str
    completion: list[int]  # the token ids that follow the prompt
    end: int | None  # the place of the closing token in `completion`
    special: bool  # whether the example's own text holds a special token


class Tokenization:
    """Tokenises one split row by row and counts what becomes of the rows."""

    def __init__(self, processor: ProcessorMixin | PreTrainedTokenizerBase, config: dict[str, Any], split: str):
        from sft.models.loading import tokenizer_of

        self.processor = processor
        self.tokenizer = tokenizer_of(processor)
        self.split = split
        self.max_length: int = config["max_length"]
        self.on_too_long: str = config["on_too_long"]
        self.loss_on: str = config["loss_on"]
        if self.on_too_long not in ON_TOO_LONG or self.loss_on not in ("completion", "all"):
            raise StageError(f"on_too_long {self.on_too_long!r}, loss_on {self.loss_on!r}: unknown")
        self.placeholders = {
            number
            for name in ("image_token_id", "video_token_id")
            if (number := getattr(processor, name, None)) is not None
        }
        self.special = {str(token) for token in self.tokenizer.all_special_tokens}
        self.special_ids = set(self.tokenizer.all_special_ids) | set(self.tokenizer.added_tokens_decoder)
        self.rows = 0
        self.kept = 0
        self.lengths: Counter[int] = Counter()
        self.supervised: Counter[int] = Counter()
        self.ended = 0
        self.ends: Counter[int] = Counter()
        self.too_long: list[str] = []
        self.masked: list[str] = []
        self.with_special: list[str] = []
        self.shown: list[dict[str, Any]] = []
        self._turns: dict[tuple[Any, ...], Turn] = {}

    def tokenise(self, examples: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Rows {"id", "input_ids", "labels", "images"} in order; too long ones as the policy says."""
        for batch in _batched(examples, ROWS_PER_BATCH):
            yield from self._batch(batch)
        if self.too_long and self.on_too_long == "error":
            raise StageError(
                f"{self.split}: {len(self.too_long)} of {self.rows} rows are longer than max_length {self.max_length} "
                f"(the longest has {max(self.lengths)} tokens; ids {_some(self.too_long)}). Raise "
                f"training.max_length, or set training.on_too_long to drop or truncate"
            )
        if self.masked:
            raise StageError(
                f"{self.split}: {len(self.masked)} rows have no token to learn (ids {_some(self.masked)}): "
                f"max_length {self.max_length} cuts their whole answer. Raise training.max_length, or set "
                f"training.on_too_long to drop"
            )
        if self.rows and not self.kept:
            raise StageError(f"{self.split}: every row is longer than max_length {self.max_length} and was dropped")
        if self.kept and self.ended < 0.99 * self.kept:
            raise StageError(
                f"{self.split}: the end of the turn is learnt in {self.ended} of {self.kept} rows only (99 % are "
                f"needed), so the model would not learn to stop. Raise training.max_length, or give a chat template "
                f"that closes the assistant's turn with a special token"
            )

    def audit(self) -> dict[str, Any]:
        """What became of the rows, as JSON (one split of labels.json)."""
        return {
            "rows": self.rows,
            "rows_kept": self.kept,
            "rows_too_long": len(self.too_long),
            "rows_dropped": len(self.too_long) if self.on_too_long == "drop" else 0,
            "rows_truncated": len(self.too_long) if self.on_too_long == "truncate" else 0,
            "ids_too_long": self.too_long[:20],
            "rows_fully_masked": len(self.masked),
            "rows_with_special_tokens_in_their_text": len(self.with_special),
            "ids_with_special_tokens_in_their_text": self.with_special[:20],
            "tokens_per_row": {str(length): rows for length, rows in sorted(self.lengths.items())},
            "supervised_tokens_per_row": {str(n): rows for n, rows in sorted(self.supervised.items())},
            "end_of_turn_supervised": self.ended / self.kept if self.kept else None,
            "end_of_turn_ids": {str(number): rows for number, rows in self.ends.most_common()},
            "shown": self.shown,
        }

    def _batch(self, batch: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        turns = [self._turn(example) for example in batch]
        images = [self._decoded(example) for example in batch]
        encoded = self._encode([turn.full for turn in turns], images, batch)
        for i, (example, turn, ids) in enumerate(zip(batch, turns, encoded, strict=True)):
            prompt = ids[: -len(turn.completion)]
            if ids[len(prompt) :] != turn.completion:
                raise StageError(f"id {example['id']}: the processor and its tokenizer read the completion differently")
            if self.rows < ROWS_CHECKED_ALONE and self._encode([turn.prompt], [images[i]], [example])[0] != prompt:
                raise StageError(f"id {example['id']}: the prompt alone has other tokens than before its answer")
            yield from self._row(example, ids, turn)

    def _turn(self, example: dict[str, Any]) -> Turn:
        key = (example["system"], example["prompt"], example["completion"], len(example["images"]))
        if key not in self._turns:
            if len(self._turns) >= TURNS_KEPT:
                self._turns.clear()
            self._turns[key] = self._read_turn(example)
        return self._turns[key]

    def _read_turn(self, example: dict[str, Any]) -> Turn:
        """The completion's tokens are what the whole text has more than the prompt.

        Both are compared without expanding pictures: those stand in the prompt, and only the image processor,
        which is slow, can count their tokens.
        """
        prompt, full = rendering.texts(self.processor, example)
        before, whole = (self.tokenizer(text=text, add_special_tokens=False)["input_ids"] for text in (prompt, full))
        completion = whole[len(before) :]
        if whole[: len(before)] != before or not completion:
            raise StageError(
                f"id {example['id']}: prompt and answer share a token ({full[-40:]!r}). The template must end the "
                f"prompt with something that no answer can join, such as a newline"
            )
        own = example["prompt"] + example["completion"] + (example["system"] or "")
        special = any(token in own for token in self.special)
        return Turn(prompt, full, completion, self._end_of_turn(example["completion"], completion), special)

    def _row(self, example: dict[str, Any], ids: list[int], turn: Turn) -> Iterator[dict[str, Any]]:
        self.rows += 1
        self.lengths[len(ids)] += 1
        if turn.special:
            self.with_special.append(example["id"])
        prompt = len(ids) - len(turn.completion)
        if self.loss_on == "all":
            labels = [IGNORED if number in self.placeholders else number for number in ids]
        else:
            labels = [IGNORED] * prompt + turn.completion
        if len(ids) > self.max_length:
            self.too_long.append(example["id"])
            if self.on_too_long == "drop":
                return
            if prompt >= self.max_length:
                self.masked.append(example["id"])
                return
            ids, labels = ids[: self.max_length], labels[: self.max_length]
        self.kept += 1
        self.supervised[sum(label != IGNORED for label in labels)] += 1
        if turn.end is not None and prompt + turn.end < len(labels):
            self.ended += 1
            self.ends[labels[prompt + turn.end]] += 1
        if len(self.shown) < ROWS_SHOWN:
            self.shown.append({"id": example["id"], "tokens": len(ids), "segments": self._segments(ids, labels)})
        yield {"id": example["id"], "input_ids": ids, "labels": labels, "images": example["images"]}

    def _end_of_turn(self, text: str, completion: list[int]) -> int | None:
        """The place of the token that closes the turn: the first special one behind the completion's own text."""
        own = len(self.tokenizer(text=text, add_special_tokens=False)["input_ids"])
        # Where the template trims the text it has fewer tokens than counted; then the last special token closes.
        places = [*range(own, len(completion)), *range(min(own, len(completion)) - 1, -1, -1)]
        return next((place for place in places if completion[place] in self.special_ids), None)

    def _decoded(self, example: dict[str, Any]) -> list[Any]:
        from sft.data import pictures

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
            raise StageError(
                f"ids {batch[0]['id']} to {batch[-1]['id']}: the processor refuses the rows ({error}). The chat "
                f"template must write one placeholder for each picture, and no row may hold it in its text"
            ) from error

    def _segments(self, ids: list[int], labels: list[int]) -> list[dict[str, Any]]:
        """The row as text, cut where the mask changes."""
        segments: list[tuple[bool, list[int]]] = []
        for number, label in zip(ids, labels, strict=True):
            learnt = label != IGNORED
            if not segments or segments[-1][0] != learnt:
                segments.append((learnt, []))
            segments[-1][1].append(number)
        return [
            {"supervised": learnt, "text": self.tokenizer.decode(part, skip_special_tokens=False)}
            for learnt, part in segments
        ]


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


def _batched(rows: Iterable[dict[str, Any]], size: int) -> Iterator[list[dict[str, Any]]]:
    batch = []
    for row in rows:
        batch.append(row)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _some(ids: list[str]) -> str:
    return ", ".join(ids[:5]) + (", …" if len(ids) > 5 else "")
