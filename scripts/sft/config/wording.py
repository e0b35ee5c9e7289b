"""pydantic's validation errors in the words of someone who writes YAML."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from sft.config.errors import FieldError, KeyPath, SeveralFieldsError
from sft.config.key_paths import Located, expected, field_of, homes, literals, locate, sections_in
from sft.config.yaml_scalars import quoted, shown
from sft.terms.nearest import nearest


class Complaint(NamedTuple):
    """One thing to mend, by its key path in the data that was validated."""

    keys: KeyPath
    message: str
    fix: str = ""
    quote: bool = False  # the fix is to quote the value as it is written in the file
    missing: bool = False


class _Fault(NamedTuple):
    kind: str
    value: Any
    context: dict[str, Any]
    text: str
    at: Located


_WRONG_TYPE = re.compile(
    r".*_(type|parsing|parsing_size|attributes_type|instance_type)|int_from_float|literal_error|enum"
)
# pydantic calls a tuple too short when its items are wrong; those have faults of their own.
_ECHO = "echo"
_BOUNDS = {
    "greater_than": ("gt", "greater than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}


def complaints(error: ValidationError, model: type[BaseModel]) -> Iterator[Complaint]:
    """What a person should mend, for pydantic's `error` about data validated as `model`."""
    errors = [each for one in error.errors(include_url=False) for each in _each(one)]
    faults = _meaningful([_fault(one, model) for one in errors])
    # A misspelt key is one mistake, though it makes two faults: a key unknown and a key missing.
    misspelt = {(*fault.at.keys[:-1], _meant_key(fault.at)) for fault in faults if fault.kind == "extra_forbidden"}
    for fault in faults:
        if not (fault.kind == "missing" and fault.at.keys in misspelt):
            yield _complaint(fault, model)


def _each(error: Any) -> list[Any]:
    """An error of pydantic, once for each fault that a validator of ours told with it."""
    cause = error.get("ctx", {}).get("error")
    if not isinstance(cause, SeveralFieldsError):
        return [error]
    return [{**error, "ctx": {"error": fault}} for fault in cause.faults]


def _meant_key(at: Located) -> str | None:
    """The key of the same section that an unknown key was probably meant to be."""
    return nearest(str(at.keys[-1]), at.section.model_fields) if at.section else None


def _fault(error: Any, model: type[BaseModel]) -> _Fault:
    at = locate(model, error["loc"])
    kind, value = error["type"], error["input"]
    if kind == "value_error" and isinstance(value, bool) and "number" in expected(at.annotation):
        kind = "int_type"  # pydantic takes true for 1; our own validator refuses it
    if kind == "too_short" and isinstance(value, (list, tuple)) and len(value) >= error["ctx"]["min_length"]:
        kind = _ECHO
    return _Fault(kind, value, error.get("ctx", {}), error["msg"], at)


def _meaningful(faults: list[_Fault]) -> list[_Fault]:
    """Of every union only the branch that was meant; where no branch fits the value, one fault for all of them."""
    groups: dict[KeyPath, dict[str, list[_Fault]]] = defaultdict(lambda: defaultdict(list))
    kept: list[_Fault] = []
    for fault in faults:
        if fault.kind == _ECHO:
            continue
        if fault.at.branches:
            branch = fault.at.branches[0]
            groups[fault.at.keys[: branch.depth]][branch.label].append(fault)
        else:
            kept.append(fault)
    for place, branches in groups.items():
        if len(branches) > 1 and all(_misfit(branch, place)[0] for branch in branches.values()):
            first = next(iter(branches.values()))[0]
            union = first.at.branches[0].union
            kept.append(first._replace(kind="union_type", at=first.at._replace(keys=place, annotation=union)))
        else:
            meant = min(branches.values(), key=lambda branch: _misfit(branch, place))
            kept += _meaningful(
                [fault._replace(at=fault.at._replace(branches=fault.at.branches[1:])) for fault in meant]
            )
    return kept


def _misfit(branch: list[_Fault], place: KeyPath) -> tuple[bool, int]:
    """How badly a branch of a union fits: not even the kind of value, then the number of faults."""
    return any(fault.at.keys == place and _WRONG_TYPE.fullmatch(fault.kind) for fault in branch), len(branch)


