"""Files on the web: digests, mirrors, broken and killed downloads; and several places for the same files.

Tests: sft.sources.addresses
"""

import hashlib
import io
import json
import os
import random
import signal
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from hub_bench import NAME, Bench, open_bench, tables
from sft.config.errors import ConfigError
from sft.config.reader import load
from sft.planning.planner import make_plan

ROWS = b'{"id": 1, "prompt": "a", "completion": "b"}\n'
LARGE = b'{"id": 1, "prompt": "%s"}\n' % random.Random(0).randbytes(6_000_000).hex().encode()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with open_bench(tmp_path) as bench:
        bench.hub.files = {"rows.jsonl": ROWS, "copy/rows.jsonl": ROWS, "large.jsonl": LARGE}
        yield bench


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def one(bench: Bench, name: str = "rows.jsonl", content: bytes = ROWS, **more) -> dict:
    """A file at an address of the stand-in, as `download` has it."""
    url = f"{bench.hub.endpoint}/files/{name}"
    return {"name": name, "sha256": sha256(content), "url": url, "mirrors": [], "unpack": None} | more


@pytest.mark.slow
def test_a_file_is_fetched_and_told(bench):
    made = bench.make("got", {"download": [one(bench)]})
    assert made["outputs"] == {"files/rows.jsonl": {"bytes": len(ROWS), "sha256": sha256(ROWS)}}
    assert made["facts"]["rows"] == {"rows.jsonl": 1}
    assert not (bench.folder / "got/.begun").exists()


@pytest.mark.slow
def test_mirrors_serve_when_the_address_does_not(bench):
    bench.hub.refuse("/files/rows", 404)
    mirrors = [f"{bench.hub.endpoint}/files/none.jsonl", f"{bench.hub.endpoint}/files/copy/rows.jsonl"]
    bench.make("got", {"download": [one(bench, mirrors=mirrors)]})
    error = bench.refused("wrong", {"download": [one(bench, mirrors=mirrors, sha256="0" * 64)]})
    assert "/files/rows.jsonl: HTTP 404; " in error
    assert f"/files/copy/rows.jsonl: the file there has sha256 {sha256(ROWS)}, the configuration says 0000" in error


@pytest.mark.slow
def test_a_broken_and_a_killed_download_are_taken_up_where_they_were(bench):
    source = {"download": [one(bench, "large.jsonl", LARGE)]}
    bench.hub.cut("large", after=10_500_000)
    bench.hub.hold("large", after=11_000_000 - 10 * 2**20)
    directory = bench.config("got", source)
    with subprocess.Popen(**bench.command(directory), stderr=subprocess.DEVNULL) as process:
        assert bench.hub.held.wait(60)
        process.send_signal(signal.SIGKILL)
    bench.hub.release()
    assert not (directory / "files").exists()
    made = bench.make("got", source)
    assert made["outputs"]["files/large.jsonl"]["sha256"] == sha256(LARGE)
    # The transfer writes pieces of 10 MiB: one had come when the connection broke, and stood there after the kill.
    assert [request.range for request in bench.hub.asked("large")] == [None, *[f"bytes={10 * 2**20}-"] * 2]


@pytest.mark.slow
def test_what_stands_there_of_another_file_is_begun_anew(bench):
    for name, there in (("shorter", b"x"), ("longer", b"x" * 1000)):
        source = {"download": [one(bench)]}
        begun = bench.config(name, source) / ".begun"
        begun.mkdir()
        (begun / sha256(ROWS)).write_bytes(there)
        assert bench.make(name, source)["outputs"]["files/rows.jsonl"]["sha256"] == sha256(ROWS)


@pytest.mark.slow
def test_files_of_an_archive(bench):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        member = tarfile.TarInfo("release/train.jsonl")
        member.size = len(ROWS)
        tar.addfile(member, io.BytesIO(ROWS))
    bench.hub.files["release.tar.gz"] = packed.getvalue()
    source = {"download": [one(bench, "release.tar.gz", packed.getvalue(), unpack=["*/train.jsonl"])]}
    assert bench.make("got", source)["facts"]["rows"] == {"release/train.jsonl": 1}
    assert not list((bench.folder / "got").glob(".attempt-*"))


@pytest.mark.slow
def test_offline_an_address_is_told_as_such(bench):
    assert "/files/rows.jsonl: offline (HF_HUB_OFFLINE)" in bench.refused(
        "got", {"download": [one(bench)]}, offline=True
    )
    assert not bench.hub.requests


