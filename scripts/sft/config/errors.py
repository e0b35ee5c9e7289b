"""What is wrong with a configuration, said so that it can be mended: file, line, key, what is wrong, what to do."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ValidationError

if TYPE_CHECKING:
    from sft.config.strict_yaml import Document

KeyPath = tuple[str | int, ...]

# More problems than this are counted, not printed: the first ones usually explain the rest.
PRINTED = 20

_PLAIN_KEY = re.compile(r"\w[\w.-]{,79}|<<")


@dataclass(frozen=True)
class Problem:
    """One thing to mend. `key` is dotted (`experiments.digits.seeds[1]`), "" for the whole file; lines count from 1."""

    path: Path | str
    line: int | None
    key: str
    message: str
    fix: str = ""

    def __str__(self) -> str:
        place = f"{self.path}:{self.line}" if self.line else f"{self.path}"
        text = ": ".join(part for part in (place, self.key, self.message) if part)
        return f"{text}. {self.fix}" if self.fix else text


class ConfigError(Exception):
    """A configuration that cannot be used; `problems` says why, in the order of the file."""

    def __init__(self, problems: Sequence[Problem]):
        super().__init__(problems)
        self.problems = sorted(problems, key=lambda problem: (str(problem.path), problem.line or 0))

    def __str__(self) -> str:
        lines = [str(problem) for problem in self.problems[:PRINTED]]
        if len(self.problems) > PRINTED:
            lines.append(f"... and {len(self.problems) - PRINTED} more")
        return "\n".join(lines)


class FieldError(ValueError):
    """Raised in a validator of a section: which of its keys is wrong, how, and what to do.

    `key` is relative to the section, dotted; "" blames the section as a whole.
    """

    def __init__(self, key: str, message: str, fix: str = ""):
        super().__init__(message)
        self.key, self.message, self.fix = key, message, fix


def nearest(word: str, options: Iterable[str]) -> str | None:
    """The one of `options` that `word` was probably meant to be, or None where none is near."""
    folded = {_folded(option): option for option in reversed(list(options))}
    found = difflib.get_close_matches(_folded(word[:100]), folded, n=1, cutoff=0.6)
    return folded[found[0]] if found else None


def _folded(word: str) -> str:
    return word.lower().replace("-", "_")


def dotted(keys: Iterable[str | int]) -> str:
    """`("a", 0, "b")` as `a[0].b`; a key that is no plain word is quoted, a path deeper than 12 cut short."""
    keys = list(keys)
    text = ""
    for key in keys[:12]:
        if isinstance(key, int):
            text += f"[{key}]"
            continue
        word = key if _PLAIN_KEY.fullmatch(key) else json.dumps(key if len(key) <= 80 else f"{key[:77]}...")
        text += f".{word}" if text else word
    return text + ("..." if len(keys) > 12 else "")


def from_validation_error(
    error: ValidationError,
    documents: Document | Sequence[Document],
    prefix: KeyPath | Sequence[KeyPath],
    model: type[BaseModel],
) -> list[Problem]:
    """pydantic's complaints about data that was validated as `model`, as problems of the files it came from.

    `prefix`: the key path, in the files, of what was validated. Where it was put together from several places
    (an experiment and one of its variants), a list of key paths, the most specific first. Of several
    `documents` the later ones are read over the earlier.
    """
    from sft.config.wording import complaints  # it imports this module

    files = [documents] if hasattr(documents, "find") else list(documents)
    prefixes = list(prefix) if prefix and isinstance(prefix[0], tuple) else [tuple(prefix)]
    problems: list[Problem] = []
    for complaint in complaints(error, model):
        order = prefixes[::-1] if complaint.missing else prefixes
        document, path = _written(files, order, complaint.keys)
        fix = complaint.fix
        if complaint.quote:
            fix = f"Quote it: {json.dumps(document.text(path) or '...')}"
        problem = Problem(document.path, document.line(path), dotted(path), complaint.message, fix)
        if problem not in problems:
            problems.append(problem)
    return problems


def _written(files: Sequence[Document], prefixes: Sequence[KeyPath], keys: KeyPath) -> tuple[Document, KeyPath]:
    """The file and the key path, as written there, of the `keys` below one of `prefixes`."""
    best: tuple[int, Document, KeyPath] | None = None
    for prefix in prefixes:
        for document in reversed(files):
            _, done, rest = document.find((*prefix, *keys))
            missing = len(rest)
            if best is None or missing < best[0]:
                best = (missing, document, (*done, *rest))
    return best[1], best[2]