def _complaint(fault: _Fault, model: type[BaseModel]) -> Complaint:
    kind, value, context, keys = fault.kind, fault.value, fault.context, fault.at.keys
    if kind == "extra_forbidden":
        return Complaint(keys, "unknown key", _instead_of_unknown(fault.at, model))
    if kind == "missing":
        field = field_of(fault.at)
        what = f" ({field.description})" if field and field.description else ""
        return Complaint(keys, "is missing", f"Add `{keys[-1]}: …`{what}", missing=True)
    if kind in ("value_error", "assertion_error"):
        cause = context.get("error")
        if isinstance(cause, FieldError):
            inner = tuple(cause.key.split(".")) if cause.key else ()
            return Complaint((*keys, *inner), cause.message, cause.fix)
        return Complaint(keys, str(cause) if cause else fault.text)
    if kind in _BOUNDS:
        name, words = _BOUNDS[kind]
        fix = f"Write a {'larger' if name in ('gt', 'ge') else 'smaller'} number"
        return Complaint(keys, f"must be {words} {context[name]:g}, not {_number(value)}", fix)
    if kind == "multiple_of":
        step = context["multiple_of"]
        near = max(step, round(float(value) / step) * step)
        return Complaint(keys, f"must be a multiple of {step}, not {_number(value)}", f"The nearest is {near}")
    if kind == "finite_number":
        return Complaint(keys, f"must be a finite number, not {shown(value)}", "Write a number such as 1.5")
    if kind in ("too_short", "too_long", "string_too_short", "string_too_long"):
        return _wrong_length(keys, kind, context, value)
    if kind == "string_pattern_mismatch":
        return Complaint(keys, f"{shown(value)} does not match {context['pattern']}", "Write a text that does")
    if _WRONG_TYPE.fullmatch(kind):
        return _wrong_type(fault)
    if sections_in(fault.at.annotation):
        return _unknown_branch(fault)
    text = fault.text.replace("Input should be", "must be")
    return Complaint(keys, f"{text}, not {shown(value)}", "See config/README.md")


def _instead_of_unknown(at: Located, model: type[BaseModel]) -> str:
    """What to do about an unknown key: the section it belongs to, the nearest known key, or all that are known."""
    key = str(at.keys[-1])
    for section in (at.section, model):
        if section and (found := next(homes(section, key), None)):
            return f"It belongs in {'.'.join(found)}:"
    if near := _meant_key(at):
        return f"Did you mean {near}?"
    return f"Known keys: {', '.join(at.section.model_fields)}" if at.section else "Remove it"


def _unknown_branch(fault: _Fault) -> Complaint:
    """For a value of which no branch of a union could be told; the message is the section's own."""
    if not isinstance(fault.value, dict):
        return Complaint(fault.at.keys, f"{fault.text}, not {shown(fault.value)}", "Write it in one of these forms")
    known = [name for section in sections_in(fault.at.annotation) for name in section.model_fields]
    near = [found for key in fault.value if key not in known and (found := nearest(str(key), known))]
    message = f"{fault.text}; keys found: {', '.join(map(quoted, fault.value)) or 'none'}"
    return Complaint(fault.at.keys, message, f"Did you mean {near[0]}?" if near else "Write it in one of these forms")


def _wrong_type(fault: _Fault) -> Complaint:
    annotation, value, keys = fault.at.annotation, fault.value, fault.at.keys
    wanted = expected(annotation)
    allowed = [choice for choice in literals(annotation) if isinstance(choice, str)]
    if isinstance(value, str) and allowed:
        near = nearest(value, allowed)
        fix = f"Did you mean {near}?" if near else f"Write {wanted}"
        return Complaint(keys, f"{quoted(value)} is not {wanted}", fix)
    message = f"expected {wanted}, not {shown(value)}"
    if "text" in wanted and isinstance(value, (bool, int, float)):
        return Complaint(keys, message, quote=True)
    return Complaint(keys, message, _instead_of_wrong_type(wanted, value, field_of(fault.at)))


def _instead_of_wrong_type(wanted: str, value: Any, field: FieldInfo | None) -> str:
    default = field.default if field else None
    if "a list" in wanted:
        single = isinstance(value, (str, int, float))
        return f"Write [{quoted(value)}]" if single else "Write a list: [first, second]"
    if "a mapping" in wanted:
        return "Write its keys below it, indented"
    if "number" in wanted:
        whole = "whole" in wanted
        example = default if isinstance(default, (int, float)) and default else (8 if whole else "2e-5")
        return f"Write a {'whole ' if whole else ''}number such as {example}"
    return f"Write {wanted}"


def _number(value: Any) -> str:
    return quoted(value) if isinstance(value, (int, float, str)) else shown(value)


def _wrong_length(keys: KeyPath, kind: str, context: dict[str, Any], value: Any) -> Complaint:
    unit = "character" if kind.startswith("string") else "item"
    if kind.endswith("short"):
        least = context["min_length"]
        message = f"needs at least {least} {unit}{'s' if least != 1 else ''}, not {shown(value)}"
        return Complaint(keys, message, f"Add {unit}s, or remove the key")
    return Complaint(keys, f"takes at most {context['max_length']} {unit}s, not {shown(value)}", f"Remove {unit}s")