def content(files: dict[str, bytes], folder: Path) -> str:
    """As a person would find it: `sha256sum FILES | sha256sum`."""
    for name, held in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(held)
    listed = subprocess.run(
        ["sha256sum", *sorted(files)], cwd=folder, capture_output=True, check=True, env=os.environ | {"LC_ALL": "C"}
    )
    return sha256(listed.stdout)


@pytest.mark.slow
def test_the_first_alternative_that_has_the_files_serves(bench):
    digest = content(tables(), bench.folder / "mirror")
    (bench.folder / "other").mkdir()
    (bench.folder / "other/train.jsonl").write_bytes(ROWS)
    hub = {"hub": NAME, "revision": "main", "files": ["data/*"], "labels": None}
    places = [{"path": str(bench.folder / name)} for name in ("absent", "other", "mirror")]
    source = {"name": "questions", "content": digest, "alternatives": [*places, hub]}
    made = bench.make("got", source)["facts"]
    assert made["served_by"] == {"number": 3, **places[2]}
    assert "absent: no such directory or file" in made["passed_over"][0]
    assert made["passed_over"][1].startswith("alternative 2 has other files (content: ")
    assert not bench.hub.requests
    assert "source_files" not in made  # the mirror may go, and makes nothing stale
    local = json.loads((bench.folder / "got/manifest.json").read_text())["content"]
    made = bench.make("remote", source | {"alternatives": [places[0], hub]})
    assert (made["facts"]["served_by"]["number"], made["content"]) == (2, local)
    assert made["facts"]["commit"] == bench.head()
    bench.hub.publish("dataset", NAME, {"data/test-0.parquet": None})
    error = bench.refused("none", source | {"alternatives": [places[0], hub]})
    assert f"no alternative of questions has the files of content {digest}: alternative 1: source " in error
    assert "alternative 2 has other files (content: " in error


def study(folder: Path, source: str) -> Path:
    file = folder / "study.yaml"
    file.write_text(
        f"datasets:\n  q:\n    source: {source}\n"
        "    format: prompt_completion\n    prompt_key: prompt\n    completion_key: completion\n"
        "    split: {validation: {rows: 5}}\n"
        "models: {m: {source: {initialise: llama}}}\n"
        "experiments: {e: {dataset: q, model: m, method: full, training: "
        "{learning_rate: 1e-3, global_batch_size: 8, max_steps: 2, max_length: 64}}}\n"
    )
    return file


def source_node(folder: Path, source: str):
    nodes = make_plan(load([study(folder, source)])).nodes.values()
    return next(node for node in nodes if node.rule == "download_dataset")


def test_places_are_no_identity_and_bytes_are(tmp_path):
    digests = "0" * 64, "1" * 64
    one = "{download: [{name: a.csv, sha256: '%s', url: 'https://%s/a.csv'%s}]}"
    several = "{name: words, content: '%s', alternatives: [{path: %s}, {hub: a/b}]}"
    for first, same, other in (
        (
            one % (digests[0], "a.org", ""),
            one % (digests[0], "b.org", ", mirrors: ['https://c.org/x']"),
            one % (digests[1], "a.org", ""),
        ),
        (several % (digests[0], "/mnt/x"), several % (digests[0], "/scratch/y"), several % (digests[1], "/mnt/x")),
    ):
        nodes = [source_node(tmp_path, text) for text in (first, same, other)]
        assert nodes[0].id == nodes[1].id != nodes[2].id
        assert nodes[0].config != nodes[1].config
    assert nodes[0].id.startswith("words-")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{download: [{name: a.csv, sha256: SHA, url: 'ftp://a.org/a'}]}", "is no address of a file: write https://"),
        (
            "{download: [{name: a.csv, sha256: SHA, url: 'https://me:secret@a.org/a'}]}",
            "must not hold a name or password",
        ),
        (
            "{download: [{name: ../a.csv, sha256: SHA, url: 'https://a.org/a'}]}",
            "is no name of a file inside the source",
        ),
        ("{download: [{name: a.csv, url: 'https://a.org/a'}]}", "download[0].sha256: is missing"),
        (
            "{download: [{name: a, sha256: SHA, url: 'https://a/a'}, {name: a, sha256: SHA, url: 'https://a/b'}]}",
            "two files",
        ),
        ("{name: x, alternatives: [{path: a}]}", "content: is missing"),
        ("{name: x, content: SHA, alternatives: [{package: scikit-learn}]}", "an alternative is {path: …}"),
    ],
)
def test_what_make_check_says(tmp_path, source, message):
    with pytest.raises(ConfigError) as caught:
        load([study(tmp_path, source.replace("SHA", "'" + "0" * 64 + "'"))])
    assert message in str(caught.value)
    assert "secret" not in str(caught.value)
