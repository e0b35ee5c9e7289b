"""Run ids: every field of the configuration moves them exactly when its role says so, and they never drift.

Tests: sft.config.baseline, sft.config.evaluation_settings, sft.config.fields, sft.planning.plan,
sft.planning.planner
"""

import types
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pytest
import yaml
from pydantic import BaseModel
from small_studies import DIGITS

from sft.config.audit_settings import Audit
from sft.config.baseline import Baseline
from sft.config.dataset import Dataset
from sft.config.evaluation_settings import Evaluation, Execution
from sft.config.experiment import Frame
from sft.config.fields import Section, identity, key_fields
from sft.config.model import Model
from sft.config.reader import load
from sft.config.training_settings import Lora, Training
from sft.planning.plan import Plan
from sft.planning.planner import make_plan

ROOT = Path(__file__).resolve().parents[2]

STUDY: dict[str, Any] = {
    "datasets": {
        "d": DIGITS | {"completion_key": "completion"},
    },
    "models": {"m": {"source": {"initialise": "qwen2_5_vl"}}},
    "experiments": {
        "e": {
            "dataset": "d",
            "model": "m",
            "method": "lora",
            "lora": {},
            "training": {"learning_rate": 1e-3, "global_batch_size": 64, "max_steps": 120, "max_length": 64},
            "evaluation": {},
            "audit": {},
            "baselines": {"b": {"method": "bag_of_words"}},
        }
    },
}

BASIC = {"learning_rate": 1e-3, "global_batch_size": 64, "max_steps": 120, "max_length": 64}

# Fields whose only other values need a change elsewhere too, and fields of another kind of data.
TOGETHER = {
    ("datasets", "d", "source", "package"): None,  # one package so far
    ("datasets", "d", "source", "name"): None,
    ("datasets", "d", "split", "by"): {"by": "published", "validation": {"rows": 200}},
    ("datasets", "d", "split", "column"): {"by": "column", "column": "fold", "validation": {"rows": 200}},
    ("embedding", "path"): {"path": "."},
    ("embedding", "wheel"): {"wheel": "a==1", "sha256": "0" * 64},
    ("embedding", "sha256"): {"wheel": "a==1", "sha256": "1" * 64},
    ("embedding", "similarity"): {"path": ".", "similarity": 0.5},
    ("datasets", "d", "split", "test", "rows"): {"rows": 10},
    ("datasets", "d", "split", "test", "fraction"): {"fraction": 0.1},
    ("datasets", "d", "split", "validation", "fraction"): {"fraction": 0.1},
    ("datasets", "d", "split", "validation", "pattern"): {"pattern": "validation-*"},
    ("training", "frozen"): None,  # of method full: see test_frozen_parameters_move_the_id
    ("d", "completion_template"): None,  # of other formats: see test_templates_move_the_id
    ("d", "text_template"): None,
    ("training", "truncation_side"): {
        "learning_rate": 1e-3,
        "global_batch_size": 64,
        "max_steps": 120,
        "max_length": 64,
        "on_too_long": "truncate",
        "truncation_side": "left",
    },
    ("experiments", "e", "baselines", "b", "method"): None,  # one method so far
    ("distributed", "processes"): {"strategy": "ddp", "processes": 2},
    ("distributed", "nodes"): {"strategy": "ddp", "processes": 2, "nodes": 2},
    ("training", "double_quantization"): BASIC | {"quantization": "nf4", "double_quantization": False},
    ("training", "quantization_compute"): BASIC | {"quantization": "nf4", "quantization_compute": "float32"},
    ("training", "float8_emulated"): BASIC | {"float8": "rowwise", "float8_emulated": True},
    ("training", "attention"): BASIC | {"attention": "eager"},
    ("lora", "layers"): {"target_modules": ["q_proj"], "layers": [0]},
    ("training", "backend"): None,  # of an environment with Unsloth: see test_launch.py
    ("distributed", "offload"): None,  # of an environment with DeepSpeed: see test_launch.py
    ("training", "num_train_epochs"): {
        "learning_rate": 1e-3,
        "global_batch_size": 64,
        "num_train_epochs": 3,
        "max_length": 64,
    },
}

