"""Multiple-choice rows: reading choices and answers strictly, rendering the question and the target.

Every reading either is certain or is a ValueError that says why. Guessing here would be scored as knowledge or
as ignorance of the model: a loader that maps an unknown letter to the first choice (as RLinf's Robo2VLM
loader does) reports an accuracy of something else.
"""

import ast
import json
import math
from collections.abc import Sequence
from typing import Any

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def parse_choices(value: Any) -> list[str]:
    """The choice texts of a cell: a list, or the text of a Python or JSON list such as "['0', '1']"."""
    parsed = _list_of(value.strip()) if isinstance(value, str) else value
    if not isinstance(parsed, (list, tuple)):
        raise ValueError(f"choices {_short(value)} are a {type(parsed).__name__}, not a list")
    for item in parsed:
        if not isinstance(item, (str, int, float)):
            raise ValueError(f"choice {item!r} is a {type(item).__name__}, not text or a number")
    choices = [str(item).strip() for item in parsed]
    if len(choices) < 2:
        # "['a' 'b']", the text of a numpy array, is Python for one text 'ab' and ends here as well.
        raise ValueError(f"choices {_short(value)} are {len(choices)}; at least 2 are needed")
    if len(choices) > len(LETTERS):
        raise ValueError(f"{len(choices)} choices; letters go to {len(LETTERS)}")
    if "" in choices:
        raise ValueError(f"choice {LETTERS[choices.index('')]} is empty")
    return choices


def _list_of(text: str) -> Any:
    """The list that a text is by JSON's rules, where it is JSON, and by Python's otherwise.

    They differ in what a backslash means: "\\/" is a slash in JSON, and a pair of surrogates one character.
    """
    try:
        # Numbers as they are written: 1.10 is another choice than 1.1.
        found = json.loads(text, parse_float=str)
    except (ValueError, RecursionError):
        try:
            return ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            raise ValueError(f"choices {_short(text)} are not the text of a list such as \"['yes', 'no']\"") from None
    if isinstance(found, list) and any(isinstance(item, bool) for item in found):
        raise ValueError(f'choices {_short(text)}: true and false are no texts. Write "true" and "false"')
    return found


def answer_kind(value: Any, choices: Sequence[str]) -> str:
    """How an answer that `parse_answer` takes was given: as "a letter", "an index" or "a text"."""
    if not isinstance(value, str):
        return "an index"
    text = value.strip()
    if text in choices:
        return "a text"
    return "an index" if text.isdecimal() else "a letter"


def parse_answer(value: Any, choices: Sequence[str]) -> str:
    """The letter of the right choice, from a letter, a 0-based index or the choice's text.

    A number is an index. A text is read as a letter, as a choice and, when it is digits, as an index; the
    readings that are possible must agree ("2" among the choices ['2', '4', '8'] is choice A or choice C: error).
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError(f"answer {value!r} is a {type(value).__name__}, not a letter, an index or a choice")
    if isinstance(value, (int, float)):
        if not math.isfinite(value) or value != int(value) or not 0 <= value < len(choices):
            raise ValueError(f"answer {value} is not an index 0 to {len(choices) - 1} of the {len(choices)} choices")
        return LETTERS[int(value)]
    text = value.strip()
    readings: dict[str, str] = {}
    for position, choice in enumerate(choices):
        if text == choice:
            readings[LETTERS[position]] = "its text"
    if len(text) == 1 and text.upper() in LETTERS[: len(choices)]:
        readings[text.upper()] = "its letter"
    if text.isdecimal() and int(text) < len(choices):
        readings[LETTERS[int(text)]] = "its index"
    if not readings:
        raise ValueError(
            f"answer {_short(value)} is no letter A to {LETTERS[len(choices) - 1]}, no index and no choice"
        )
    if len(readings) > 1:
        named = " or ".join(f"choice {letter} by {how}" for letter, how in sorted(readings.items()))
        raise ValueError(f"answer {_short(value)} can be {named}. Give the answers as letters")
    return next(iter(readings))


def labelled_answer(value: Any, labels: Any, choices: Sequence[str]) -> str:
    """The letter of the right choice where rows label their own: `value` is one of `labels`; ValueError otherwise."""
    names = parse_choices(labels)
    if len(names) != len(choices) or len(set(names)) != len(names):
        raise ValueError(f"labels {_short(names)} are not one for each of the {len(choices)} choices")
    if str(value).strip() not in names:
        raise ValueError(f"answer {_short(value)} is none of the labels {', '.join(names)}")
    return LETTERS[names.index(str(value).strip())]


def render_question(question: str, choices: Sequence[str], layout: str) -> str:
    """The user turn. "inline": "Q\\nA yes B no"; "lines": "Q\\nChoices:\\nA. yes\\nB. no\\n" (RLinf's form).

    "none": the question alone.
    """
    if layout == "none":
        return question
    if layout == "inline":
        return f"{question}\n" + " ".join(f"{letter} {text}" for letter, text in zip(LETTERS, choices, strict=False))
    if layout == "lines":
        lines = "".join(f"{letter}. {text}\n" for letter, text in zip(LETTERS, choices, strict=False))
        return f"{question}\nChoices:\n{lines}"
    raise ValueError(f"choices_layout {layout!r} is none of inline, lines and none")


def render_target(letter: str, choices: Sequence[str], target: str) -> str:
    """The assistant turn: "H" for target "letter", "H. 7" for "letter_and_text", "7" for "text"."""
    if target == "letter":
        return letter
    if target == "letter_and_text":
        return f"{letter}. {choices[LETTERS.index(letter)]}"
    if target == "text":
        return choices[LETTERS.index(letter)]
    raise ValueError(f"target {target!r} is none of letter, letter_and_text and text")


def answers_by_text(completion: str, answer: str, choices: Sequence[str]) -> bool:
    """Whether a target is the choice's text alone, so that an answer names the choice and not its letter."""
    return bool(choices) and completion == choices[LETTERS.index(answer)]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
