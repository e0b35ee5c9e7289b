"""Reading a configuration file: YAML with every surprise refused and the line of every key known.

Values follow YAML 1.2 (`2e-5` is a number); what YAML 1.1 would read differently is an error that says so.
Duplicate keys, tags, non-text keys, Snakemake's YTE code and unbounded aliases are refused. Nothing in a file
is ever executed. The file is read in one pass over the parser's events, so no depth of nesting and no alias
can exhaust the machine.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from sft.config.errors import ConfigError, KeyPath, Problem, dotted
from sft.config.text_file import read_text
from sft.config.yaml_scalars import AmbiguousError, quoted, scalar, shown
from sft.config.yaml_syntax import explain
from sft.terms.nearest import nearest

# libyaml's parser where PyYAML has it: about five times as fast, same events.
Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

MAXIMUM_BYTES = 10 * 2**20
MAXIMUM_DEPTH = 50
# Values that aliases may add by being repeated; a file of this many lines is longer than any hand-written one.
MAXIMUM_ALIASED = 100_000

# Keys by which Snakemake's own loader is made to execute Python (https://yte-template-engine.github.io).
EXECUTABLE_KEYS = ("__use_yte__", "__definitions__", "__variables__")


class Place(NamedTuple):
    """Where a value was written: its line (from 1), its children's places, and a scalar's own text."""

    line: int
    children: "dict[str, Place] | list[Place] | None" = None
    text: str | None = None


class Document(NamedTuple):
    """A file that was read: `data` holds plain dicts, lists and scalars."""

    path: Path
    data: dict[str, Any]
    place: Place

    def find(self, keys: KeyPath) -> tuple[Place, KeyPath, KeyPath]:
        """The place of the deepest part of `keys` that is in the file, that part as written, and the rest of `keys`.

        Several steps may be written as one dotted key (`training.learning_rate: …`), as in a grid.
        """
        place, rest = self.place, tuple(keys)
        done: KeyPath = ()
        while rest:
            children, step = place.children, rest[0]
            if isinstance(children, list) and isinstance(step, int) and 0 <= step < len(children):
                place, done, rest = children[step], (*done, step), rest[1:]
            elif isinstance(children, dict):
                joined = {n: ".".join(map(str, rest[:n])) for n in range(len(rest), 0, -1)}
                taken, key = next(((n, key) for n, key in joined.items() if key in children), (0, ""))
                if not taken:
                    break
                place, done, rest = children[key], (*done, key), rest[taken:]
            else:
                break
        return place, done, rest

    def line(self, keys: KeyPath) -> int:
        """The line (from 1) of the key at the path `keys`, or of its nearest ancestor in the file."""
        return self.find(keys)[0].line

    def text(self, keys: KeyPath) -> str | None:
        """The scalar at the path `keys` as it was written; None where there is no scalar."""
        place, _, rest = self.find(keys)
        return None if rest else place.text


def read_yaml(path: Path) -> Document:
    """Read a configuration file; ConfigError lists everything wrong with it as a piece of YAML."""
    path = Path(path)
    text = read_text(path, MAXIMUM_BYTES)
    builder = _Builder(path)
    try:
        data, place = builder.document(_events(text))
    except yaml.MarkedYAMLError as error:
        line, message, fix = explain(error, text)
        raise ConfigError([Problem(path, line, "", message, fix)]) from None
    if builder.problems:
        raise ConfigError(builder.problems)
    return Document(path, data, place)


def _events(text: str) -> Iterator[yaml.Event]:
    try:
        yield from yaml.parse(text, Loader=Loader)
    except ValueError as error:
        # PyYAML's own parser trips over escapes beyond Unicode ("\UFFFFFFFF"); libyaml reports them.
        raise yaml.MarkedYAMLError(problem=str(error)) from None


class _Anchored(NamedTuple):
    value: Any
    place: Place
    size: int


class _Builder:
    """Builds values from parser events; collects problems instead of stopping at the first."""

    def __init__(self, path: Path):
        self.path = path
        self.problems: list[Problem] = []
        self.events: Iterator[yaml.Event]
        self.trail: list[str | int] = []
        self.anchors: dict[str, _Anchored | None] = {}  # None: still open
        self.anchor_lines: dict[str, int] = {}
        self.size = 0  # values built, aliases counted in full
        self.aliased = 0

    def problem(self, line: int, message: str, fix: str) -> None:
        self.problems.append(Problem(self.path, line, dotted(self.trail), message, fix))

    def stop(self, line: int, message: str, fix: str) -> ConfigError:
        self.problem(line, message, fix)
        return ConfigError(self.problems)

    def document(self, events: Iterator[yaml.Event]) -> tuple[dict[str, Any], Place]:
        self.events = events
        next(events)  # the start of the stream
        event = next(events)
        if isinstance(event, yaml.StreamEndEvent):
            raise self.stop(1, "the file is empty", "Write at least `experiments:`")
        first = next(events)
        value, place = self.value(first)
        next(events)  # the end of the document
        after = next(events)
        if isinstance(after, yaml.DocumentStartEvent):
            self.problem(_line(after), "a second document (`---`) begins", "Keep one document in a file")
        if value is None and not self.problems:
            self.problem(1, "the file is empty", "Write at least `experiments:`")
        elif not isinstance(value, dict) and not self.problems:
            self.problem(place.line, f"the top level is {shown(value)}", "Write `key: value` lines, not anything else")
        return value, place

    def value(self, event: yaml.Event, line: int | None = None) -> tuple[Any, Place]:
        """The value that begins with `event`; `line`: of its key, where it has one."""
        line = line or _line(event)
        if isinstance(event, yaml.AliasEvent):
            return self.alias(event, line)
        assert isinstance(event, (yaml.ScalarEvent, yaml.CollectionStartEvent))  # with nothing else a value begins
        self.size += 1
        before = self.size - 1
        anchor = event.anchor
        if anchor is not None:
            if anchor in self.anchors:
                self.problem(line, f"&{anchor} is given twice (also line {self.anchor_lines[anchor]})", "Rename one")
            self.anchors[anchor], self.anchor_lines[anchor] = None, line
        if event.tag is not None:
            self.problem(line, f"the tag {_tag_text(event.tag)} is not allowed", "Remove it; quote text")
        if isinstance(event, yaml.ScalarEvent):
            value, place = self.scalar(event, line), Place(line, None, event.value)
        else:
            if len(self.trail) > MAXIMUM_DEPTH:
                raise self.stop(line, f"nested more than {MAXIMUM_DEPTH} levels deep", "Write it flatter")
            build = self.mapping if isinstance(event, yaml.MappingStartEvent) else self.sequence
            value, children = build()
            place = Place(line, children)
        if anchor is not None:
            self.anchors[anchor] = _Anchored(value, place, self.size - before)
        return value, place

    def alias(self, event: yaml.AliasEvent, line: int) -> tuple[Any, Place]:
        name = event.anchor or ""
        known = self.anchors.get(name)
        if known is None:
            if name in self.anchors:
                message, fix = f"*{name} stands inside what it refers to", "Write the value out"
            else:
                hint = nearest(name, self.anchors)
                message = f"*{name} refers to nothing: no &{name} before it"
                fix = f"Did you mean *{hint}?" if hint else f"Write &{name} where the value first stands, or quote it"
            self.problem(line, message, fix)
            return None, Place(line)
        self.aliased += known.size
        self.size += known.size
        if self.aliased > MAXIMUM_ALIASED:
            raise self.stop(line, f"aliases repeat more than {MAXIMUM_ALIASED:,} values", "Write a grid instead")
        return _copy(known.value), known.place._replace(line=line)

    def scalar(self, event: yaml.ScalarEvent, line: int) -> Any:
        if not event.implicit[0]:  # quoted or a block text
            self.printable(event.value, line)
            return event.value
        try:
            return scalar(event.value)
        except AmbiguousError as error:
            self.problem(line, error.message, error.fix)
            return None

    def printable(self, text: str, line: int) -> None:
        """Refuse what an escape such as "\\x1b" or "\\ud800" puts into a text, and no terminal or file can take."""
        if found := yaml.reader.Reader.NON_PRINTABLE.search(text):
            self.problem(line, f"the text holds the control character U+{ord(found.group()):04X}", "Remove its escape")

    def sequence(self) -> tuple[list, list[Place]]:
        values: list[Any] = []
        places: list[Place] = []
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            self.trail.append(len(values))
            value, place = self.value(event)
            self.trail.pop()
            values.append(value)
            places.append(place)
        return values, places

    def mapping(self) -> tuple[dict[str, Any], dict[str, Place]]:
        values: dict[str, Any] = {}
        places: dict[str, Place] = {}
        merged: list[tuple[dict[str, Any], dict[str, Place]]] = []
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            line = _line(event)
            key = self.key(event, line)
            self.trail.append(key)
            value, place = self.value(next(self.events), line)
            if key == "<<" and isinstance(event, yaml.ScalarEvent) and event.implicit[0]:
                if merged:
                    self.problem(line, "a second `<<` in one mapping", "Write one, with a list: `<<: [*a, *b]`")
                merged += self.mergeable(value, place)
            elif key in values:
                self.problem(
                    line, f"given twice (also line {places[key].line})", "Keep one: YAML would take the last, silently"
                )
            else:
                values[key], places[key] = value, place
            self.trail.pop()
        # The mapping's own keys win over merged ones, earlier merged ones over later (yaml.org/type/merge.html).
        for other, where in merged:
            for key in other:
                if key not in values:
                    values[key], places[key] = other[key], where[key]
        return values, places

    def key(self, event: yaml.Event, line: int) -> str:
        """The key that `event` begins; a problem and a stand-in for what cannot be a key."""
        if isinstance(event, yaml.AliasEvent) or not isinstance(event, yaml.ScalarEvent):
            self.problem(line, "a key is not a single word", "Keys are text; lists, mappings and aliases cannot be")
            return self.skipped_key(event)
        text = event.value
        if event.implicit[0] and text != "<<":
            try:
                value = scalar(text)
            except AmbiguousError as error:
                self.problem(line, f"the key {error.message}", f'Quote it: "{text}"')
                value = text
            if not isinstance(value, str):
                self.problem(line, f"the key {text or '(empty)'} is {shown(value)}, not text", f'Quote it: "{text}"')
        else:
            self.printable(text, line)
        if event.tag is not None or event.anchor is not None:
            self.problem(
                line, f"the key {quoted(text)} has a tag or an anchor", "Put anchors on values; tags are not allowed"
            )
        if text in EXECUTABLE_KEYS:
            self.problem(
                line, f"{text} would make Snakemake execute code of this file", "Remove it: write the values out"
            )
        return text

    def skipped_key(self, event: yaml.Event) -> str:
        if isinstance(event, yaml.CollectionStartEvent):
            self.trail.append("?")
            self.value(event)
            self.trail.pop()
        return "?"

    def mergeable(self, value: Any, place: Place) -> list[tuple[dict[str, Any], dict[str, Place]]]:
        if value is None and place.text is None:
            return []  # an alias to nothing: said already
        several = [(value, place)]
        if isinstance(value, list) and isinstance(place.children, list):
            several = list(zip(value, place.children, strict=True))
        merged = [(one, at.children) for one, at in several if isinstance(one, dict) and isinstance(at.children, dict)]
        if len(merged) < len(several):
            self.problem(place.line, "`<<` takes a mapping or a list of mappings", "Write `<<: *name`")
            return []
        return merged


def _line(event: yaml.Event) -> int:
    """Where it begins, from 1."""
    return event.start_mark.line + 1 if event.start_mark else 1


def _tag_text(tag: str) -> str:
    return tag.replace("tag:yaml.org,2002:", "!!")[:60]


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_copy(item) for item in value]
    return value
