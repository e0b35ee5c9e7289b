"""In which settings two results differ: their identities compared field by field, down to the data they came from."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from sft.runtime.canonical import canonical

ABSENT = "-"

# Of an identity: what is no setting of the node itself.
_FRAME = ("from", "schema", "rule")


class Difference(NamedTuple):
    """One field, dotted (`training.learning_rate`, `tokens.splits.counts[0]`), and its two values as text."""

    field: str
    first: str
    second: str


def differences(first: dict[str, Any], second: dict[str, Any]) -> list[Difference]:
    """The fields in which two identities (`identity` of a `config.json`) differ, the nearest to the result first.

    What a result is made from is entered by the name of the input: `model.run.seed` is the seed of the run that
    gave the model. An input that is reached in two ways (a processor, by the tokens too) is compared once.
    """
    found: list[Difference] = []
    seen: set[tuple[str, str]] = set()
    waiting = [("", first, second)]
    while waiting:
        path, one, other = waiting.pop(0)
        pair = (canonical(one), canonical(other))
        if pair[0] == pair[1] or pair in seen:
            continue
        seen.add(pair)
        found += _settings(path, one, other)
        if one["rule"] == other["rule"]:
            above, others = one.get("from", {}), other.get("from", {})
            for name in dict.fromkeys([*above, *others]):
                pair = above.get(name), others.get(name)
                if isinstance(pair[0], dict) and isinstance(pair[1], dict):
                    waiting.append((f"{path}{name}.", *pair))
                elif pair[0] != pair[1]:
                    found.append(Difference(f"{path}{name}", *map(_made_by, pair)))
    return found


def record_differences(first: dict[str, Any], second: dict[str, Any]) -> list[Difference]:
    """What else differs between two manifests of equal identity: source, package versions, bytes."""
    found = [
        Difference(name, first[name][:12], second[name][:12])
        for name in ("code", "content", "key")
        if first[name] != second[name]
    ]
    commits = [made.get("facts", {}).get("commit", ABSENT) for made in (first, second)]
    if commits[0] != commits[1]:  # a tag or a branch of the hub has moved between the two downloads
        found.insert(0, Difference("commit", *commits))
    one, other = ({**made.get("packages", {}), **made["versions"]} for made in (first, second))
    return [*found, *_settings("", {"versions": one}, {"versions": other})]


def _settings(path: str, first: dict[str, Any], second: dict[str, Any]) -> list[Difference]:
    found = []
    if first.get("rule") != second.get("rule"):
        found.append(Difference(f"{path}rule", str(first.get("rule")), str(second.get("rule"))))
    one, other = dict(flattened(first)), dict(flattened(second))
    for field in dict.fromkeys([*one, *other]):
        a, b = one.get(field, ABSENT), other.get(field, ABSENT)
        if a != b:
            found.append(Difference(path + field, a, b))
    return found


def flattened(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """`{"a": {"b": [1]}}` as `("a.b[0]", "1")`, values in canonical text; the frame of an identity left out."""
    if isinstance(value, dict) and value:
        for key, item in value.items():
            if path or key not in _FRAME:
                yield from flattened(item, f"{path}.{key}" if path else key)
    elif isinstance(value, list) and value:
        for i, item in enumerate(value):
            yield from flattened(item, f"{path}[{i}]")
    elif path:
        yield path, value if isinstance(value, str) and value else canonical(value)


def _made_by(identity: dict[str, Any] | str | None) -> str:
    if isinstance(identity, str):  # a digest, and no more
        return identity[:12]
    return ABSENT if identity is None else f"made by {identity['rule']}"
