"""Files that change what other files define: `overlay: true`.

A twin of an experiment is one: it puts tiny data and a tiny model in the place of the published ones, by the names that
the experiment's file gives them, and shortens the training.
"""

from typing import Any

from sft.config.errors import did_you_mean


def changed(section: str, entry: Any, change: Any) -> Any:
    """`entry` of a section with what an overlay says of it.

    Each key given for a data set or a model replaces that key whole, as with `extends`; those of an experiment are
    merged into it, as those of a variant are.
    """
    if not (isinstance(entry, dict) and isinstance(change, dict)):
        return change
    if section != "experiments":
        return {**entry, **change}
    for key, value in change.items():
        entry = assigned(entry, key.split("."), value)
    return entry


def fault(section: str, name: str, change: Any, known: dict[str, Any]) -> tuple[str, str] | None:
    """What is wrong with an overlay's entry, and what to do; None where nothing is."""
    kind = {"datasets": "data set", "models": "model", "experiments": "experiment"}[section]
    if name not in known:
        message = f"there is no {kind} {name} to change{did_you_mean(name, known)}"
        return message, "An overlay changes what the files named before it define"
    if not isinstance(change, dict):
        return "is not a mapping", "Write the keys to change below it"
    if changed(section, known[name], change) == known[name]:
        return "changes nothing", "Remove it"
    return None


def assigned(entry: dict[str, Any], keys: list[str], value: Any) -> dict[str, Any]:
    """A copy of `entry` with the dotted key set; a mapping is merged into a mapping that is there.

    A data set or a model is one thing, not a bundle of settings: it is replaced as a whole.
    """
    head, *rest = keys
    old = entry.get(head)
    if rest:
        return {**entry, head: assigned(old if isinstance(old, dict) else {}, rest, value)}
    if isinstance(value, dict) and isinstance(old, dict) and head not in ("dataset", "model"):
        for key, item in value.items():
            old = assigned(old, [key], item)
        return {**entry, head: old}
    return {**entry, head: value}
