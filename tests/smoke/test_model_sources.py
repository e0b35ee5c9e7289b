"""Base models from the web and from the first of several places: the same files for tokenizer and weights.

Tests: sft.sources.fetched
"""

import hashlib
import io
import json
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hub_bench import Bench, open_bench, publish_tiny_llama
from sft.config.errors import ConfigError
from sft.config.reader import load
from sft.planning.planner import make_plan
from sft.sources.fetched import content

NAME = "someone/tiny-llama"


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama in two shards, with tokenizer, template, card, and what nobody should take."""
    folder = publish_tiny_llama(tmp_path_factory.mktemp("model"))
    (folder / "modeling.py").write_text("raise SystemExit('was run')")
    (folder / "pytorch_model.bin").write_bytes(b"a pickle")
    return folder


def taken(folder: Path) -> dict[str, bytes]:
    """The files of the model that are to be taken, by name."""
    kinds = (".safetensors", ".jinja", ".json")
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.suffix in kinds}


def sha256(held: bytes) -> str:
    return hashlib.sha256(held).hexdigest()


@pytest.fixture
def bench(tmp_path: Path, published: Path) -> Iterator[Bench]:
    with open_bench(tmp_path) as bench:
        bench.hub.publish_folder("model", NAME, published)
        bench.hub.files = {f"m/{name}": held for name, held in taken(published).items()}
        yield bench


def on_the_web(bench: Bench, **changed: Any) -> dict[str, Any]:
    """The model at addresses of the stand-in; `changed`: keys of config.json's entry."""
    files = []
    for name, held in bench.hub.files.items():
        entry = {"name": name.removeprefix("m/"), "sha256": sha256(held), "url": f"{bench.hub.endpoint}/files/{name}"}
        files.append(entry | {"mirrors": [], "unpack": None} | (changed if name == "m/config.json" else {}))
    return {"name": "tiny", "download": files}


def run(bench: Bench, rule: str, source: dict[str, Any], **inputs: str) -> subprocess.CompletedProcess:
    given = {name: str(bench.folder / path) for name, path in inputs.items()}
    directory = bench.config(rule, source, rule, inputs=given, config={"chat_template": None})
    return subprocess.run(**bench.command(directory, rule), capture_output=True)


def made(bench: Bench, rule: str, source: dict[str, Any], **inputs: str) -> dict[str, Any]:
    done = run(bench, rule, source, **inputs)
    assert done.returncode == 0, done.stderr
    return json.loads((bench.folder / rule / "manifest.json").read_text())


def refused(bench: Bench, source: dict[str, Any]) -> str:
    """The error of files that must not be taken, with nothing left under a final name."""
    directory = bench.config("refused", source, "download_model_files")
    done = subprocess.run(**bench.command(directory, "download_model_files"), capture_output=True)
    assert done.returncode == 1, done.stdout + done.stderr
    assert not (directory / "files").exists()
    assert ".attempt-" not in done.stderr
    return done.stderr[done.stderr.index("error: ") :].strip()


def assert_taken(found: dict[str, Any], published: Path) -> None:
    digests = {name.removeprefix("files/"): entry["sha256"] for name, entry in found["outputs"].items()}
    assert digests == {name: sha256(held) for name, held in taken(published).items()}


def is_the_published_model(bench: Bench, source: dict[str, Any], published: Path) -> None:
    from sft.models.loading import load_model
    from sft.models.weight_check import check_loaded

    asked = len(bench.hub.requests)
    # As planned: both are told what identifies the files, and not where these were fetched.
    keys = {key: source[key] for key in ("name", "content") if key in source}
    made(bench, "download_processor", keys, files="download_model_files")
    made(bench, "download_model", keys, files="download_model_files", processor="download_processor")
    assert len(bench.hub.requests) == asked  # both read the files that are there
    model = load_model(bench.folder / "download_model/model")
    assert check_loaded(model, published) == len(list(model.parameters()))
    (shard,) = (bench.folder / "download_model/model").glob("model-00001-of-*.safetensors")
    assert shard.samefile(bench.folder / "download_model_files/files" / shard.name)


def test_files_on_the_web_make_tokenizer_and_weights(bench, published):
    bench.hub.refuse("/files/m/config", 404)
    bench.hub.files["copy"] = bench.hub.files["m/config.json"]
    source = on_the_web(bench, mirrors=[f"{bench.hub.endpoint}/files/copy"])
    source["download"] = [one for one in source["download"] if one["name"] != "copy"]
    found = made(bench, "download_model_files", source)
    assert_taken(found, published)
    is_the_published_model(bench, source, published)


def test_a_wrong_digest_names_the_file_and_a_missing_shard_is_told(bench):
    error = refused(bench, on_the_web(bench, sha256="0" * 64))
    held = bench.hub.files["m/config.json"]
    assert f"/files/m/config.json: the file there has sha256 {sha256(held)}, the configuration says 0000" in error
    source = on_the_web(bench)
    source["download"] = [one for one in source["download"] if "00002-of" not in one["name"]]
    assert "tiny: model.safetensors.index.json names files that are not there: model-00002-of-" in refused(
        bench, source
    )


def packed(files: dict[str, bytes]) -> bytes:
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w:gz") as tar:
        for name, held in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(held)
            tar.addfile(member, io.BytesIO(held))
    return whole.getvalue()


def test_an_archive_of_the_directory(bench, published):
    every = {p.relative_to(published).as_posix(): p.read_bytes() for p in published.rglob("*") if p.is_file()}
    source = archive(bench, {f"tiny-1.0/{name}": held for name, held in every.items()})
    found = made(bench, "download_model_files", source)
    # Neither card nor pickle, code or another format.
    assert_taken(found, published)


