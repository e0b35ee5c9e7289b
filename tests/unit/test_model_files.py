"""Which files of a published model are taken, which are refused, and how they are shared.

Tests: sft.models.model_directory, sft.models.model_kind, sft.terms.model_names
"""

import json
from pathlib import Path

import pytest

from sft.models.model_directory import converted_steps, model_directory
from sft.models.model_files import copy_model, needs_safetensors, refuse_remote_code, weight_files
from sft.models.model_kind import is_vision, model_config
from sft.runtime import manifest
from sft.runtime.stage import StageError
from sft.terms import model_names
from whole_manifest import output, whole

PARTS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("config.json", "generation_config.json", "tokenizer_config.json"):
        (folder / name).write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def in_parts(model: Path) -> Path:
    (model / "model.safetensors").unlink()
    for part in PARTS:
        (model / part).write_bytes(b"part")
    weight_map = {"a": PARTS[1], "b": PARTS[0], "c": PARTS[0]}
    (model / model_names.INDEX).write_text(json.dumps({"weight_map": weight_map}))
    return model


def test_weights_whole_and_in_parts(model: Path):
    assert [path.name for path in weight_files(model)] == ["model.safetensors"]
    assert [path.name for path in weight_files(in_parts(model))] == PARTS


def test_a_part_that_is_missing(model: Path):
    (in_parts(model) / PARTS[1]).unlink()
    with pytest.raises(StageError, match=f"names files that are not there: {PARTS[1]}. Fetch the model again"):
        weight_files(model)


def test_pickles_only(model: Path):
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    with pytest.raises(StageError, match=r"pickles only \(pytorch_model.bin\), which run code when read"):
        weight_files(model)


def test_neither_weights_nor_configuration(model: Path):
    (model / "model.safetensors").unlink()
    with pytest.raises(StageError, match=r"holds no model.safetensors and no model.safetensors.index.json"):
        weight_files(model)
    (model / "config.json").unlink()
    with pytest.raises(StageError, match=r"holds no config.json: not a Hugging Face model directory"):
        weight_files(model)


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "processor_config.json"])
def test_code_of_the_author_is_refused_wherever_it_is_asked_for(model: Path, name: str):
    refuse_remote_code(model)
    (model / name).write_text(json.dumps({"auto_map": {"AutoModel": "modeling.Model"}}))
    with pytest.raises(StageError, match=f"{name}: auto_map asks to run the model author's own code"):
        refuse_remote_code(model)
    with pytest.raises(StageError, match=f"owner/name: {name}: auto_map"):
        refuse_remote_code(model, "owner/name")


def test_no_directory(tmp_path: Path):
    with pytest.raises(StageError, match="nowhere is no directory"):
        refuse_remote_code(tmp_path / "nowhere")


def test_a_copy_has_weights_as_links_and_configuration_as_files(model: Path, tmp_path: Path):
    copy_model(model, tmp_path / "taken")
    taken = {path.name for path in (tmp_path / "taken").iterdir()}
    assert taken == {"config.json", "generation_config.json", "model.safetensors"}, "no tokenizer: it has a rule"
    assert (tmp_path / "taken/model.safetensors").samefile(model / "model.safetensors")
    assert not (tmp_path / "taken/config.json").samefile(model / "config.json")


def test_a_copy_of_parts_has_their_index(model: Path, tmp_path: Path):
    copy_model(in_parts(model), tmp_path / "taken")
    assert {path.name for path in (tmp_path / "taken").iterdir()} >= {*PARTS, model_names.INDEX}


@pytest.mark.parametrize(
    ("listed", "says"),
    [
        (["model.safetensors"], "no config.json at its top: no model that transformers loads"),
        (["a/config.json", "b/config.json"], "(there is a/config.json; only the top counts)"),
        (["config.json", "pytorch_model.bin"], "but pickles (pytorch_model.bin), which run code when read"),
        (["config.json", "onnx/model.onnx"], "but no weights at its top"),
    ],
)
def test_a_listing_is_judged_before_anything_is_fetched(listed: list[str], says: str):
    with pytest.raises(StageError) as caught:
        needs_safetensors("owner/name", listed)
    assert says in str(caught.value)


def test_listings_of_models():
    needs_safetensors("owner/name", ["config.json", "model.safetensors"])
    needs_safetensors("owner/name", ["config.json", model_names.INDEX, *PARTS])


def test_what_is_taken_of_a_repository():
    listed = [
        "README.md",
        "config.json",
        "model.safetensors",
        "onnx/config.json",
        "tokenizer.json",
        "run.py",
        "vocab.txt",
    ]
    assert model_names.model_files(listed) == ["config.json", "model.safetensors", "tokenizer.json", "vocab.txt"]
    assert model_names.model_files(listed, ["onnx/*", "*.md"]) == ["README.md", "onnx/config.json"]


def test_an_archive_may_put_all_into_a_folder():
    names = ["m-1/config.json", "m-1/model.safetensors", "m-1/onnx/config.json", "LICENSE"]
    assert model_names.at_top(names) == {name.removeprefix("m-1/"): name for name in names[:3]}
    assert model_names.at_top(["a", "b/c"]) == {"a": "a", "b/c": "b/c"}


def test_a_kind_of_model_by_its_configuration(model: Path):
    assert not is_vision(model)
    (model / "config.json").write_text('{"vision_config": {}}')
    assert is_vision(model)
    (model / "config.json").write_text("{")
    with pytest.raises(StageError, match=r"config.json is not valid JSON .* Fetch the model again"):
        model_config(model)
    (model / "config.json").unlink()
    with pytest.raises(StageError, match=r"config.json is missing: .* is not a Hugging Face model directory"):
        model_config(model)


def test_where_the_model_of_a_node_lies(tmp_path: Path):
    base, run = tmp_path / "base", tmp_path / "run"
    (base / "model").mkdir(parents=True)
    assert model_directory(base) == base / "model"
    for step in (10, 9, 120):
        (run / f"step-{step}").mkdir(parents=True)
    with pytest.raises(StageError, match="neither model/ nor a step-<N>/ in it"):
        model_directory(run)
    manifest.write(run, whole(outputs={f"step-{step}/config.json": output() for step in (10, 9)}))
    assert converted_steps(run) == {9: run / "step-9", 10: run / "step-10"}, "120 is nobody's: no manifest has it"
    assert model_directory(run) == run / "step-10"
    assert model_directory(run, 9) == run / "step-9"
    with pytest.raises(StageError, match="no step 120; converted are 9, 10"):
        model_directory(run, 120)
