"""What rows are compared by: 64-bit hashes of what they say, from batches of canonical rows.

Two different texts have the same hash with a chance of 1 in 2**64: among 10**6 training and 10**5 test rows that is a
chance of 5e-9 for one pair that is no pair. The audit's page shows the texts of the pairs, so that one would be seen.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

from sft.data.read import turns
from sft.data.split.normal_form import normalised

# What a row is compared by needs these columns of it (and `part`, where a mix has it).
COLUMNS = ("id", "prompt", "completion", "choices", "images", "group", "system", "messages", "tools")


def hash64(*parts: str | bytes) -> int:
    """64 bits of BLAKE2b of the parts, each with its length, so that ("a", "bc") is not ("ab", "c")."""
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        encoded = part if isinstance(part, bytes) else part.encode("utf-8", "surrogatepass")
        digest.update(b"%d:" % len(encoded))
        digest.update(encoded)
    return int.from_bytes(digest.digest(), "little")


def question(row: Mapping[str, Any]) -> str:
    """What is asked, without the system message; all of a text without roles."""
    if turns.is_text(row):
        return row["completion"]
    if row.get("messages"):
        return "\n".join(turns.content_text(turn) for turn in turns.asked(row) if turn["role"] != "system")
    return row["prompt"]


def content_key(row: Mapping[str, Any], pixels: list[bytes]) -> int:
    """The same system message, question, choices and pixels, byte for byte. `pixels`: digests of the pictures."""
    asked = row["completion"] if turns.is_text(row) else turns.asked_text(row)
    return hash64(asked, *row["choices"], *pixels)


def normalised_key(row: Mapping[str, Any], pixels: list[bytes]) -> int:
    """The same question but for case, punctuation and spaces, with the same pixels."""
    return hash64(normalised(question(row)), *pixels)


def whole_key(row: Mapping[str, Any], pixels: list[bytes], normal: bool) -> int:
    """The whole row, answer included; `normal`: but for case, punctuation and spaces."""
    text = turns.written_text(row)
    return hash64(normalised(text) if normal else text, *row["choices"], *pixels)


def published_id(row: Mapping[str, Any]) -> str:
    """The row's id in its data set: without the name of the part that a mix put before it."""
    part = row.get("part")
    return row["id"].removeprefix(f"{part}/") if part else row["id"]
