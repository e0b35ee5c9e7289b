"""Which tokens of a rendered row the loss counts: spans of characters to a mask of tokens, checked token by token.

A boundary that falls inside a token is an error, never a guess: prompt and answer would share it, and the model
would be trained on another prompt than it is asked with.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sft.data.rendering import Rendered, Span
from sft.stage import StageError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Offsets = Sequence[Span]


@dataclass(frozen=True)
class MaskedTokens:
    """Token ids of a rendered text, pictures not expanded; for each, whether the loss counts it (`learned`).

    `ends`: the place of the token that closes each answer; None for an answer that nothing closes.
    """

    ids: list[int]
    learned: list[bool]
    ends: tuple[int | None, ...]


def mask_rows(
    tokenizer: PreTrainedTokenizerBase, rows: Sequence[tuple[str, Rendered]], closing: Collection[int]
) -> list[MaskedTokens]:
    """The tokens of (id, rendered row) pairs, tokenised in one call. `closing`: ids of tokens that may end a turn.

    StageError for a row where an answer begins or ends inside a token.
    """
    fast = tokenizer.is_fast
    made = tokenizer(
        text=[row.full for _, row in rows], add_special_tokens=False, return_offsets_mapping=fast, verbose=False
    )
    masked = []
    for number, (identifier, row) in enumerate(rows):
        ids = made["input_ids"][number]
        offsets = made["offset_mapping"][number] if fast else None
        places = []
        for start, end in row.answers:
            first = _boundary(tokenizer, identifier, row.full, start, ids, offsets)
            last = len(ids) if end == len(row.full) else _boundary(tokenizer, identifier, row.full, end, ids, offsets)
            if first == last:
                raise StageError(f"id {identifier}: an answer has no token of its own ({row.full[start:end]!r})")
            places.append((first, last))
        learned = [False] * len(ids)
        for first, last in places:
            learned[first:last] = [True] * (last - first)
        ends = tuple(
            _closing_place(tokenizer, ids, offsets, place, row.full, span, content, closing)
            for place, span, content in zip(places, row.answers, row.contents, strict=True)
        )
        masked.append(MaskedTokens(list(ids), learned, ends))
    return masked


def closed(tokenizer: PreTrainedTokenizerBase, text: MaskedTokens) -> MaskedTokens:
    """Text without roles with what the tokenizer puts around a text, and its end of text; all of it is learned."""
    bare = tokenizer(text="a", add_special_tokens=False)["input_ids"]
    whole = tokenizer(text="a")["input_ids"]
    place = next(i for i in range(len(whole)) if whole[i : i + len(bare)] == bare)
    before, after = whole[:place], whole[place + len(bare) :]
    eos = tokenizer.eos_token_id
    if eos is not None and eos not in after:
        after = [*after, eos]
    ids = [*before, *text.ids, *after]
    end = len(before) + len(text.ids) + after.index(eos) if eos in after else None
    return MaskedTokens(ids, [True] * len(ids), (end,))


def expand(masked: MaskedTokens, ids: Sequence[int], placeholders: Collection[int], identifier: str) -> MaskedTokens:
    """The same row with its pictures expanded by the processor to `ids`: a run of placeholders stands for a run.

    StageError where the processor writes other tokens than its tokenizer outside of the pictures.
    """
    if len(masked.ids) == len(ids):
        if masked.ids != list(ids):
            raise _read_differently(identifier)
        return masked
    learned: list[bool] = []
    moved: dict[int, int] = {}
    place = 0
    for number, token in enumerate(masked.ids):
        if token in placeholders:
            if number and masked.ids[number - 1] == token:
                continue
            run = place
            while place < len(ids) and ids[place] == token:
                place += 1
            if place == run:
                raise _read_differently(identifier)
            learned += [masked.learned[number]] * (place - run)
        else:
            if place == len(ids) or ids[place] != token:
                raise _read_differently(identifier)
            learned.append(masked.learned[number])
            moved[number] = place
            place += 1
    if place != len(ids):
        raise _read_differently(identifier)
    ends = tuple(None if end is None else moved[end] for end in masked.ends)
    return MaskedTokens(list(ids), learned, ends)


def _boundary(
    tokenizer: PreTrainedTokenizerBase,
    identifier: str,
    full: str,
    at: int,
    ids: Sequence[int],
    offsets: Offsets | None,
) -> int:
    """How many tokens stand before the character `at`."""
    if at == 0:
        return 0
    if offsets is not None:
        number = _count_before(offsets, at)
        # Some tokenizers leave the space before a word out of its offsets: then the neighbours do not meet here.
        if offsets[number - 1][1] == at and (number == len(ids) or offsets[number][0] >= at):
            return number
    before = tokenizer(text=full[:at], add_special_tokens=False)["input_ids"]
    if list(ids[: len(before)]) != list(before):
        raise StageError(
            f"id {identifier}: prompt and answer share a token (…{full[max(0, at - 20) : at + 20]!r}…). The template "
            f"must end the prompt with something that no answer can join, such as a newline"
        )
    return len(before)


def _count_before(offsets: Offsets, at: int) -> int:
    """How many tokens begin before the character `at`; offsets ascend, so this is a binary search."""
    low, high = 0, len(offsets)
    while low < high:
        middle = (low + high) // 2
        if offsets[middle][0] < at:
            low = middle + 1
        else:
            high = middle
    return low


def _closing_place(
    tokenizer: PreTrainedTokenizerBase,
    ids: Sequence[int],
    offsets: Offsets | None,
    place: Span,
    full: str,
    span: Span,
    content: str,
    closing: Collection[int],
) -> int | None:
    """The place of the token that closes an answer: the first closing one behind what the answer itself says."""
    first, last = place
    begin = first
    found = full.find(content.strip(), span[0], span[1])
    if found >= 0 and offsets is not None:
        behind = found + len(content.strip())
        begin = next((number for number in range(first, last) if offsets[number][0] >= behind), last)
    elif found >= 0:
        begin += len(
            tokenizer(text=full[span[0] : found + len(content.strip())], add_special_tokens=False)["input_ids"]
        )
    for number in range(begin, last):
        if ids[number] in closing:
            return number
    if found >= 0:
        return None
    # A template may write the answer otherwise (a tool call in its own words); then the last closing token counts.
    return next((number for number in range(last - 1, first - 1, -1) if ids[number] in closing), None)


def _read_differently(identifier: str) -> StageError:
    return StageError(f"id {identifier}: the processor and its tokenizer read the text around the pictures differently")
