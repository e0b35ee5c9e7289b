"""From the location that pydantic gives an error to the key a person wrote, and what may stand there.

pydantic's locations hold, besides keys, the names of union branches and tags; only the annotations tell the
two apart (a tag may be spelled like a key: `lora` of `method: lora`).
"""

from __future__ import annotations

import re
import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel, Tag
from pydantic.fields import FieldInfo

from sft.config.yaml_scalars import quoted


class Branch(NamedTuple):
    """The branch of a union that an error speaks of."""

    depth: int  # number of keys before the union
    label: str
    union: Any


class Located(NamedTuple):
    """Where in the data an error is: the key path, the section it is in, the type that is allowed there."""

    keys: tuple[str | int, ...]
    section: type[BaseModel] | None  # whose key the last of `keys` is, or would be
    annotation: Any  # of what stands at `keys`; None for an unknown key
    branches: tuple[Branch, ...] = ()  # of every union on the way
    about_key: bool = False  # the error is about the key itself, not its value


def locate(model: type[BaseModel], location: tuple[str | int, ...]) -> Located:
    """The place of an error of `model` at pydantic's `location`; an unexplained rest is taken for keys."""
    for found in _walk(model, location, Located((), None, model)):
        return found
    return Located(location, None, None)


def _walk(annotation: Any, rest: tuple[str | int, ...], at: Located) -> Iterator[Located]:
    if get_origin(annotation) is Annotated:
        yield from _walk(get_args(annotation)[0], rest, at)
        return
    if not rest:
        yield at
        return
    part, after = rest[0], rest[1:]
    branches = alternatives(annotation)
    if len(branches) > 1:
        label = str(part)
        trail = (*at.branches, Branch(len(at.keys), label, annotation))
        words = set(re.findall(r"\w+", label))
        meant = [option for option in branches if label == _tag(option)]
        meant = meant or [option for option in branches if _core_name(option) in words]
        for option in meant or branches:
            yield from _walk(option, after, at._replace(annotation=option, branches=trail))
        return
    inner = bare(branches[0]) if branches else None
    if isinstance(inner, type) and issubclass(inner, BaseModel):
        yield from _walk_section(inner, rest, at)
    elif get_origin(inner) is dict:
        if after == ("[key]",):
            yield at._replace(keys=(*at.keys, part), section=None, about_key=True)
        else:
            value = get_args(inner)[1]
            yield from _walk(value, after, at._replace(keys=(*at.keys, part), section=None, annotation=value))
    elif get_origin(inner) in (list, tuple) and isinstance(part, int):
        item = get_args(inner)[0]
        yield from _walk(item, after, at._replace(keys=(*at.keys, part), section=None, annotation=item))


def _walk_section(section: type[BaseModel], rest: tuple[str | int, ...], at: Located) -> Iterator[Located]:
    name, after = rest[0], rest[1:]
    here = at._replace(keys=(*at.keys, name), section=section, annotation=None)
    if name in section.model_fields:
        annotation = section.model_fields[name].annotation
        yield from _walk(annotation, after, here._replace(annotation=annotation))
    elif not after:
        yield here


def bare(annotation: Any) -> Any:
    """`annotation` without its Annotated wrappings."""
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    return annotation


def alternatives(annotation: Any) -> list[Any]:
    """The branches of a union without None; the annotation itself where it is none."""
    annotation = bare(annotation)
    if get_origin(annotation) in (Union, types.UnionType):
        return [option for option in get_args(annotation) if option is not type(None)]
    return [annotation]


def _tag(annotation: Any) -> str | None:
    if get_origin(annotation) is Annotated:
        return next((entry.tag for entry in get_args(annotation)[1:] if isinstance(entry, Tag)), None)
    return None


def _core_name(annotation: Any) -> str:
    """The word by which pydantic's label of a branch tells its type: int, literal, tuple, a section's name."""
    inner = bare(annotation)
    origin = get_origin(inner)
    return "literal" if origin is Literal else getattr(origin or inner, "__name__", "")


def sections_in(annotation: Any) -> list[type[BaseModel]]:
    """The sections that may stand where `annotation` is."""
    kinds = map(bare, alternatives(annotation))
    return [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]


def field_of(located: Located) -> FieldInfo | None:
    """The declaration of the key at `located`, or None for one that is not a section's."""
    if located.section is None:
        return None
    return located.section.model_fields.get(str(located.keys[-1]))


def homes(model: type[BaseModel], key: str, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The sections below `model`, as key paths, that have the key `key`."""
    for name, field in model.model_fields.items():
        for section in sections_in(field.annotation):
            if key in section.model_fields:
                yield (*above, name)
            yield from homes(section, key, (*above, name))


def literals(annotation: Any) -> list[Any]:
    """All fixed values that `annotation` allows."""
    return [
        value
        for option in alternatives(annotation)
        if get_origin(bare(option)) is Literal
        for value in get_args(bare(option))
    ]


def expected(annotation: Any) -> str:
    """What may stand where `annotation` is, in words: "a whole number or null"."""
    annotation = bare(annotation)
    if get_origin(annotation) in (Union, types.UnionType):
        words = list(dict.fromkeys(expected(option) for option in get_args(annotation)))
        words = [word for word in words if word != "null"] + [word for word in words if word == "null"]
        return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
    if get_origin(annotation) is Literal:
        words = [quoted(value) for value in get_args(annotation)]
        return words[0] if len(words) == 1 else f"one of {', '.join(words)}"
    if get_origin(annotation) in (list, tuple):
        return "a list"
    if get_origin(annotation) is dict:
        return "a mapping"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "a mapping"
    return {
        int: "a whole number",
        float: "a number",
        bool: "true or false",
        str: "text",
        type(None): "null",
        list: "a list",
        dict: "a mapping",
    }.get(annotation, "another value")