SECTIONS = [
    (("datasets", "d"), Dataset),
    (("models", "m"), Model),
    (("experiments", "e"), Frame),
    (("experiments", "e", "training"), Training),
    (("experiments", "e", "lora"), Lora),
    (("experiments", "e", "evaluation"), Evaluation),
    (("experiments", "e", "audit"), Audit),
    (("experiments", "e", "baselines", "b"), Baseline),
    (("execution",), Execution),
]


def fields(place: tuple[str, ...], section: type[BaseModel]) -> list[tuple[tuple[str, ...], Any]]:
    found = []
    for name, field in section.model_fields.items():
        inner = [t for t in _types(field.annotation) if isinstance(t, type) and issubclass(t, BaseModel)]
        if inner:
            found += [item for one in inner[:1] for item in fields((*place, name), one)]
        else:
            found.append(((*place, name), field))
    return found


def _types(annotation: Any) -> list[Any]:
    if get_origin(annotation) is Annotated:
        return _types(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return [t for part in get_args(annotation) for t in _types(part)]
    return [annotation]


ALL_FIELDS = [item for place, section in SECTIONS for item in fields(place, section)]


def test_every_field_has_a_role() -> None:
    unknown = [
        ".".join(place)
        for place, field in ALL_FIELDS
        if (field.json_schema_extra or {}).get("role") not in ("identity", "execution", "presentation")
    ]
    assert unknown == []


@pytest.mark.parametrize(("place", "field"), ALL_FIELDS, ids=[".".join(place) for place, _ in ALL_FIELDS])
def test_id_moves_exactly_with_identity(place: tuple[str, ...], field: Any, tmp_path: Path) -> None:
    short = place if place in TOGETHER else place[-2:]
    if TOGETHER.get(short, ...) is None:
        return  # nothing else to flip to; the golden ids below hold these values
    role = field.json_schema_extra["role"]
    before, after = plan_of(STUDY, tmp_path), plan_of(flipped(place, field, tmp_path), tmp_path)
    results = [
        {
            d: n.digest
            for d, n in plan.nodes.items()
            if not d.startswith("results/experiments") and d != "results/archive"
        }
        for plan in (before, after)
    ]
    moved = results[0] != results[1]
    assert moved == (role == "identity"), f"{'.'.join(place)} is {role}"
    if role == "presentation":
        shown = [{d: node.digest for d, node in plan.nodes.items()} for plan in (before, after)]
        assert shown[0] != shown[1], "nothing shows it"


def test_scores_follow_evaluation_and_runs_do_not(tmp_path: Path) -> None:
    changed = yaml.safe_load(yaml.safe_dump(STUDY))
    changed["experiments"]["e"]["evaluation"] = {"max_new_tokens": 5}
    before, after = plan_of(STUDY, tmp_path), plan_of(changed, tmp_path)
    assert [r.train.id for r in before.runs["e"]] == [r.train.id for r in after.runs["e"]]
    assert [r.scores.directory for r in before.runs["e"]] != [r.scores.directory for r in after.runs["e"]]


@pytest.mark.parametrize(
    ("format", "key", "template"),
    [
        ("prompt_completion", "completion_key", "completion_template"),
        ("language_modelling", "text_key", "text_template"),
    ],
)
def test_templates_move_the_id(format: str, key: str, template: str, tmp_path: Path) -> None:
    ids = []
    for text in (None, "{{ a }}", "{{ a }}."):
        study = yaml.safe_load(yaml.safe_dump(STUDY))
        study["experiments"]["e"].pop("baselines", None)
        study["experiments"]["e"]["metric"] = "accuracy_token"
        study["datasets"]["d"] |= {"format": format, key: "answer"} | ({template: text} if text else {})
        ids.append(plan_of(study, tmp_path).runs["e"][0].train.id)
    assert len(set(ids)) == 3


def test_frozen_parameters_move_the_id(tmp_path: Path) -> None:
    full = yaml.safe_load(yaml.safe_dump(STUDY))
    full["experiments"]["e"] |= {"method": "full"}
    del full["experiments"]["e"]["lora"]
    frozen = yaml.safe_load(yaml.safe_dump(full))
    frozen["experiments"]["e"]["training"]["frozen"] = ["visual"]
    runs = [plan_of(study, tmp_path).runs["e"][0].train for study in (full, frozen)]
    assert runs[0].id != runs[1].id
    assert "frozen" not in runs[0].config["training"]


def test_names_of_the_file_are_no_identity(tmp_path: Path) -> None:
    text = yaml.safe_dump(STUDY).replace("  d:", "  renamed:").replace("dataset: d", "dataset: renamed")
    renamed = yaml.safe_load(text.replace("  m:", "  other:").replace("model: m", "model: other"))
    before, after = plan_of(STUDY, tmp_path), plan_of(renamed, tmp_path)
    assert [r.scores.directory for r in before.runs["e"]] == [r.scores.directory for r in after.runs["e"]]


def test_a_field_that_joins_later_moves_no_key() -> None:
    class Before(Section):
        a: int = identity(1, describe="")

    class After(Before):
        b: int = identity(7, describe="", added_with=7)

    assert key_fields(Before()) == key_fields(After())
    assert key_fields(After(b=8)) == {"a": 1, "b": 8}


def test_golden_ids() -> None:
    """Ids of the default's runs as they were when keys came into use (Python 3.11). A moved id orphans results:

    if this fails, give the new field `added_with`, or raise KEY_SCHEMA and say so in CHANGELOG.md.
    """
    runs = make_plan(load([ROOT / "config/config.yaml"])).runs
    ids = [line.split() for line in (Path(__file__).parent / "golden_ids.txt").read_text().splitlines()]
    assert [[f"{r.experiment}/{r.cell}/{r.seed}", r.train.id] for runs in runs.values() for r in runs] == ids


def plan_of(study: dict[str, Any], directory: Path) -> Plan:
    file = directory / "study.yaml"
    file.write_text(yaml.safe_dump(study))
    return make_plan(load([file]))


def flipped(place: tuple[str, ...], field: Any, directory: Path) -> dict[str, Any]:
    study = yaml.safe_load(yaml.safe_dump(STUDY))
    *above, last = place
    if last == "format":
        del study["experiments"]["e"]["baselines"]  # they are for multiple choice
    target = study
    for key in above:
        target = target.setdefault(key, {})
    short = place if place in TOGETHER else place[-2:]
    if short in TOGETHER:
        parent = study
        for key in above[:-1]:
            parent = parent[key]
        parent[above[-1]] = TOGETHER[short]
    else:
        target[last] = other_value(last, field, target.get(last, field.default), directory)
    return study


def other_value(name: str, field: Any, value: Any, directory: Path) -> Any:
    special = {
        "chat_template": str(_file(directory)),
        "expected": str(_file(directory)),
        "figures": [str(_file(directory, "plot_mine.py"))],
        "extends": None,
        "seeds": [1],
        "grid": {"training.learning_rate": [1e-2]},
        "variants": {"v": {"training": {"learning_rate": 1e-2}}},
        "baselines": {},
        "c": [1.0],
        "extra": {"neftune_noise_alpha": 5},
        "target_modules": "q_proj",
        "modules_to_save": ["lm_head"],
        "image_keys": ["image"],
        "initialise": "llama",
        "format": "prompt_completion",
        "metric": "accuracy_lenient",
        "columns": {"question": "asked"},
        "roles": {"human": "user"},
        "hidden_size": 64,
        "benchmarks": {"b": {"dataset": "d"}},
    }
    if name in special:
        return special[name]
    for annotation in _types(field.annotation):
        if get_origin(annotation) is Literal:
            return next(option for option in get_args(annotation) if option != value)
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value // 2 if value > 1 else value + 1
    if isinstance(value, float):
        return value * 0.5 if value else 0.25
    if isinstance(value, str):
        return f"{value}x"
    kinds = [t for t in _types(field.annotation) if t is not type(None)]
    return 1 if int in kinds else 0.5 if float in kinds else "other"


def _file(directory: Path, name: str = "template.jinja") -> Path:
    path = directory / name
    path.write_text("{{ messages }}")
    return path
