"""Canonical JSON: one text, and so one digest, for one meaning.

Follows RFC 8785 in spirit: sorted keys, no white space, shortest float text. It differs in one point on
purpose: a float with an integral value is written as the integer (`1.0` and `1` are one meaning to a
reader of YAML). Whatever has no agreed text (NaN, infinity, paths, sets, objects) is refused, because an
identity that depends on a default `repr` is no identity.
"""

import hashlib
import json
import math
from typing import Any


def canonical(value: Any) -> str:
    """The canonical text of JSON-like `value`; TypeError or ValueError names the place that has none."""
    return json.dumps(
        _normalised(value, "$"), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def digest(value: Any) -> str:
    """sha256 (64 hexadecimal digits) of the canonical text of `value`."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def _normalised(value: Any, place: str) -> Any:
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        # Beyond 2**53 a reader of JSON in another language gets another number.
        if abs(value) > 2**53:
            raise ValueError(f"{place}: {value} is too large for a canonical number (2**53)")
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{place}: {value} has no canonical text")
        return int(value) if value.is_integer() and abs(value) <= 2**53 else value
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"{place}: key {key!r} is not a string")
        return {key: _normalised(item, f"{place}.{key}") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_normalised(item, f"{place}[{i}]") for i, item in enumerate(value)]
    raise TypeError(f"{place}: {type(value).__name__} has no canonical text")
