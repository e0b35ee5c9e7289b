"""Which tokens of a rendered row the loss counts: spans of characters to a mask of tokens, checked token by token.

A boundary that falls inside a token is an error, never a guess: prompt and answer would share it, and the model
would be trained on another prompt than it is asked with.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from sft.data.tokens.label_counts import IGNORED
from sft.data.tokens.rendering import Rendered, Span, remedy
from sft.data.tokens.token_bytes import TokenBytes
from sft.runtime.stage import StageError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


# Characters; a text that is longer is within none.
LONGEST_CONTROL_TOKEN = 64


@dataclass(frozen=True)
class MaskedTokens:
    """Token ids of a rendered text, pictures not expanded, and which of them the loss counts.

    Ids are an array of C integers (32 bits), which pyarrow and numpy read without looking at each number.
    `answers`: (first, behind the last) token of each answer. `ends`: the place of the token that closes each answer;
    None for one that nothing closes.
    """

    ids: array
    answers: tuple[Span, ...]
    ends: tuple[int | None, ...]

    def labels(self) -> array:
        """The ids where the loss counts, -100 elsewhere."""
        made = array("i", [IGNORED]) * len(self.ids)
        for first, behind in self.answers:
            made[first:behind] = self.ids[first:behind]
        return made


def closing_ids(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """The tokens that may end a turn: all control tokens."""
    added = tokenizer.added_tokens_decoder.items()
    return set(tokenizer.all_special_ids) | {number for number, token in added if token.special}


def mask_rows(
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[tuple[str, Rendered]],
    closing: Collection[int],
    token_bytes: TokenBytes | None = None,
) -> list[MaskedTokens]:
    """The tokens of (id, rendered row) pairs, tokenised in one call. `closing`: ids of tokens that may end a turn.

    `token_bytes`: of a byte-level tokenizer. StageError for a row where an answer begins or ends inside a token.
    """
    masked = []
    texts = sorted({str(token) for token in tokenizer.added_tokens_decoder.values()}, key=len, reverse=True)
    added = re.compile("|".join(map(re.escape, texts))) if texts else None
    for (identifier, row), (ids, places) in zip(
        rows, _tokens(tokenizer, [row.full for _, row in rows], token_bytes), strict=True
    ):
        reader = _Reader(tokenizer, identifier, row.full, ids, places, added)
        answers = []
        for start, end in row.answers:
            first, behind = reader.tokens_before(start), reader.tokens_before(end)
            if first == behind:
                raise StageError(f"id {identifier}: an answer has no token of its own ({row.full[start:end]!r})")
            answers.append((first, behind))
        ends = tuple(
            reader.closing_place(place, span, content, closing)
            for place, span, content in zip(answers, row.answers, row.contents, strict=True)
        )
        masked.append(MaskedTokens(ids, tuple(answers), ends))
    return masked


def _tokens(
    tokenizer: PreTrainedTokenizerBase, texts: list[str], token_bytes: TokenBytes | None
) -> Iterator[tuple[array, Places | None]]:
    """The token ids of each text and where they are; None where a slow tokenizer does not say."""
    if token_bytes is not None:
        for text, ids in zip(texts, token_bytes.encode(texts), strict=True):
            places = token_bytes.places(ids, text)
            yield next(_tokens(tokenizer, [text], None)) if places is None else (places.ids, places)
        return
    made = tokenizer(text=texts, add_special_tokens=False, verbose=False, return_attention_mask=False)
    for number, ids in enumerate(made["input_ids"]):
        yield array("i", ids), _Told(made[number]) if tokenizer.is_fast else None


class Places(Protocol):
    """Where the tokens of a text are."""

    def starting_at(self, character: int) -> int | None:
        """The token that begins with this character, where the one before it ends there."""

    def holding(self, character: int) -> int | None:
        """The first token that has a part of this character."""


class _Told:
    """What a fast tokenizer says of its tokens."""

    def __init__(self, encoding: Any):
        self._encoding = encoding

    def starting_at(self, character: int) -> int | None:
        number = self._encoding.char_to_token(character)
        # Some tokenizers leave the space before a word out of its characters: then neighbours do not meet here.
        chars = self._encoding.token_to_chars
        return number if number and chars(number)[0] == chars(number - 1)[1] == character else None

    def holding(self, character: int) -> int | None:
        return self._encoding.char_to_token(character)


def closed(tokenizer: PreTrainedTokenizerBase, text: MaskedTokens) -> MaskedTokens:
    """Text without roles with what the tokenizer puts around a text, and its end of text; all of it is learned."""
    bare = tokenizer(text="a", add_special_tokens=False)["input_ids"]
    whole = tokenizer(text="a")["input_ids"]
    place = next(i for i in range(len(whole)) if whole[i : i + len(bare)] == bare)
    before, after = whole[:place], whole[place + len(bare) :]
    eos = tokenizer.eos_token_id
    if eos is not None and eos not in after:
        after = [*after, eos]
    ids = array("i", [*before, *text.ids, *after])
    end = len(before) + len(text.ids) + after.index(eos) if eos in after else None
    return MaskedTokens(ids, ((0, len(ids)),), (end,))


def expand(masked: MaskedTokens, ids: Sequence[int], placeholders: Collection[int], identifier: str) -> MaskedTokens:
    """The same row with its pictures expanded by the processor to `ids`: a run of placeholders stands for a run.

    StageError where the processor writes other tokens than its tokenizer outside of the pictures.
    """
    if len(masked.ids) == len(ids):
        if masked.ids != array("i", ids):
            raise _read_differently(identifier)
        return masked
    # Where each token of the text goes; the token behind the last one goes to the end.
    moved: list[int] = []
    place = 0
    for number, token in enumerate(masked.ids):
        moved.append(place)
        if token in placeholders:
            if number and masked.ids[number - 1] == token:
                continue
            run = place
            while place < len(ids) and ids[place] == token:
                place += 1
            if place == run:
                raise _read_differently(identifier)
        else:
            if place == len(ids) or ids[place] != token:
                raise _read_differently(identifier)
            place += 1
    if place != len(ids):
        raise _read_differently(identifier)
    moved.append(place)
    answers = tuple((moved[first], moved[behind]) for first, behind in masked.answers)
    return MaskedTokens(array("i", ids), answers, tuple(None if end is None else moved[end] for end in masked.ends))


class _Reader:
    """Finds tokens of one text by its characters. `places`: where they are, if known. `added`: control tokens."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        identifier: str,
        full: str,
        ids: array,
        places: Places | None,
        added: re.Pattern[str] | None,
    ):
        self.tokenizer, self.identifier, self.full = tokenizer, identifier, full
        self.ids, self.places, self.added = ids, places, added

    def _last(self, content: str, span: Span) -> int:
        """Where what is said last stands in a span, but not within a control token: `d` is no part of `<|im_end|>`."""
        if not content:
            return -1
        short = len(content) <= LONGEST_CONTROL_TOKEN
        marks = [found.span() for found in self.added.finditer(self.full, *span)] if self.added and short else []
        found = self.full.rfind(content, *span)
        while found >= 0 and any(start <= found and found + len(content) <= end for start, end in marks):
            found = self.full.rfind(content, span[0], found + len(content) - 1)
        return found

    def tokens_before(self, at: int) -> int:
        """How many tokens stand before the character `at`; StageError where one stands across it."""
        if at == 0:
            return 0
        if at == len(self.full):
            return len(self.ids)
        number = self.places.starting_at(at) if self.places is not None else None
        if number is not None:
            return number
        before = self.tokenizer(text=self.full[:at], add_special_tokens=False)["input_ids"]
        if self.ids[: len(before)] != array("i", before):
            raise StageError(
                f"id {self.identifier}: prompt and answer share a token (…{self.full[max(0, at - 20) : at + 20]!r}…), "
                f"so the model would be asked with another prompt than it was trained with. {remedy(self.full[:at])}"
            )
        return len(before)

    def closing_place(self, place: Span, span: Span, content: str, closing: Collection[int]) -> int | None:
        """The place of the token that closes an answer: the first closing one behind what the answer itself says."""
        first, behind = place
        content = content.strip()
        found = self._last(content, span)
        if found < 0:
            # A template may write the answer otherwise (a tool call in its own words): the last closing token counts.
            return next((number for number in range(behind - 1, first - 1, -1) if self.ids[number] in closing), None)
        end, begin = found + len(content), None
        if self.places is not None and end < span[1]:
            begin = self.places.holding(end)
        if begin is None:
            begin = first + len(self.tokenizer(text=self.full[span[0] : end], add_special_tokens=False)["input_ids"])
        return next((number for number in range(begin, behind) if self.ids[number] in closing), None)


def _read_differently(identifier: str) -> StageError:
    return StageError(f"id {identifier}: the processor and its tokenizer read the text around the pictures differently")
