"""Documentation generated from the typed configuration: the JSON Schema, the tables of config/README.md, and the
comments of config/config.yaml. `python tools/make_config_docs.py` writes them; a test fails when they drift.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import annotated_types
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from sft.config.audit_settings import Audit, Benchmark, Embedding, Limits
from sft.config.baseline import Baseline
from sft.config.dataset import Dataset, Mix
from sft.config.distributed import Distributed
from sft.config.evaluation_settings import Evaluation, Execution
from sft.config.experiment import Cell, Config, Frame
from sft.config.fields import notes
from sft.config.json_schema import json_schema
from sft.config.key_paths import alternatives, bare, expected, sections_in
from sft.config.label_audit_settings import LabelAudit
from sft.config.model import (
    FinishedRun,
    Initialised,
    Model,
    ModelAlternatives,
    ModelArchive,
    ModelDownload,
    ModelHub,
    ModelPath,
)
from sft.config.source import (
    Alternatives,
    ArchiveSource,
    Download,
    DownloadSource,
    HubSource,
    MarkdownSource,
    PackageSource,
    PathSource,
)
from sft.config.split_settings import Slice, Split, Validation
from sft.config.training_settings import Lora, Training
from sft.config.yaml_scalars import quoted
from yaml_comments import commented

# The tables of config/README.md, by the name between its marker comments.
TABLES: dict[str, type[BaseModel]] = {
    "file": Config,
    "dataset": Dataset,
    "source-hub": HubSource,
    "source-download": DownloadSource,
    "download": Download,
    "source-alternatives": Alternatives,
    "source-package": PackageSource,
    "source-markdown": MarkdownSource,
    "source-path": PathSource,
    "source-archive": ArchiveSource,
    "split": Split,
    "validation": Validation,
    "slice": Slice,
    "model": Model,
    "source-initialise": Initialised,
    "source-model-hub": ModelHub,
    "source-model-path": ModelPath,
    "source-model-archive": ModelArchive,
    "source-model-download": ModelDownload,
    "source-model-alternatives": ModelAlternatives,
    "frame": Frame,
    "cell": Cell,
    "mix": Mix,
    "run": FinishedRun,
    "training": Training,
    "distributed": Distributed,
    "lora": Lora,
    "evaluation": Evaluation,
    "baseline": Baseline,
    "audit": Audit,
    "limits": Limits,
    "benchmark": Benchmark,
    "embedding": Embedding,
    "labels": LabelAudit,
    "execution": Execution,
}

_GENERATED = re.compile(r"(<!-- generated: ([a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def generated(root: Path) -> dict[Path, Callable[[str], str]]:
    """Each generated file below `root`, and the function that brings its present text up to date."""
    return {
        root / "workflow/schemas/config.schema.json": lambda _: schema_text(),
        root / "config/README.md": with_tables,
        root / "config/config.yaml": commented,
    }


def schema_text() -> str:
    """The text of workflow/schemas/config.schema.json."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


def with_tables(text: str) -> str:
    """`text` with every table between `<!-- generated: NAME -->` and `<!-- end -->` written anew.

    ValueError for a name that is not in TABLES and for a table that the text lacks.
    """
    found = [name for _, name, _ in _GENERATED.findall(text)]
    if set(found) != set(TABLES):
        raise ValueError(f"config/README.md: generated tables {sorted(set(found) ^ set(TABLES))} unknown or missing")
    return _GENERATED.sub(lambda match: f"{match[1]}\n{table(TABLES[match[2]])}\n\n{match[3]}", text)


def table(section: type[BaseModel]) -> str:
    """The Markdown table of a section's keys."""
    rows: list[tuple[str, ...]] = [("key", "type", "default", "unit", "role", "meaning"), ("---",) * 6]
    for name, field in section.model_fields.items():
        noted = notes(field)
        rows.append(
            (
                f"`{name}`",
                type_words(field),
                default_words(field),
                noted["unit"],
                noted["role"],
                (field.description or "").replace("|", "\\|"),
            )
        )
    return "\n".join(f"| {' | '.join(row)} |".replace("|  |", "| |") for row in rows)


def type_words(field: FieldInfo) -> str:
    """What may be written for a field: "whole number > 0 or null"."""
    words = [_type_words(option) for option in alternatives(field.annotation)]
    if bounds := ", ".join(filter(None, map(_bound, field.metadata))):
        words[0] = f"{words[0]} {bounds}"
    nullable = type(None) in get_args(bare(field.annotation))
    return " or ".join(words + ["null"] * nullable)


def _type_words(annotation: Any) -> str:
    annotation = bare(annotation)
    origin, inside = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in inside)
    if origin in (list, tuple):
        return f"list of {_plural(_type_words(inside[0]))}"
    if origin is dict:
        several = " or ".join(map(_type_words, alternatives(inside[1])))
        keys = "names" if get_origin(inside[0]) is Annotated else "keys"
        return "mapping" if inside[1] is Any else f"mapping of {keys} to {_plural(several)}"
    for section in sections_in(annotation):
        few = len(section.model_fields) <= 3
        return f"`{{{', '.join(section.model_fields)}}}`" if few else "mapping"
    return "anything" if annotation is Any else expected(annotation).removeprefix("a ")


def _plural(words: str) -> str:
    return re.sub(r"\b(number|mapping|list)\b", r"\1s", words).replace("anything", "values")


def _bound(constraint: Any) -> str:
    match constraint:
        case annotated_types.Gt(gt=bound):
            return f"> {bound:g}"
        case annotated_types.Ge(ge=bound):
            return f"≥ {bound:g}"
        case annotated_types.Lt(lt=bound):
            return f"< {bound:g}"
        case annotated_types.Le(le=bound):
            return f"≤ {bound:g}"
        case annotated_types.MultipleOf(multiple_of=bound):
            return f"a multiple of {bound:g}"
        case annotated_types.MinLen(min_length=least):
            return f"(at least {least})"
    return ""


def default_words(field: FieldInfo) -> str:
    """The default of a field as YAML, or that it has none."""
    if field.is_required():
        return "**required**"
    default = field.get_default(call_default_factory=True)
    if isinstance(default, BaseModel):
        return "its defaults"
    return f"`{quoted(list(default) if isinstance(default, tuple) else default)}`"
