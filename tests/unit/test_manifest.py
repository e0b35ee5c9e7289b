"""What stands beside every result: written whole or not at all, and what of it makes the key."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sft.runtime import manifest
from whole_manifest import whole


def test_what_is_written_is_read(tmp_path: Path):
    manifest.write(tmp_path, whole(key="1", content="é"))
    assert manifest.read(tmp_path) == whole(key="1", content="é")
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]


@pytest.mark.parametrize("content", [b"", b"{", b'{"key": "\xff"}'])
def test_a_damaged_one_proves_nothing(tmp_path: Path, content: bytes):
    assert manifest.read(tmp_path) is None
    (tmp_path / "manifest.json").write_bytes(content)
    assert manifest.read(tmp_path) is None


@pytest.mark.parametrize(
    "damaged",
    [
        *([], 12, None, {}, "x"),
        *({name: value for name, value in whole().items() if name != left_out} for left_out in whole()),
        whole(schema=99),
        whole(code=None),
        whole(outputs=[]),
        whole(outputs={"a": []}),
        whole(outputs={"a": {"bytes": 1}}),
        whole(inputs={"run": "results/runs/x"}),
        whole(facts={"source_files": []}),
    ],
    ids=repr,
)
def test_one_that_was_written_otherwise_proves_nothing(tmp_path: Path, damaged: Any):
    (tmp_path / "manifest.json").write_text(json.dumps(damaged))
    assert manifest.read(tmp_path) is None


def test_a_folder_of_its_name_proves_nothing(tmp_path: Path):
    (tmp_path / "manifest.json").mkdir()
    assert manifest.read(tmp_path) is None


def test_a_disk_that_is_full_leaves_what_was_there(small_disk: Path):
    manifest.write(small_disk, whole(key="1"))
    with pytest.raises(OSError, match="No space left"):
        manifest.write(small_disk, whole(key="2" * 1_000_000))
    assert manifest.read(small_disk) == whole(key="1")


def test_files_below_a_folder(tmp_path: Path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b/two").write_text("22")
    (tmp_path / "a").write_text("1")
    described = manifest.describe_files(tmp_path, {"b/two": "known"})
    assert list(described) == ["a", "b/two"]
    assert described["a"] == {"bytes": 1, "sha256": hashlib.sha256(b"1").hexdigest()}
    assert described["b/two"] == {"bytes": 2, "sha256": "known"}


def test_everything_that_a_result_depends_on_is_in_its_key():
    given = {
        "rule": "score",
        "identity": {"a": 1},
        "code": "c",
        "environment": "e",
        "inputs": {"run": {"key": "k", "content": "x", "made": "2026"}},
    }
    changes = [
        {"rule": "predict"},
        {"identity": {"a": 2}},
        {"code": "d"},
        {"environment": "f"},
        {"inputs": {"run": {"key": "l", "content": "x"}}},
        {"inputs": {"run": {"key": "k", "content": "y"}}},
        {"inputs": {"base": {"key": "k", "content": "x"}}},
        {"inputs": {}},
    ]
    keys = {manifest.full_key(**given), *(manifest.full_key(**given | change) for change in changes)}
    assert len(keys) == 1 + len(changes)
    again = {"run": {"content": "x", "key": "k", "made": "2027"}}
    assert manifest.full_key(**given | {"inputs": again}) == manifest.full_key(**given)


def test_only_packages_that_were_imported_are_recorded():
    scripts = Path(manifest.__file__).parents[2]
    program = "import sys; sys.path.insert(0, sys.argv[1]); import numpy; from sft.runtime import manifest; "
    done = subprocess.run(
        [sys.executable, "-c", program + "print(sorted(manifest.imported_versions()))", scripts],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "['numpy']\n"


def test_the_commit_and_whether_files_differ_from_it(tmp_path: Path):
    assert manifest.git_state(tmp_path) == {"commit": None, "dirty": None}
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@localhost"]
    (tmp_path / "a").write_text("1")
    for command in (["init", "-q"], ["add", "a"], ["commit", "-qm", "First"]):
        subprocess.run([*git, *command], check=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    assert manifest.git_state(tmp_path) == {"commit": commit, "dirty": False}
    (tmp_path / "new").write_text("")
    assert manifest.git_state(tmp_path)["dirty"] is False, "results lie beside the code"
    (tmp_path / "a").write_text("2")
    assert manifest.git_state(tmp_path) == {"commit": commit, "dirty": True}
