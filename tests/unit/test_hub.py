"""Data sets of the hub: the real client and the real scripts against a stand-in of its endpoints.

Tests: sft.data.read.repositories, sft.planning.unpinned
"""

import hashlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hub_bench import NAME, Bench, open_bench, tables
from sft.config.errors import ConfigError
from sft.config.reader import load


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with open_bench(tmp_path) as bench:
        yield bench


@pytest.mark.slow
def test_a_branch_becomes_a_commit_and_the_files_are_those_that_are_published(bench):
    made = bench.make("got", {"hub": NAME})
    facts = made["facts"]
    assert facts["commit"] == facts["revision"] == bench.head()
    assert facts["asked_revision"] == "main"
    assert facts["licence"] == "cc-by-4.0"
    assert facts["rows"] == {"data/test-0.parquet": 5, "data/train-0.parquet": 3000}
    assert {name: entry["sha256"] for name, entry in made["outputs"].items()} == {
        f"files/{name}": hashlib.sha256(content).hexdigest() for name, content in tables().items()
    }
    assert f"main may move: pin it with revision: {bench.head()}" in facts["summary"]
    assert not any(request.token for request in bench.hub.requests)


@pytest.mark.slow
def test_a_large_file_is_on_the_disk_once(bench):
    bench.make("got", {"hub": NAME})
    (blob,) = (path for path in bench.cache.rglob("blobs/*") if path.stat().st_size > 100_000)
    assert blob.samefile(bench.folder / "got/files/data/train-0.parquet")


@pytest.mark.slow
@pytest.mark.parametrize("revision", ["v1", "commit"])
def test_a_tag_and_a_commit_name_what_they_named_after_the_branch_moved(bench, revision):
    first = bench.head()
    bench.hub.publish("dataset", NAME, {"data/test-0.parquet": None})
    made = bench.make("got", {"hub": NAME, "revision": first if revision == "commit" else revision})
    assert made["facts"]["commit"] == first
    assert "files/data/test-0.parquet" in made["outputs"]
    assert ("may move" in made["facts"]["summary"]) == (revision == "v1")


def study(folder: Path, revision: str) -> Path:
    file = folder / "study.yaml"
    file.write_text(
        "datasets:\n  q:\n"
        f"    source: {{hub: {NAME}, revision: {revision}}}\n"
        "    format: prompt_completion\n    prompt_key: prompt\n    completion_key: completion\n"
        "    split: {validation: {rows: 5}}\n"
        "models: {m: {source: {initialise: llama}}}\n"
        "experiments: {e: {dataset: q, model: m, method: full, training: "
        "{learning_rate: 1e-3, global_batch_size: 8, max_steps: 2, max_length: 64}}}\n"
    )
    return file


@pytest.mark.slow
def test_check_names_the_commit_to_write_and_a_moved_branch_makes_nothing_stale(bench, monkeypatch):
    from sft.planning.freshness import examine
    from sft.planning.planner import make_plan
    from sft.planning.unpinned import unpinned

    monkeypatch.chdir(bench.folder)
    plan = make_plan(load([study(bench.folder, "main")]))
    (node,) = (node for node in plan.nodes.values() if node.rule == "download_dataset")
    assert node.id.startswith("questions-")
    assert [str(one) for one in unpinned(plan)] == [
        f"{NAME} at main is what that is on the day of the download; pin it with revision: <commit> before you train"
    ]
    Path(node.directory).mkdir(parents=True)
    Path(node.directory, "config.json").write_text(json.dumps(node.document()))
    done = subprocess.run(**bench.command(Path(node.directory)), capture_output=True)
    assert done.returncode == 0, done.stderr
    first = bench.head()
    bench.hub.publish("dataset", NAME, {"data/test-0.parquet": None})
    assert examine(plan)[node.directory].fresh
    assert [str(one) for one in unpinned(plan)] == [
        f"{NAME} at main was fetched at commit {first}; pin it with revision: {first}"
    ]
    assert unpinned(make_plan(load([study(bench.folder, first)]))) == []


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{hub: https://huggingface.co/datasets/a/b}", "is an address. Write the name that stands in it: owner/name"),
        ("{hub: a/b/c}", "is no name of a repository on the hub. Write owner/name"),
        ("{hub: a/b, revision: ../x}", "is no revision: write a commit"),
        ("{hub: a/b, files: []}", "files: needs at least 1 item"),
        ("{hub: a/b, revison: main}", "revison: unknown key. Did you mean revision?"),
    ],
)
def test_what_make_check_says_of_a_source(tmp_path, source, message):
    file = study(tmp_path, "main")
    file.write_text(file.read_text().replace(f"{{hub: {NAME}, revision: main}}", source))
    with pytest.raises(ConfigError) as caught:
        load([file])
    assert message in str(caught.value)
