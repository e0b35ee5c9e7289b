"""The comments of config/config.yaml, written from the descriptions of the fields.

A key that begins a line gets its description behind it, the first time that the file uses the field. Nothing else of
a line changes; comments on lines of their own, and behind names that are no fields, are the author's.
"""

import re
from collections.abc import Iterator
from typing import Any, get_args, get_origin

import yaml
from pydantic import BaseModel

from sft.config.errors import KeyPath
from sft.config.evaluation_settings import Execution
from sft.config.experiment import Config
from sft.config.key_paths import alternatives, bare

# Where comments stand, where the line leaves room; a line of code may be longer.
COLUMN = 34
WIDTH = 120


def commented(text: str) -> str:
    """`text`, a configuration file, with its comments behind keys brought up to date."""
    lines = text.splitlines()
    ends = _code_ends(text)
    described: set[tuple[str, str]] = set()
    for keys, number in _block_keys(yaml.compose(text, Loader=yaml.SafeLoader), ()):
        found = field_at(keys)
        if found is None:
            continue
        section, name = found
        code = lines[number][: ends[number]]
        lines[number] = code
        if (section.__name__, name) not in described:
            comment = f"{code.ljust(COLUMN)}  # {section.model_fields[name].description}"
            if len(comment) > WIDTH:
                raise ValueError(f"line {number + 1} has no room for the comment of {name}: write its value below it")
            lines[number] = comment
        described.add((section.__name__, name))
    return "\n".join(lines) + "\n"


def field_at(keys: KeyPath) -> tuple[type[BaseModel], str] | None:
    """The section and the field that the key path `keys` of a file is about, or None where it is about neither."""
    match keys:
        case ("experiments", name, "variants", _, *rest):
            keys = ("experiments", name, *rest)
        case ("experiments", _, "execution", *rest) if rest:
            return next(_fields(Execution, tuple(rest)), None)
    return next(_fields(Config, keys), None)


def _fields(annotation: Any, keys: KeyPath) -> Iterator[tuple[type[BaseModel], str]]:
    for option in map(bare, alternatives(annotation)):
        if get_origin(option) is dict and len(keys) > 1:
            yield from _fields(get_args(option)[1], keys[1:])
        elif isinstance(option, type) and issubclass(option, BaseModel) and keys and keys[0] in option.model_fields:
            if len(keys) == 1:
                yield option, keys[0]
            else:
                yield from _fields(option.model_fields[keys[0]].annotation, keys[1:])


def _block_keys(node: yaml.Node | None, above: KeyPath) -> Iterator[tuple[KeyPath, int]]:
    """(key path, line from 0) of every key that begins a line."""
    if isinstance(node, yaml.MappingNode) and not node.flow_style:
        for key, value in node.value:
            yield (*above, key.value), key.start_mark.line
            yield from _block_keys(value, (*above, key.value))


def _code_ends(text: str) -> dict[int, int]:
    """Where the code of each line (from 0) ends and a comment may begin."""
    lines = text.splitlines()
    ends: dict[int, int] = {}
    for token in yaml.scan(text, Loader=yaml.SafeLoader):
        line, column = token.end_mark.line, token.end_mark.column
        if isinstance(token, yaml.ScalarToken) and token.style in ("|", ">"):
            # Of a block text only the indicator stands on the key's line.
            line, column = token.start_mark.line, token.start_mark.column
            indicator = re.compile(r"[|>][-+0-9]*").match(lines[line], column)
            column = indicator.end() if indicator else column
        elif token.start_mark.index == token.end_mark.index:
            continue
        ends[line] = max(ends.get(line, 0), column)
    return ends
