"""A manifest with all that readers take for granted, for results that tests make by hand."""

from typing import Any

from sft.runtime import manifest


def whole(**more: Any) -> dict[str, Any]:
    """The least that counts as a manifest, and `more`."""
    empty: dict[str, Any] = {name: kind() for name, kind in manifest.SHAPE.items()}
    return {"schema": manifest.SCHEMA} | empty | more


def output(**more: Any) -> dict[str, Any]:
    """One of the files that a manifest names."""
    return {"bytes": 0, "sha256": ""} | more
