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
_WORDS = {"null": "null"} | dict.fromkeys(("yes", "on", "y", "true"), "true")
_WORDS |= dict.fromkeys(("no", "off", "n", "false"), "false")

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
    if _INTEGER.fullmatch(text):
        if len(text) > 20 or abs(int(text, 0)) > LARGEST_INTEGER:
            raise AmbiguousError(
                f"{_short(text)} is too large for an exact whole number (at most 2**53)",
                "Write a smaller number, or quote it if it is text",
            )
        return int(text, 0)
    if _FLOAT.fullmatch(text) and not _LEADING_ZERO.fullmatch(text):
        value = float(text)
        if not math.isfinite(value):
            raise AmbiguousError(f"{_short(text)} is too large for a number", "Write a number below 1e308")
        return value
    if _NOT_FINITE.fullmatch(text):
        raise AmbiguousError(f"{text} is not a finite number", "Write a finite number, or null for none")
    meanings = _meanings(text)
    if meanings:
        old, new = (f"the number {meaning}" if meaning else "text" for meaning in meanings)
        number = meanings[1] or meanings[0]
        raise AmbiguousError(
            f"{_short(text)} is {old} to YAML 1.1 and {new} to YAML 1.2",
            f'Write {number} for the number, or "{_short(text)}" for text',
        )
    return text


def _meanings(text: str) -> tuple[str, str] | None:
    """The numbers that `text` is to YAML 1.1 and to 1.2 ("" where it is text); None where both take it for text."""
    if len(text) > 40:
        # No number of a configuration is that long; its value could take for ever to print.
        return None
    if _LEADING_ZERO.fullmatch(text):
        new = re.sub(r"0+(?=[0-9])", "", text, count=1)
        return ("" if set(text) & set("89") else str(int(text, 8))), new
    if _OLD_SEXAGESIMAL.fullmatch(text):
        return str(_sexagesimal(text)), ""
    if _OLD_BASE.fullmatch(text) and text.strip("+-_0bx"):
        return str(int(text.replace("_", ""), 0)), ""
    if _OLD_UNDERSCORES.fullmatch(text) and text.strip("+-_."):
        return text.replace("_", ""), ""
    if _NEW_OCTAL.fullmatch(text):
        return "", str(int(text, 8))
    return None


def _sexagesimal(text: str) -> float | int:
    """`12:30:45` in units of its last part, as YAML 1.1 counts."""
    total: float = 0
    for part in text.lstrip("+-").replace("_", "").split(":"):
        total = total * 60 + (float(part) if "." in part else int(part))
    return -total if text.startswith("-") else total


def _refuse_words(text: str) -> None:
    meaning = _WORDS.get(text.lower())
    if meaning is None:
        return
    if text.lower() == meaning:
        message = f"{text} is a spelling of {meaning} that not every reader takes"
    else:
        message = f"{text} is {meaning} to YAML 1.1 and text to YAML 1.2"
    raise AmbiguousError(message, f'Write {meaning}, or "{text}" for text')


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
