"""Overlays: a second file that changes what the first defines, as twins do, and what is said of a wrong one."""

from pathlib import Path

import pytest

from sft.config.errors import ConfigError
from sft.config.reader import load
from sft.planning.planner import make_plan

BASE = """\
datasets:
  digits:
    source: {package: scikit-learn, name: digits}
    format: multiple_choice
    prompt_key: question
    choice_key: choices
    answer_key: correct_answer
    image_keys: [image]
    split: {validation: {rows: 200}}
models:
  large: {source: {initialise: qwen2_5_vl, hidden_size: 1024}}
experiments:
  one:
    dataset: digits
    model: large
    seeds: [0, 1]
    training: {learning_rate: 1e-3, global_batch_size: 64, num_train_epochs: 5, max_length: 64}
    variants:
      full: {method: full}
      lora: {method: lora, lora: {r: 8}}
  two:
    dataset: digits
    model: large
    method: full
    training: {learning_rate: 1e-3, global_batch_size: 64, max_steps: 5, max_length: 64}
"""
TWIN = """\
overlay: true
models:
  large: {source: {initialise: qwen2_5_vl, hidden_size: 64, num_layers: 1}}
experiments:
  one:
    seeds: [0]
    training: {num_train_epochs: null, max_steps: 4}
    training.global_batch_size: 8
    variants: {lora: {training.learning_rate: 5e-3}}
"""


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    (tmp_path / "base.yaml").write_text(BASE)
    (tmp_path / "twin.yaml").write_text(TWIN)
    return [tmp_path / "base.yaml", tmp_path / "twin.yaml"]


@pytest.mark.parametrize("order", [1, -1])
def test_an_overlay_changes_what_it_names_and_nothing_else(files: list[Path], order: int) -> None:
    study = load(files[::order])
    one, two = study.experiments["one"], study.experiments["two"]
    assert study.models["large"].source.hidden_size == 64
    assert study.datasets["digits"] == load(files[:1]).datasets["digits"]
    assert one.frame.seeds == (0,)
    full, lora = one.cells["full"].content, one.cells["lora"].content
    assert (full.training.max_steps, full.training.num_train_epochs, full.training.max_length) == (4, None, 64)
    assert full.training.global_batch_size == lora.training.global_batch_size == 8
    assert (full.training.learning_rate, lora.training.learning_rate) == (1e-3, 5e-3)
    assert (lora.method, lora.lora.r) == ("lora", 8)
    assert two.cells["full"].content.training.global_batch_size == 64


def test_a_twin_is_another_run(files: list[Path]) -> None:
    ids = [{run.train.id for of in make_plan(load(part)).runs.values() for run in of} for part in (files[:1], files)]
    assert len(ids[1]) == 3
    assert not ids[0] & ids[1]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("one:", "ones:", "twin.yaml:5: experiments.ones: there is no experiment ones to change (did you mean one?)"),
        ("large:", "larg:", "twin.yaml:3: models.larg: there is no model larg to change (did you mean large?)"),
        ("seeds: [0]", "seedz: [0]", "twin.yaml:6: experiments.one.seedz: unknown key. Did you mean seeds?"),
        ("max_steps: 4", "max_steps: many", "twin.yaml:7: experiments.one.training.max_steps: expected a whole number"),
        ("size: 8", "size: x", "twin.yaml:8: experiments.one.training.global_batch_size: expected a whole number"),
        ("hidden_size: 64", "hidden_size: 65", "twin.yaml:3: models.large.source.hidden_size"),
        ("[0]", "[0]\n    model: small", "twin.yaml:7: experiments.one.model: there is no model small"),
        ("num_train_epochs: null, ", "", "both given of max_steps and num_train_epochs"),
        ("overlay: true", "overlay: 1", "twin.yaml:1: overlay: is neither true nor false"),
        ("overlay: true\n", "", "twin.yaml:2: models.large: is defined differently in"),
        (
            "{source: {initialise: qwen2_5_vl, hidden_size: 64, num_layers: 1}}",
            "tiny",
            "models.large: is not a mapping",
        ),
        ("hidden_size: 64, num_layers: 1", "hidden_size: 1024", "twin.yaml:3: models.large: changes nothing"),
        ("overlay: true", "overlay: true\ndatasets:\n  digits: {extends: nothing}", "there is no data set nothing"),
    ],
)
def test_a_wrong_overlay_is_named_where_it_is_written(files: list[Path], old: str, new: str, said: str) -> None:
    files[1].write_text(TWIN.replace(old, new, 1))
    with pytest.raises(ConfigError) as error:
        load(files)
    assert said in str(error.value)


def test_an_overlay_alone_has_nothing_to_change(files: list[Path]) -> None:
    with pytest.raises(ConfigError, match="there is no experiment one to change"):
        load(files[1:])
