"""What a configuration field is for, said where it is declared.

identity      changes the result: it is in the run id and in every key.
execution     says where and how a run is carried out (cores, device, micro batch): never in a key.
presentation  what a reader sees (titles, chance lines): only figures and tables depend on it.

A test flips every field and sees the run id move exactly when its role says so.
"""

import copy
import re
from collections.abc import Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Self, TypedDict, Union, cast, get_args, get_origin
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, Strict
from pydantic.fields import FieldInfo

from sft.config.errors import FieldError, did_you_mean
from sft.runtime.code import SCRIPTS

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class Notes(TypedDict, total=False):
    """What is noted on a field, beside what pydantic knows; `added_with` only where the field joined later."""

    role: str
    unit: str
    added_with: Any


class Section(BaseModel):
    """A mapping of the configuration: unknown keys are errors, values do not change once read."""

    # defer_build: who reads a section back needs no validator of it, and making those takes longer than the rest.
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), defer_build=True)

    @classmethod
    def read_back(cls, values: Mapping[str, Any], key: str = "") -> Self:
        """The section that `key_fields` wrote as `values`, which lie at `key` of a config.json.

        What was left out is what it was left out at. Nothing is asked again that was asked when the configuration was
        read (files, what excludes what): only names and types, and FieldError says which key has a wrong one.
        """
        if unknown := next((name for name in values if name not in cls.model_fields), None):
            raise FieldError(_below(key, unknown), f"is no setting{did_you_mean(unknown, cls.model_fields)}")
        made = {}
        for name, field in cls.model_fields.items():
            noted = notes(field)
            if name in values:
                made[name] = _typed(field.annotation, values[name], _below(key, name))
            elif "added_with" in noted:
                made[name] = copy.copy(noted["added_with"])
            elif noted.get("role") == "identity" or field.is_required():
                raise FieldError(_below(key, name), "is missing")
            else:
                made[name] = field.get_default(call_default_factory=True)
        return cls.model_construct(**made)

    @classmethod
    def part_of(cls, whole: BaseModel) -> Self:
        """The fields that this section has, of one that has them all."""
        return cls.model_construct(**{name: getattr(whole, name) for name in cls.model_fields})


def identity(default: Any = ..., *, describe: str, unit: str = "", added_with: Any = ..., **constraints: Any) -> Any:
    """A field that changes the result.

    `added_with`: for a field that joined after keys were in use, the value under which every earlier run was
    made. At that value the field is left out of the key, so that old runs keep their names.
    """
    extra: dict[str, Any] = {"role": "identity", "unit": unit}
    if added_with is not ...:
        extra["added_with"] = added_with
    return Field(default, description=describe, json_schema_extra=extra, **constraints)


def execution(default: Any = ..., *, describe: str, unit: str = "", **constraints: Any) -> Any:
    """A field that says where or how to run, and changes no result."""
    extra: dict[str, Any] = {"role": "execution", "unit": unit}
    return Field(default, description=describe, json_schema_extra=extra, **constraints)


def presentation(default: Any = ..., *, describe: str, unit: str = "", **constraints: Any) -> Any:
    """A field that only figures, tables and reports show."""
    extra: dict[str, Any] = {"role": "presentation", "unit": unit}
    return Field(default, description=describe, json_schema_extra=extra, **constraints)


def notes(field: FieldInfo) -> Notes:
    """What was noted where a field was declared; nothing for one that was declared otherwise."""
    return cast(Notes, field.json_schema_extra or {})


