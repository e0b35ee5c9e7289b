"""What a bare (unquoted) YAML scalar means, where the two YAML versions agree, and an error where they do not.

Numbers, true/false and null follow the core schema of YAML 1.2.2 (section 10.3.2), so that `2e-5` is a number.
PyYAML and Snakemake read YAML 1.1, where `NO` is false, `010` is 8 and `12:30:45` is 45045: whoever writes one of
these is asked what is meant instead of being given either meaning.
"""

import json
import math
import re

# Integers beyond this are not exact in JSON's numbers (RFC 8259, section 6).
LARGEST_INTEGER = 2**53

_CONSTANTS = {"": None, "~": None, "null": None, "true": True, "True": True, "false": False, "False": False}
_TRUE_WORDS = {"yes", "on", "y", "true"}
_FALSE_WORDS = {"no", "off", "n", "false"}

_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*)|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_LEADING_ZERO = re.compile(r"[-+]?0[0-9]+")
# What YAML 1.1 reads as numbers and 1.2 as text (https://yaml.org/type/int.html and float.html).
_OLD_BASE = re.compile(r"[-+]?0b[01_]+|[-+]?0x[0-9a-fA-F_]+")
_OLD_SEXAGESIMAL = re.compile(r"[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?")
_OLD_UNDERSCORES = re.compile(r"[-+]?([0-9][0-9_]*(\.[0-9_]*)?|\.[0-9_]+)([eE][-+][0-9]+)?")
_NEW_OCTAL = re.compile(r"0o[0-7]+")


class AmbiguousError(ValueError):
    """A scalar without one clear meaning; `message` says which meanings it has, `fix` what to write instead."""

    def __init__(self, message: str, fix: str):
        super().__init__(message, fix)
        self.message, self.fix = message, fix


def scalar(text: str) -> str | int | float | bool | None:
    """The value of the bare scalar `text`; AmbiguousError where YAML versions or readers would disagree."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if text[0] in "+-.0123456789":
        return _number_or_text(text)
    if len(text) <= 5:
        _refuse_words(text)
    return text


def _number_or_text(text: str) -> str | int | float:
    if _LEADING_ZERO.fullmatch(text):
        plain = re.sub(r"(?<![0-9])0+(?=[0-9])", "", text)
        old = f"the number {int(text, 8)}" if not set(text) & set("89") else "text"
        raise AmbiguousError(
            f"{text} is {old} to YAML 1.1 and the number {plain} to YAML 1.2",
            f'Write {plain} for the number, or "{text}" for text',
        )
    if _INTEGER.fullmatch(text):
        if len(text) > 20 or abs(int(text, 0)) > LARGEST_INTEGER:
            raise AmbiguousError(
                f"{_short(text)} is too large for an exact whole number (at most 2**53)",
                "Write a smaller number, or quote it if it is text",
            )
        return int(text, 0)
    if _FLOAT.fullmatch(text):
        value = float(text)
        if not math.isfinite(value):
            raise AmbiguousError(f"{_short(text)} is too large for a number", "Write a number below 1e308")
        return value
    if _NOT_FINITE.fullmatch(text):
        raise AmbiguousError(f"{text} is not a finite number", "Write a finite number, or null for none")
    _refuse_old_numbers(text)
    return text


def _refuse_old_numbers(text: str) -> None:
    if _OLD_SEXAGESIMAL.fullmatch(text):
        meaning = f"the number {_sexagesimal(text)}"
    elif _OLD_BASE.fullmatch(text) and text.strip("+-_0bx"):
        meaning = f"the number {int(text.replace('_', ''), 0)}"
    elif "_" in text and _OLD_UNDERSCORES.fullmatch(text) and any(c.isdigit() for c in text):
        plain = text.replace("_", "")
        raise AmbiguousError(
            f"{_short(text)} is the number {_short(plain)} to YAML 1.1 and text to YAML 1.2",
            f'Write {_short(plain)} for the number, or "{_short(text)}" for text',
        )
    elif _NEW_OCTAL.fullmatch(text):
        raise AmbiguousError(
            f"{_short(text)} is text to YAML 1.1 and the number {_short(str(int(text, 8)))} to YAML 1.2",
            "Write the number in decimal, or quote it for text",
        )
    else:
        return
    raise AmbiguousError(
        f"{_short(text)} is {_short(meaning)} to YAML 1.1 and text to YAML 1.2",
        "Quote it, or write the number in decimal",
    )


def _sexagesimal(text: str) -> float | int:
    """`12:30:45` in units of its last part, as YAML 1.1 counts."""
    total: float = 0
    for part in text.lstrip("+-").replace("_", "").split(":"):
        total = total * 60 + (float(part) if "." in part else int(part[:300]))
    return -total if text.startswith("-") else total


def _refuse_words(text: str) -> None:
    low = text.lower()
    if low == "null":
        raise AmbiguousError(f"{text} is null in one spelling of YAML", f'Write null, or "{text}" for text')
    if low in _TRUE_WORDS or low in _FALSE_WORDS:
        meaning = "true" if low in _TRUE_WORDS else "false"
        raise AmbiguousError(
            f"{text} is {meaning} to YAML 1.1 and text to YAML 1.2", f'Write {meaning}, or "{text}" for text'
        )


def _short(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:37]}..."


def quoted(value: object) -> str:
    """`value` as one would write it in YAML, on one line and not too long."""
    if isinstance(value, str):
        text = value if len(value) <= 60 else f"{value[:57]}..."
        try:
            plain = text.isprintable() and text == text.strip() and scalar(text) == value
        except AmbiguousError:
            plain = False
        return text if plain and not set(text) & set(":#{}[],&*!|>'\"%@`") else json.dumps(text, ensure_ascii=False)
    return json.dumps(value, default=str)


def shown(value: object) -> str:
    """`value` in the words of a person who reads YAML, on one line: the text "fast", the number 3, a list of 2."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return f"the number {value!r}"
    if isinstance(value, str):
        return f"the text {json.dumps(value if len(value) <= 60 else value[:57] + '...', ensure_ascii=False)}"
    if isinstance(value, (list, tuple)):
        return f"a list of {len(value)}" if value else "an empty list"
    if isinstance(value, dict):
        return "a mapping" if value else "an empty mapping"
    return f"a {type(value).__name__}"
