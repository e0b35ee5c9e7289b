"""Which bytes of a text each token stands for, from the tokens alone: for tokenizers whose tokens are pieces of bytes.

Byte-level tokenizers (GPT-2's alphabet, as Llama 3, Qwen and SmolLM have it) can be asked for token ids without the
places of the tokens, which is a quarter faster. That a row's tokens are its text, piece by piece, is proven for each
row; where it does not hold (a text that was normalised first), and for all other tokenizers, the tokenizer says where
its tokens are.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class TokenBytes:
    """The bytes of every token of a byte-level tokenizer."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        byte_of = _alphabet()
        added = tokenizer.added_tokens_decoder
        self._backend = tokenizer.backend_tokenizer
        self._bytes = [b""] * (max(tokenizer.get_vocab().values()) + 1)
        for token, number in tokenizer.get_vocab().items():
            if number in added:
                self._bytes[number] = str(added[number]).encode()
            elif all(character in byte_of for character in token):
                self._bytes[number] = bytes(byte_of[character] for character in token)
        self._lengths = np.array([len(piece) for piece in self._bytes])

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of texts, no special tokens added, as the tokenizer itself gives them."""
        return [made.ids for made in self._backend.encode_batch_fast(list(texts), add_special_tokens=False)]

    def places(self, ids: Sequence[int], text: str) -> TokenPlaces | None:
        """Where each token is in `text`; None where the tokens are not the text piece by piece."""
        if b"".join(map(self._bytes.__getitem__, ids)) != text.encode():
            return None
        # By way of array: numpy takes three times as long to read a list.
        numbers = array("i", ids)
        return TokenPlaces(text, numbers, self._lengths[np.frombuffer(numbers, np.intc)].cumsum())


class TokenPlaces:
    """`ids`: the tokens; `ends`: the byte behind each of them."""

    def __init__(self, text: str, ids: array, ends: np.ndarray):
        self.ids = ids
        self._text, self._ends = text, ends
        self._ascii = text.isascii()

    def starting_at(self, character: int) -> int | None:
        """The token that begins with this character; None where a token stands across its beginning."""
        at = self._byte(character)
        number = int(self._ends.searchsorted(at))
        return number + 1 if self._ends[number] == at else None

    def holding(self, character: int) -> int:
        """The first token that has a part of this character."""
        return int(self._ends.searchsorted(self._byte(character), "right"))

    def _byte(self, character: int) -> int:
        return character if self._ascii else len(self._text[:character].encode())


def token_bytes_of(tokenizer: PreTrainedTokenizerBase) -> TokenBytes | None:
    """The bytes of a tokenizer's tokens; None for one that is not byte-level."""
    if not tokenizer.is_fast:
        return None
    decoder = json.loads(tokenizer.backend_tokenizer.to_str())["decoder"] or {}
    kinds = [decoder.get("type"), *(part.get("type") for part in decoder.get("decoders", ()))]
    return TokenBytes(tokenizer) if kinds[0] == "ByteLevel" or kinds == ["Sequence", "ByteLevel"] else None


def _alphabet() -> dict[str, int]:
    """Which byte a character of GPT-2's byte alphabet stands for: printable ones for themselves, the rest from 256."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    moved = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + place): byte for place, byte in enumerate(moved)}
