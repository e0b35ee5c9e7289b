"""What sections of a configuration refuse: keys that exclude each other, and values that fit no run.

Tests: sft.config.audit_settings, sft.config.dataset, sft.config.distributed, sft.config.experiment,
sft.config.model, sft.config.optional_libraries, sft.config.source, sft.config.study, sft.config.training_settings
"""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from small_studies import DIGITS

from sft.config.errors import ConfigError
from sft.config.reader import load

SHA = "0" * 64
TRAINING = {"learning_rate": 1e-3, "global_batch_size": 64, "max_steps": 120, "max_length": 64}
GOOD: dict[str, Any] = {
    "datasets": {"digits": DIGITS},
    "models": {"tiny": {"source": {"initialise": "qwen2_5_vl"}}},
    "experiments": {"first": {"dataset": "digits", "model": "tiny", "method": "full", "training": TRAINING}},
}
DATA, MODEL, RUN = ("datasets", "digits"), ("models", "tiny", "source"), ("experiments", "first")


def file(name: str, **more: Any) -> dict[str, Any]:
    return {"url": f"https://a.example/{name}", "sha256": SHA, "name": name} | more


def model(*names: str, **more: Any) -> dict[str, Any]:
    return {"name": "m", "download": [file(name) for name in names]} | more


def alternatives(*places: dict[str, Any]) -> dict[str, Any]:
    return {"name": "m", "content": SHA, "alternatives": list(places)}


WHOLE = ("config.json", "model.safetensors", "tokenizer.json")
TEXT = {"format": "language_modelling", "text_key": "text", "choice_key": None, "answer_key": None, "prompt_key": None}

# what it is: (place, what stands there, what the message says)
TABLE: dict[str, tuple[tuple[str, ...], Any, str]] = {
    "two processes without a strategy": (
        (*RUN, "training", "distributed"),
        {"processes": 2},
        "none is one process, not 2 on 1 nodes. Write strategy: ddp",
    ),
    "processes that nodes cannot share": (
        (*RUN, "training", "distributed"),
        {"strategy": "ddp", "processes": 4, "nodes": 3},
        "4 cannot be spread evenly over 3 nodes",
    ),
    "offloading without DeepSpeed": (
        (*RUN, "training", "distributed"),
        {"strategy": "ddp", "processes": 2, "offload": True},
        "is DeepSpeed's, and strategy is ddp",
    ),
    "rows that processes cannot share": (
        (*RUN, "training", "distributed"),
        {"strategy": "ddp", "processes": 6},
        "64 rows cannot be shared by 6 processes evenly. 66 would be",
    ),
    "an optimizer that cannot be in shards": (
        (*RUN, "training"),
        TRAINING | {"optim": "adafactor", "distributed": {"strategy": "fsdp2", "processes": 2}},
        "adafactor keeps a state that strategy fsdp2 cannot shard with the weights",
    ),
    "DeepSpeed in an environment without it": (
        (*RUN, "training", "distributed"),
        {"strategy": "deepspeed_zero2", "processes": 2},
        "deepspeed_zero2 needs DeepSpeed, which the project's own environment does not have (cell full)",
    ),
    "Unsloth in an environment without it": (
        (*RUN, "training", "backend"),
        "unsloth",
        "backend unsloth needs Unsloth, which the project's own environment does not have",
    ),
    "a pattern that is none": ((*RUN, "training", "frozen"), ["model.("], "'model.(' is no pattern: missing )"),
    "frozen weights under an adapter": (
        RUN,
        {"method": "lora", "training": TRAINING | {"frozen": ["model"]}},
        "has no effect with method lora: the base is frozen anyway",
    ),
    "an adapter on tied embeddings": (
        RUN,
        {"method": "lora", "lora": {"target_modules": ["embed_tokens"]}},
        "embed_tokens cannot be merged where embeddings are tied. Put it into modules_to_save",
    ),
    "layers beside a pattern": (
        RUN,
        {"method": "lora", "lora": {"layers": [0]}},
        "PEFT reads no layers beside target_modules: all-linear",
    ),
    "layers that are none": (
        RUN,
        {"method": "lora", "lora": {"layers": [-1], "target_modules": ["q_proj"]}},
        "[-1] are no numbers of layers. Count from 0",
    ),
    "DoRA that FSDP 1 has wrapped": (
        RUN,
        {
            "method": "lora",
            "lora": {"use_dora": True},
            "training": TRAINING | {"distributed": {"strategy": "fsdp1", "processes": 2}},
        },
        "lora.use_dora: PEFT does not save it from models that FSDP 1 has wrapped",
    ),
    "an encoder that is nowhere": (
        (*RUN, "audit"),
        {"embedding": {"similarity": 0.8}},
        "needs exactly one of path and wheel",
    ),
    "an encoder without a digest": (
        (*RUN, "audit"),
        {"embedding": {"wheel": "a==1"}},
        "sha256: is the wheel's, and each needs the other",
    ),
    "a template that nothing reads": (
        (*DATA, "text_template"),
        "{{ question }}",
        "text_template: has no effect with format multiple_choice",
    ),
    "two system messages": (
        DATA,
        {"system": "Be brief.", "system_key": "instructions"},
        "system_key: and system are both given",
    ),
    "a system message for text without roles": (
        DATA,
        TEXT | {"system": "Be brief."},
        "language_modelling has no system message and no pictures",
    ),
    "data that a package does not carry": (
        (*DATA, "source"),
        {"package": "scikit-learn", "name": "capybara"},
        "scikit-learn carries no capybara. It carries digits",
    ),
    "a pickle of weights": (
        MODEL,
        model("config.json", "pytorch_model.bin"),
        "pytorch_model.bin is a pickle, which runs code when it is read",
    ),
    "a file that no model has": (MODEL, model(*WHOLE, "run.exe"), "run.exe is no file of a model that is read here"),
    "weights without a configuration": (
        MODEL,
        model("model.safetensors", "tokenizer.json"),
        "these files are no model: config.json and model.safetensors are needed",
    ),
    "a pickle among alternatives": (
        MODEL,
        alternatives({"hub": "a/b"}, {"download": [file("config.json"), file("pytorch_model.bin")]}),
        "pytorch_model.bin is a pickle",
    ),
    "labels of a model": (
        MODEL,
        alternatives({"path": "/elsewhere/model", "labels": "folder_name"}),
        "labels is of data sets, and this is a model",
    ),
}