def key_fields(section: BaseModel) -> dict[str, Any]:
    """The identity fields of a section as plain JSON values: what goes into a key."""
    chosen = {}
    for name, field in type(section).model_fields.items():
        noted = notes(field)
        value = getattr(section, name)
        if noted.get("role") != "identity" or ("added_with" in noted and value == noted["added_with"]):
            continue
        chosen[name] = key_fields(value) if isinstance(value, BaseModel) else _plain(value)
    return chosen


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return key_fields(value)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def _below(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name


def _typed(kind: Any, value: Any, key: str) -> Any:
    """`value`, as JSON has it, as a field of type `kind` holds it; FieldError where it is of another type."""
    origin, inside = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if origin is Annotated:
        return _typed(inside[0], value, key)
    if origin in (Union, UnionType):
        faults = []
        for option in inside:
            try:
                return _typed(option, value, key)
            except FieldError as fault:
                faults.append(fault)
        raise max(faults, key=lambda fault: len(fault.key))  # of the option that fits furthest
    if origin is Literal and any(value == option and type(value) is type(option) for option in inside):
        return value
    if origin is tuple and isinstance(value, (list, tuple)) and (inside[-1] is ... or len(inside) == len(value)):
        kinds = [inside[0]] * len(value) if inside[-1] is ... else inside
        return tuple(_typed(of, item, f"{key}[{i}]") for i, (of, item) in enumerate(zip(kinds, value, strict=True)))
    if origin is list and isinstance(value, list):
        return [_typed(inside[0], item, f"{key}[{i}]") for i, item in enumerate(value)]
    if origin is dict and isinstance(value, dict):
        return {name: _typed(inside[1], item, _below(key, name)) for name, item in value.items()}
    if isinstance(kind, type) and issubclass(kind, Section) and isinstance(value, dict):
        return kind.read_back(value, key)
    if kind is float and type(value) is int:
        return float(value)
    if kind in (str, int, float, bool, NoneType) and type(value) is kind:
        return value
    raise FieldError(key, f"{value!r} is not what it can be")


def _valid_name(name: str) -> str:
    if not NAME.fullmatch(name) or ".." in name or len(name) > 100:
        raise ValueError(
            f"{name!r} cannot be a name: use letters, digits, '.', '_' and '-', a letter or digit first, no '..', "
            "at most 100 characters"
        )
    return name


def _no_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError(f"{str(value).lower()} is not a number")
    return value


def _existing(path: str) -> str:
    if not path or "\0" in path:
        raise ValueError("a path cannot be empty")
    if not matching_files(path):
        raise ValueError(f"nothing is found at {path} (looked from {Path.cwd()})")
    return path


def matching_files(path: str) -> list[Path]:
    """What a configured path means: the file or directory of that name, or all that match the glob, sorted."""
    if not any(character in path for character in "*?["):
        return [Path(path)] if Path(path).exists() else []
    root, pattern = (Path("/"), path.lstrip("/")) if path.startswith("/") else (Path(), path)
    return sorted(root.glob(pattern))


def _sha256(text: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{64}", text):
        raise ValueError(f"{text!r} is no sha256: 64 digits 0-9 and a-f, as sha256sum prints them")
    return text


def _requirement(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9][A-Za-z0-9.+!_-]*", text):
        raise ValueError(f"{text!r} is not one version of one package: write name==version")
    return text


def _npm_requirement(text: str) -> str:
    if not re.fullmatch(r"(@[a-z0-9._-]+/)?[a-z0-9][a-z0-9._-]*@[0-9][A-Za-z0-9.+-]*", text):
        raise ValueError(f"{text!r} is not one version of one npm package: write name@version")
    return text


def _chat_template(given: str) -> str:
    from sft.terms.chat_templates import nearest, text_of

    if text_of(given) is None and not matching_files(given):
        raise ValueError(f"{given} is neither a file (looked from {Path.cwd()}) nor a name; {nearest(given)}")
    return given


ChatTemplate = Annotated[str, AfterValidator(_chat_template)]


def _template(source: str) -> str:
    # Jinja is imported where a template is written: it takes longer than checking the rest of a file.
    from sft.terms.row_templates import RowTemplate

    RowTemplate(source)
    return source


Template = Annotated[str, AfterValidator(_template)]


def _repository(text: str) -> str:
    if "://" in text or text.startswith("hf.co/"):
        raise ValueError(f"{text!r} is an address. Write the name that stands in it: owner/name")
    if not re.fullmatch(r"([A-Za-z0-9][\w.-]{0,95}/)?[A-Za-z0-9][\w.-]{0,95}", text, re.ASCII) or re.search(
        r"--|\.\.|[.-](/|$)|\.git$", text
    ):
        raise ValueError(f"{text!r} is no name of a repository on the hub. Write owner/name")
    return text


def _revision(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][\w./-]{0,249}", text, re.ASCII) or ".." in text:
        raise ValueError(f"{text!r} is no revision: write a commit (40 digits 0-9 and a-f), a tag or a branch")
    return text


def _url(text: str) -> str:
    address = urlsplit(text)
    if address.scheme not in ("https", "http") or not address.hostname or re.search(r"\s", text):
        raise ValueError(f"{text!r} is no address of a file: write https://…")
    if address.username or address.password:
        raise ValueError("an address must not hold a name or password: everybody who sees the results would read them")
    return text


def _file_name(text: str) -> str:
    parts = text.split("/")
    if not text or "" in parts or "." in parts or ".." in parts or "\\" in text or "\0" in text:
        raise ValueError(f"{text!r} is no name of a file inside the source: write train.parquet, or data/train.parquet")
    return text


Url = Annotated[str, AfterValidator(_url)]
FileName = Annotated[str, AfterValidator(_file_name)]
Sha256 = Annotated[str, AfterValidator(_sha256)]
Repository = Annotated[str, AfterValidator(_repository)]
Revision = Annotated[str, AfterValidator(_revision)]
Requirement = Annotated[str, AfterValidator(_requirement)]
NpmRequirement = Annotated[str, AfterValidator(_npm_requirement)]
Name = Annotated[str, AfterValidator(_valid_name)]
Integer = Annotated[int, BeforeValidator(_no_bool)]
Number = Annotated[float, BeforeValidator(_no_bool), Field(allow_inf_nan=False)]
Truth = Annotated[bool, Strict()]
ExistingPath = Annotated[str, AfterValidator(_existing)]


def figure_name(script: str) -> str:
    """What the script of a figure draws: the NAME of plot_NAME.py."""
    return Path(script).stem.removeprefix("plot_")


def _figure_script(path: str) -> str:
    if not re.fullmatch(r"plot_[a-z][a-z0-9_]*\.py", Path(path).name):
        raise ValueError(f"{path} is no name of a figure's script: write plot_NAME.py, NAME of a-z, 0-9 and _")
    if not Path(path).is_file():
        raise ValueError(f"there is no file {path} (looked from {Path.cwd()})")
    if (SCRIPTS / Path(path).name).exists():
        raise ValueError(f"{figure_name(path)} is the name of a figure that this workflow draws: choose another")
    return path


FigureScript = Annotated[str, AfterValidator(_figure_script)]
