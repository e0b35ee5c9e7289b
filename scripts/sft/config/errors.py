"""What is wrong with a configuration, said so that it can be mended: file, line, key, what is wrong, what to do."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sft.terms.nearest import nearest

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

    def __str__(self) -> str:
        text = f"{self.key}: {self.message}" if self.key else self.message
        return f"{text}. {self.fix}" if self.fix else text


class SeveralFieldsError(ValueError):
    """What is wrong with several keys of a section, told together."""

    def __init__(self, faults: Iterable[FieldError]):
        self.faults = list(faults)
        super().__init__("; ".join(map(str, self.faults)))


def refuse(refusals: Iterable[tuple[str, str, str]]) -> None:
    """SeveralFieldsError with all of `(key, what is wrong, what to do)`, where there are any."""
    if faults := [FieldError(*refusal) for refusal in refusals]:
        raise SeveralFieldsError(faults)


def did_you_mean(word: str, options: Iterable[str]) -> str:
    """` (did you mean …?)` with the nearest option; empty where none is near."""
    near = nearest(word, options)
    return f" (did you mean {near}?)" if near else ""


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