def changed(place: tuple[str, ...], value: Any) -> dict[str, Any]:
    """GOOD with `value` at `place`; a mapping is merged into the data set or the experiment that is there."""
    study = copy.deepcopy(GOOD)
    above = study
    for key in place[:-1]:
        above = above.setdefault(key, {})
    merged = place in (DATA, RUN)
    above[place[-1]] = above[place[-1]] | value if merged else value
    return {
        section: {name: _without_none(entry) for name, entry in entries.items()} for section, entries in study.items()
    }


def _without_none(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if value is not None}


def told(study: dict[str, Any], folder: Path, **overrides: Any) -> list[str]:
    """The lines of what is wrong with a study; empty where nothing is."""
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(study, sort_keys=False))
    try:
        load([path], overrides)
    except ConfigError as error:
        return [line.removeprefix(f"{path}:") for line in str(error).splitlines()]
    return []


@pytest.mark.parametrize("what", TABLE)
def test_refused_with_key_and_fix(what: str, tmp_path: Path):
    place, value, says = TABLE[what]
    lines = told(changed(place, value), tmp_path)
    assert any(says in line for line in lines), lines


def test_what_is_refused_beside_is_taken_alone(tmp_path: Path):
    assert told(GOOD, tmp_path) == []
    for place, value in {
        (*RUN, "training", "distributed"): {"strategy": "ddp", "processes": 4, "nodes": 2},
        (*DATA, "system"): "Be brief.",
        MODEL: model(*WHOLE),
        (*RUN, "training", "frozen"): [r"model\.embed"],
    }.items():
        assert told(changed(place, value), tmp_path) == [], place


def test_a_run_of_several_cells_needs_the_name_of_one(tmp_path: Path):
    study = copy.deepcopy(GOOD)
    study["experiments"]["first"]["grid"] = {"training.learning_rate": [1e-3, 2e-3]}
    study["experiments"]["second"] = study["experiments"]["first"] | {"model": {"run": "first"}, "grid": {}}
    (line,) = told(study, tmp_path)
    assert (
        "experiment first has several cells; name one of first/learning_rate-0.001, first/learning_rate-0.002" in line
    )


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("threadz", 2, "--config: threadz: unknown key (did you mean threads?)"),
        ("threads", "many", "--config: threads: 'many' is not a value of this key"),
        ("execution.threads", 0, "--config: threads: 0 is not a value of this key"),
    ],
)
def test_overrides_of_the_command_line(key: str, value: Any, says: str, tmp_path: Path):
    assert any(says in line for line in told(GOOD, tmp_path, **{key: value}))


def test_an_override_counts_more_than_the_file(tmp_path: Path):
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(GOOD | {"execution": {"threads": 2}}))
    assert load([path]).execution.threads == 2
    assert load([path], {"threads": 3}).execution.threads == 3
    assert load([path], {"execution.threads": 4}).execution.threads == 4


@pytest.mark.parametrize(
    ("extends", "says"),
    [("digitz", "there is no data set digitz (did you mean digits?)"), ("more", "more -> more is a circle")],
)
def test_a_data_set_that_extends_nothing_or_itself(extends: str, says: str, tmp_path: Path):
    study = copy.deepcopy(GOOD)
    study["datasets"]["more"] = DIGITS | {"extends": extends}
    assert any(says in line for line in told(study, tmp_path))


def test_an_experiment_that_is_no_mapping(tmp_path: Path):
    study = copy.deepcopy(GOOD)
    study["experiments"]["second"] = "first"
    assert any("experiments.second: is not a mapping" in line for line in told(study, tmp_path))
