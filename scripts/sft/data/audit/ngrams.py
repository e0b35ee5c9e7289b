"""Runs of words that two texts share: 64-bit hashes of every run of n words, exactly counted, nothing sampled.

Words are runs of letters and digits after NFKC and case folding; a character of a script that is written without
spaces (Chinese, Japanese, Thai, Lao, Khmer, Burmese) is a word of its own. Words, not a tokenizer's pieces, and 13 of
them by default: as in the contamination studies since GPT-3 (Brown et al. 2020, arXiv:2005.14165, appendix C).
"""

import hashlib
import re
import unicodedata
from collections.abc import Sequence

import numpy as np

WITHOUT_SPACES = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_WORD = re.compile(rf"[{WITHOUT_SPACES}]|[^\W_{WITHOUT_SPACES}]+")
_ASCII = {code: " " for code in range(128) if not chr(code).isalnum()}
_FACTOR = np.uint64(0x9E3779B97F4A7C15)  # odd, from the golden ratio
# Words met are remembered by their hashes, up to so many: texts of numbers and codes have no end of them.
_REMEMBERED = 1_000_000


class _Hashes(dict):
    def __missing__(self, word: str) -> int:
        if len(self) >= _REMEMBERED:
            self.clear()
        encoded = word.encode("utf-8", "surrogatepass")
        self[word] = found = int.from_bytes(hashlib.blake2b(encoded, digest_size=8).digest(), "little")
        return found


_HASHES = _Hashes()


def words(text: str) -> list[str]:
    """The words of a text, folded."""
    if text.isascii():
        return text.lower().translate(_ASCII).split()
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def ngrams(texts: Sequence[str], size: int) -> tuple[np.ndarray, np.ndarray]:
    """(hashes, place of the text in `texts`) of every run of `size` words, uint64 and int64, in order."""
    hashes = [np.fromiter(map(_HASHES.__getitem__, found), np.uint64, len(found)) for found in map(words, texts)]
    lengths = np.array([len(one) for one in hashes], np.int64)
    every = np.concatenate([*hashes, np.zeros(0, np.uint64)])
    place: np.ndarray = np.repeat(np.arange(len(texts)), lengths)
    runs = len(every) - size + 1
    if runs <= 0:
        return np.zeros(0, np.uint64), np.zeros(0, np.int64)
    rolled: np.ndarray = np.zeros(runs, np.uint64)
    for step in range(size):
        rolled *= _FACTOR
        rolled += every[step : step + runs]
    rolled ^= rolled >> np.uint64(32)  # the high bits, which an index looks at first, depend on all words
    rolled *= _FACTOR
    inside = place[:runs] == place[size - 1 :]
    return rolled[inside], place[:runs][inside]


def shared_spans(text: str, other: str, size: int) -> list[tuple[int, int]]:
    """(start, end) of the parts of `text` that are made of runs of `size` words which `other` has too.

    Spans of the text as it is written: each word is looked for where the one before it ended.
    """
    here, there = _placed(text), words(other)
    known = {tuple(there[i : i + size]) for i in range(len(there) - size + 1)}
    spans: list[tuple[int, int]] = []
    for i in range(len(here) - size + 1):
        if tuple(word for word, _, _ in here[i : i + size]) in known:
            start, end = here[i][1], here[i + size - 1][2]
            if spans and start <= spans[-1][1]:
                spans[-1] = (spans[-1][0], end)
            else:
                spans.append((start, end))
    return spans


def _placed(text: str) -> list[tuple[str, int, int]]:
    """The words of a text with where they stand in it; folding changes lengths, so words are cut first."""
    return [(part, found.start(), found.end()) for found in _WORD.finditer(text) for part in words(found[0])]
