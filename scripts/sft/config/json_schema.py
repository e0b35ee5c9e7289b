"""The JSON Schema of a configuration file, for editors: completion, hover texts, and unknown keys underlined.

Made from the typed sections. It is looser than `sft check` where a file is completed from elsewhere: a data set may
take required keys from the one that it extends, a cell from its experiment.
"""

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

from pydantic import BaseModel

from sft.config.experiment import Cell, Config
from sft.config.fields import NAME
from sft.config.key_paths import sections_in

# pydantic leaves the constraints of optional fields under their Python names.
_CONSTRAINTS = {
    "gt": "exclusiveMinimum",
    "ge": "minimum",
    "lt": "exclusiveMaximum",
    "le": "maximum",
    "multiple_of": "multipleOf",
}


def json_schema() -> dict[str, Any]:
    """The schema of a whole file (JSON Schema 2020-12)."""
    schema = Config.model_json_schema()
    sections = schema["$defs"]
    for section in [schema, *sections.values()]:
        for prop in section["properties"].values():
            _tidy(prop)
    experiment = sections["Experiment"]["properties"]
    experiment["execution"] = {"$ref": "#/$defs/Execution", "description": experiment["execution"]["description"]}
    sections["Changes"] = _changes(experiment, sections)
    experiment["variants"]["additionalProperties"] = {"$ref": "#/$defs/Changes"}
    experiment["grid"] |= _grid(sections["Changes"]["properties"])
    for named in (
        *(schema["properties"][key] for key in ("datasets", "models", "experiments")),
        experiment["variants"],
    ):
        named["propertyNames"] = {"pattern": f"^{NAME.pattern}$", "maxLength": 100}
    sections["Dataset"]["anyOf"] = [{"required": ["extends"]}, {"required": sections["Dataset"].pop("required")}]
    del sections["Experiment"]["required"], sections["Training"]["required"]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "snakemake-sft configuration"}


def _tidy(prop: dict[str, Any]) -> None:
    """Put role and unit of a property where an editor shows them, and drop what says nothing."""
    role, unit = prop.pop("role"), prop.pop("unit")
    prop.pop("added_with", None)
    prop.pop("title", None)
    prop["description"] += f" ({', '.join(filter(None, (unit, role)))})"
    for branch in [prop, *prop.get("anyOf", [])]:
        branch.pop("title", None)
        for name, keyword in _CONSTRAINTS.items():
            if name in branch:
                branch[keyword] = branch.pop(name)


def _changes(experiment: dict[str, Any], sections: dict[str, Any]) -> dict[str, Any]:
    """What a variant may change: the keys of a cell, also dotted (`training.learning_rate`)."""
    properties = {name: experiment[name] for name in Cell.model_fields}
    for path, section, name in _dotted(Cell):
        properties[path] = sections[section]["properties"][name]
    return {
        "description": "What one cell changes of its experiment.",
        "type": "object",
        "properties": deepcopy(properties),
        "patternProperties": {r"^training\.extra\.": {}},
        "additionalProperties": False,
    }


def _grid(changes: dict[str, Any]) -> dict[str, Any]:
    """The axes of a grid: for each key that a cell has, a list of values."""
    axes = {
        name: {"type": "array", "minItems": 1, "items": value, "description": value["description"]}
        for name, value in deepcopy(changes).items()
    }
    return {
        "properties": axes,
        "patternProperties": {r"^training\.extra\.": {"type": "array", "minItems": 1}},
        "additionalProperties": False,
    }


def _dotted(model: type[BaseModel]) -> Iterator[tuple[str, str, str]]:
    """(dotted key, section, key in it) of the keys one level below `model`."""
    for name, field in model.model_fields.items():
        for section in sections_in(field.annotation):
            for key in section.model_fields:
                yield f"{name}.{key}", section.__name__, key