def archive(bench: Bench, files: dict[str, bytes]) -> dict[str, Any]:
    whole = packed(files)
    bench.hub.files = {"m/tiny.tar.gz": whole}
    [entry] = on_the_web(bench)["download"]
    return {"name": "tiny", "download": [entry | {"unpack": ["*"]}]}


def test_pickles_and_code_of_the_author_are_refused(bench, published):
    files = taken(published)
    weights = [name for name in files if "safetensors" in name]
    pickled = {name: held for name, held in files.items() if name not in weights} | {"pytorch_model.bin": b"x"}
    assert "but pickles (pytorch_model.bin), which run code when read" in refused(bench, archive(bench, pickled))
    config = json.dumps(json.loads(files["config.json"]) | {"auto_map": {"AutoModel": "modeling.Mine"}}).encode()
    error = refused(bench, archive(bench, files | {"config.json": config, "modeling.py": b"raise SystemExit"}))
    assert "tiny: config.json: auto_map asks to run the model author's own code" in error
    assert "no config.json at its top" in refused(bench, archive(bench, {"a/tokenizer.json": b"{}"}))


def test_the_first_place_that_has_the_files_serves(bench, published, tmp_path):
    files = taken(published)
    other = tmp_path / "other"
    other.mkdir()
    for name, held in (files | {"tokenizer.json": b"{}", "generation_config.json": b"{}"}).items():
        (other / name).write_bytes(held)
    (other / "chat_template.jinja").unlink(missing_ok=True)
    digest = content({name: sha256(held) for name, held in files.items()})
    places = [{"path": str(tmp_path / name), "files": None} for name in ("absent", "other")]
    hub = {"hub": NAME, "revision": "main", "files": None, "labels": None}
    source = {"name": "tiny", "content": digest, "alternatives": [*places, hub]}
    facts = made(bench, "download_model_files", source)["facts"]
    assert (facts["served_by"]["number"], facts["licence"]) == (3, "apache-2.0")
    assert facts["passed_over"][0] == f"alternative 1: source {tmp_path}/absent: no such directory"
    assert "alternative 2 has other files (content: " in facts["passed_over"][1]
    assert "): other bytes in " in facts["passed_over"][1]
    assert "tokenizer.json" in facts["passed_over"][1]
    is_the_published_model(bench, source, published)
    # Nobody has them: the error names the content that was found, and its files.
    error = refused(bench, source | {"content": "0" * 64, "alternatives": [{"path": str(published), "files": None}]})
    assert f"alternative 1 has other files (content: {digest}): " in error
    assert f"config.json {sha256(files['config.json'])[:12]}…" in error


STUDY = """
datasets:
  d:
    source: {package: scikit-learn, name: digits}
    format: multiple_choice
    prompt_key: question
    choice_key: choices
    answer_key: answer
    split: {validation: {rows: 5}}
models: {m: {source: SOURCE}}
experiments:
  e:
    dataset: d
    model: m
    method: full
    training: {learning_rate: 1e-3, global_batch_size: 8, max_steps: 2, max_length: 9}
"""


def study(folder: Path, source: str) -> Path:
    file = folder / "study.yaml"
    file.write_text(STUDY.replace("SOURCE", source.replace("SHA", "'" + "0" * 64 + "'")))
    return file


WHOLE = (
    "{name: m, download: [{name: config.json, sha256: SHA, url: 'https://HOST/a'}, "
    "{name: model.safetensors, sha256: SHA, url: 'https://HOST/b'}]}"
)


def test_both_nodes_read_the_same_files_and_places_are_no_identity(tmp_path):
    several = "{name: m, content: SHA, alternatives: [{path: PATH}, {hub: a/b}]}"
    for first, same, other in (
        (WHOLE.replace("HOST", "a.org"), WHOLE.replace("HOST", "b.org"), WHOLE.replace("SHA", "'" + "1" * 64 + "'")),
        (several.replace("PATH", "/x"), several.replace("PATH", "/y"), several.replace("SHA", "'" + "1" * 64 + "'")),
    ):
        plans = [make_plan(load([study(tmp_path, text)])) for text in (first, same, other)]
        trained = [plan.of_rule("train_model")[0].id for plan in plans]
        assert trained[0] == trained[1] != trained[2]
        [files] = plans[0].of_rule("download_model_files")
        assert files.id.startswith("m-")
        for rule in ("download_processor", "download_model"):
            [node] = plans[0].of_rule(rule)
            assert node.inputs["files"] is files


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (WHOLE.replace("config.json", "pytorch_model.bin"), "pytorch_model.bin is a pickle, which runs code"),
        (WHOLE.replace("model.safetensors", "modeling.py"), "modeling.py is no file of a model that is read here"),
        (WHOLE.replace("model.safetensors", "tokenizer.json"), "these files are no model: config.json and model.safe"),
        (WHOLE.replace("name: m, ", ""), "models.m.source.name: is missing"),
        (
            "{name: m, content: SHA, alternatives: [{download: [{name: a.bin, sha256: SHA, url: 'https://a/b'}]}]}",
            "models.m.source.alternatives: a.bin is a pickle",
        ),
        (
            "{name: m, content: SHA, alternatives: [{hub: a/b, labels: folder_name}]}",
            "models.m.source.alternatives: labels is of data sets, and this is a model. Remove it",
        ),
        ("{name: m, alternatives: [{hub: a/b}]}", "models.m.source.content: is missing"),
        ("{name: m, content: SHA, alternatives: [{initialise: llama}]}", "an alternative is {path: …}"),
        ("{nowhere: m}", "a model source is {hub: …}, {path: …}, {download: […], …}, {alternatives: […], …}"),
    ],
)
def test_what_make_check_says(tmp_path, source, message):
    with pytest.raises(ConfigError) as caught:
        load([study(tmp_path, source)])
    assert message in str(caught.value)
