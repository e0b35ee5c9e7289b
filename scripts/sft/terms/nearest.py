"""What a misspelled word was probably meant to be, for the messages of errors."""

import difflib
from collections.abc import Iterable


def nearest(word: str, options: Iterable[str]) -> str | None:
    """The one of `options` that `word` was probably meant to be, or None where none is near."""
    folded = {_folded(option): option for option in reversed(list(options))}
    found = difflib.get_close_matches(_folded(word[:100]), folded, n=1, cutoff=0.6)
    return folded[found[0]] if found else None


def _folded(word: str) -> str:
    return word.lower().replace("-", "_")
