"""Write scripts/sft/trainer_fields.json: the fields of the installed TRL's SFTConfig with their simple types.

The configuration is checked against this file, so that a misspelt `training.extra` is found in a second and
without importing torch. Run it after an upgrade of TRL or transformers; a test says when it is out of date:

    python tools/make_trainer_fields.py
"""

import dataclasses
import enum
import json
import sys
import types
import typing
from importlib import metadata
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts"))

from sft.config.trainer_extra import FIELDS

SIMPLE = {bool: "bool", int: "int", float: "float", str: "str", dict: "dict", list: "list", type(None): "null"}


def trainer_fields() -> dict[str, Any]:
    """`{trl, transformers, fields: {name: "type | type"}}`; types are bool, int, float, str, dict, list, null."""
    from sft.training.backends.trl import arguments_class

    fields = arguments_class()
    hints = typing.get_type_hints(fields)
    names = sorted(field.name for field in dataclasses.fields(fields) if field.init)
    return {
        "trl": metadata.version("trl"),
        "transformers": metadata.version("transformers"),
        "fields": {name: " | ".join(sorted(_simple(hints[name]))) for name in names},
    }


def _simple(hint: Any) -> set[str]:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return set().union(*(_simple(part) for part in typing.get_args(hint)))
    if typing.get_origin(hint) is typing.Literal:
        return {SIMPLE[type(value)] for value in typing.get_args(hint)}
    plain = typing.get_origin(hint) or hint
    if isinstance(plain, type) and issubclass(plain, enum.Enum):
        return {"str"}  # an enumeration is given by its value
    return {SIMPLE[plain]} if plain in SIMPLE else set()


if __name__ == "__main__":
    FIELDS.write_text(json.dumps(trainer_fields(), indent=1) + "\n")
