"""One result made in this process: what is kept of the code that makes it, and what is not made again."""

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from sft.runtime import code_records, manifest, stage
from sft.workflow.planned import from_config

ROOT = Path(__file__).resolve().parents[2]
PARTS = {"score.py": {"make": "1"}}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return node(tmp_path / "results/scores")


def node(directory: Path, **more: Any) -> Path:
    directory.mkdir(parents=True)
    document = {"rule": "score", "id": "scores", "config": {}, "identity": {}, "inputs": {}}
    (directory / "config.json").write_text(json.dumps(document | more))
    return directory


def make(directory: Path, code: str = "0" * 64) -> dict[str, Any]:
    def work(of: stage.Stage) -> None:
        of.output("out").write_text("made")

    stage._make(stage.Stage(directory, Namespace(threads=1)), work, (code, PARTS))
    made = manifest.read(directory)
    assert made is not None
    return made


def test_code_that_stays_is_what_made_it(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "code_digest_again", lambda rule: "0" * 64)
    assert make(directory)["code"] == "0" * 64
    assert code_records.read(directory, "0" * 64) == PARTS


def test_code_that_was_edited_meanwhile_is_neither_of_both(
    directory: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(stage, "code_digest_again", lambda rule: "1" * 64)
    made = make(directory)
    assert made["code"] not in ("0" * 64, "1" * 64)
    assert code_records.read(directory, made["code"]) == PARTS
    assert "edited meanwhile" in capsys.readouterr().err


@pytest.mark.parametrize("fault", ["a file", "not writable"])
def test_no_result_is_lost_where_the_code_cannot_be_recorded(
    directory: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], fault: str
) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(13, "Permission denied", "results/code")

    monkeypatch.setattr(stage, "code_digest_again", lambda rule: "0" * 64)
    if fault == "a file":
        (directory.parent / "code").write_text("")
    else:
        monkeypatch.setattr(code_records, "keep", refused)
    assert make(directory)["outputs"].keys() == {"out"}
    assert "not kept: what the code was" in capsys.readouterr().err


def test_what_a_job_makes_first_is_kept_as_the_policy_says(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "code_digest_again", lambda rule: "0" * 64)
    make(directory)
    assert not stage._is_current(directory, "rerun")
    for policy in ("accept", "warn"):
        assert stage._is_current(directory, policy)
    (directory / "out").unlink()
    assert not stage._is_current(directory, "accept")


def test_the_policy_reaches_the_job(tmp_path: Path) -> None:
    for policy in ("rerun", "accept"):
        plan = from_config([ROOT / "config/config.yaml"], {"code_policy": policy}).plan
        planned = next(node for node in plan.nodes.values() if node.first)
        written = node(tmp_path / policy, **planned.document())
        assert stage.Stage(written, Namespace(threads=1)).code_policy == policy
