"""Canonical JSON: pinned texts, and refusal of what has none."""

import math
from pathlib import Path

import pytest

from sft.runtime.canonical import canonical, digest

VECTORS = [
    ({"b": 1, "a": [True, None, "é"]}, '{"a":[true,null,"é"],"b":1}'),
    (1.0, "1"),
    (-0.0, "0"),
    (2e-5, "2e-05"),
    (1e15, "1000000000000000"),
    (1e16, "1e+16"),
    (0.1, "0.1"),
    (2**53, "9007199254740992"),
    ((1, 2), "[1,2]"),
]


@pytest.mark.parametrize(("value", "text"), VECTORS)
def test_text_is_pinned(value: object, text: str) -> None:
    assert canonical(value) == text


@pytest.mark.parametrize("value", [math.nan, math.inf, 2**53 + 1])
def test_numbers_without_a_text_are_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"\$\.a\[0\]"):
        canonical({"a": [value]})


@pytest.mark.parametrize("value", [Path("x"), {1, 2}, object(), {1: 2}, b"x"])
def test_things_without_a_text_are_refused(value: object) -> None:
    with pytest.raises(TypeError, match=r"\$\.a"):
        canonical({"a": value})


def test_digest_ignores_the_order_of_keys_and_sees_swapped_values() -> None:
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest({"a": 1, "b": 2}) != digest({"a": 2, "b": 1})
