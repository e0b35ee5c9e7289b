"""Scripts read what planning wrote: config.json and the typed settings say the same, whatever is left out of it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from sft.config import experiment  # noqa: F401  (defines all sections)
from sft.config.dataset import Reading
from sft.config.errors import FieldError
from sft.config.evaluation_settings import Asked
from sft.config.fields import Section, identity, key_fields, notes
from sft.config.label_audit_settings import LabelAudit
from sft.config.nodes import (
    AskBaseSettings,
    BaselineSettings,
    ConvertSettings,
    MixSettings,
    PredictSettings,
    PrepareSettings,
    QuestionSettings,
    ScoreSettings,
    Shown,
    SplitSettings,
    TrainSettings,
)
from sft.config.reader import load
from sft.config.split_settings import Slice, Split, Validation
from sft.config.training_settings import Lora, Optimization, Tokens
from sft.planning.node import Node
from sft.planning.planner import make_plan
from sft.runtime.stage import Stage, StageError

ROOT = Path(__file__).resolve().parents[2]
FILES = [ROOT / "config/config.yaml", *sorted((ROOT / "config/experiments").glob("*.yaml"))]
KINDS = {
    "prepare_dataset": PrepareSettings,
    "audit_labels": LabelAudit,
    "tokenize_dataset": Tokens,
    "train_model": TrainSettings,
    "convert_checkpoint": ConvertSettings,
    "ask_base": AskBaseSettings,
    "predict": PredictSettings,
    "fit_baseline": BaselineSettings,
    "score": ScoreSettings,
    "tabulate_results": Shown,
}
# Keys that a script is told and that follow from its inputs, so that they identify nothing.
BESIDES = ("datasets", "model_step", "id_key", "renamed")
# Everything that left keys out from the day it joined. A value here never changes, and none is taken away: results that
# were made without the key were made with it, and nothing else says so.
ADDED_WITH = {
    "Reading": {
        "roles": {},
        "role_field": None,
        "content_field": None,
        "prompt_template": None,
        "completion_template": None,
        "text_template": None,
        "images_optional": False,
        "maximum_pixels": 64_000_000,
        "system": None,
        "on_bad_row": "error",
    },
    "PrepareSettings": {"renamed": {}},
    "Slice": {"rows": None, "fraction": None},
    "Validation": {"rows": None, "fraction": None, "pattern": None, "of": "train"},
    "Split": {
        "column": None,
        "stratify_by": None,
        "seed": 0,
        "deduplicate": "none",
        "minimum_characters": None,
        "maximum_characters": None,
    },
    "MixSettings": {"rows": None},
    "Tokens": {"truncation_side": "right", "control_tokens": "refuse", "packing": "none"},
    "Optimization": {
        "activation_offloading": False,
        "quantization": "none",
        "double_quantization": True,
        "quantization_compute": None,
        "float8": "none",
        "float8_emulated": False,
        "attention": None,
        "kernels": "stock",
        "compile": "none",
        "frozen": (),
        "backend": "trl",
    },
    "Lora": {"layers": None},
    "Asked": {"split": "test"},
    "QuestionSettings": {"control_tokens": "refuse"},
    "ScoreSettings": {"split": "test"},
    "Shown": {
        "split": "test",
        "baselines": (),
        "one_base": False,
        "compared": (),
        "lines": (),
        "figure": "",
        "script": "",
        "sha256": "",
    },
}


def as_json(value: Any) -> Any:
    return json.loads(json.dumps(value))


def sections(value: Any) -> Iterator[Section]:
    """All sections in a value, itself included."""
    if isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            yield from sections(item)
    if isinstance(value, BaseModel):
        yield value
        for name in type(value).model_fields:
            yield from sections(getattr(value, name))


def kind_of(node: Node) -> type[Section] | None:
    if node.rule == "split_dataset":
        return MixSettings if "mix" in node.config else SplitSettings
    return Shown if node.rule.startswith("plot_") else KINDS.get(node.rule)


def needs_more(section: Section) -> bool:
    """Whether a section has keys without a default that are no part of its identity: where files are fetched."""
    return any(
        field.is_required() and notes(field)["role"] != "identity"
        for inner in sections(section)
        for field in type(inner).model_fields.values()
    )


@pytest.mark.parametrize("file", FILES, ids=[file.stem for file in FILES])
def test_sections_and_nodes_are_read_back(file: Path) -> None:
    study = load([file])
    cells = [cell.content for of in study.experiments.values() for cell in of.cells.values()]
    whole = [*sections([*study.datasets.values(), *study.models.values(), *cells])]
    found = [section for section in whole if not needs_more(section)]
    assert len(found) > 10
    for section in found:
        written = as_json(key_fields(section))
        back = type(section).read_back(written)
        assert key_fields(back) == key_fields(section)
        for name, field in type(section).model_fields.items():
            if notes(field)["role"] == "identity" and not any(sections(getattr(section, name))):
                assert getattr(back, name) == getattr(section, name), f"{type(section).__name__}.{name}"
    nodes = [node for node in make_plan(study).nodes.values() if kind_of(node) is not None]
    assert {node.rule for node in nodes} >= {"train_model", "tokenize_dataset", "convert_checkpoint", "predict"}
    for node in nodes:
        read = kind_of(node).read_back(as_json(node.config))
        besides = {key: node.config[key] for key in BESIDES if key in node.config}
        assert as_json(key_fields(read)) | as_json(besides) == as_json(node.config), node.id
        assert {key: getattr(read, key) for key in besides} == {
            key: tuple(value) if isinstance(value, list) else value for key, value in besides.items()
        }


def test_what_is_left_out_is_what_it_was_left_out_at() -> None:
    declared = {}
    for kind in (
        Slice,
        Validation,
        Split,
        MixSettings,
        Reading,
        Tokens,
        Optimization,
        Lora,
        Asked,
        QuestionSettings,
        *KINDS.values(),
    ):
        added = {
            name: notes(field)["added_with"]
            for name, field in kind.model_fields.items()
            if "added_with" in notes(field) and name in kind.__annotations__
        }
        declared |= {kind.__name__: added} if added else {}
    assert declared == ADDED_WITH
    for kind in (Tokens, Optimization, Lora):
        smallest = {"max_length": 64, "learning_rate": 1e-3, "global_batch_size": 8}
        written = key_fields(kind(**{key: value for key, value in smallest.items() if key in kind.model_fields}))
        assert not set(written) & set(ADDED_WITH[kind.__name__])
        back = kind.read_back(written)
        assert {name: getattr(back, name) for name in ADDED_WITH[kind.__name__]} == ADDED_WITH[kind.__name__]


def test_it_is_not_the_default_that_counts() -> None:
    """A new default is for new configurations; results without the key were made at `added_with`."""

    class Later(Section):
        kernels: str = identity("liger", describe="", added_with="stock")

    assert Later.read_back({}).kernels == "stock"
    assert Later.read_back(key_fields(Later())).kernels == "liger"


TRAINING = key_fields(Optimization(learning_rate=1e-3, global_batch_size=8, max_steps=4))
CONFIG = {"method": "lora", "lora": key_fields(Lora()), "seed": 0, "precision": "float32", "training": TRAINING}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sed": 1}, r"sed: is no setting \(did you mean seed\?\)"),
        ({"training": TRAINING | {"kernals": "liger"}}, r"training\.kernals: is no setting \(did you mean kernels\?\)"),
        ({"training": TRAINING | {"max_steps": "4"}}, r"training\.max_steps: '4' is not what it can be"),
        ({"training": TRAINING | {"max_steps": True}}, r"training\.max_steps: True is not what it can be"),
        ({"training": TRAINING | {"frozen": [1]}}, r"training\.frozen\[0\]: 1 is not what it can be"),
        ({"training": {"learning_rate": 1e-3}}, r"training\.global_batch_size: is missing"),
        ({"lora": key_fields(Lora()) | {"rank": 4}}, r"lora\.rank: is no setting"),
        ({"precision": "float16"}, r"precision: 'float16' is not what it can be"),
    ],
)
def test_what_does_not_fit_is_told_by_its_key(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(FieldError, match=said):
        TrainSettings.read_back(CONFIG | changes)
    (tmp_path / "config.json").write_text(
        json.dumps({"rule": "train_model", "id": "x", "config": CONFIG | changes, "identity": {}, "inputs": {}})
    )
    stage = Stage(tmp_path, None)
    with pytest.raises(StageError, match=rf"{tmp_path}/config\.json: {said}"):
        stage.settings(TrainSettings)


def test_a_number_without_a_fraction_is_a_number_still() -> None:
    """Canonical JSON writes 1.0 as 1."""
    back = TrainSettings.read_back(CONFIG | {"training": TRAINING | {"max_grad_norm": 1, "weight_decay": 0}})
    assert (back.training.max_grad_norm, type(back.training.max_grad_norm)) == (1.0, float)
