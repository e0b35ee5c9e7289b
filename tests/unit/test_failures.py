"""What a person reads at the end of a failed workflow: the logs of what was tried and is not there."""

import os
import time
from pathlib import Path

import pytest

from sft.planning.failures import failed_logs, last_lines
from sft.planning.node import Node
from sft.planning.plan import Plan


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    monkeypatch.chdir(tmp_path)
    made = Plan()
    for name in ("failed", "finished", "silent", "older", "waiting"):
        node = made.add(Node("prepare_dataset", name, {}, {"name": name}))
        if name != "waiting":
            Path(node.directory).mkdir(parents=True)
            Path(node.directory, "prepare_dataset.log").write_text("" if name == "silent" else f"error: {name}\n")
        if name == "finished":
            Path(node.manifest).write_text("{}")
        if name == "older":
            os.utime(Path(node.directory, "prepare_dataset.log"), (1, 1))
    return made


def test_only_what_was_tried_now_and_is_not_there(plan: Plan):
    found = dict(failed_logs(plan, time.time() - 60))
    assert [directory.split("/")[-1].rsplit("-", 1)[0] for directory in found] == ["failed"]
    assert [log.read_text() for log in found.values()] == ["error: failed\n"]


def test_last_lines_of_a_short_and_of_a_long_log(tmp_path: Path):
    log = tmp_path / "log"
    log.write_text("one\ntwo\nthree\n")
    assert last_lines(log) == ["one", "two", "three"]
    assert last_lines(log, 2) == ["two", "three"]
    with log.open("w") as file:
        file.writelines(f"line {n}\n" for n in range(200_000))
    assert last_lines(log, 2) == ["line 199998", "line 199999"]


def test_bytes_that_are_no_text(tmp_path: Path):
    (tmp_path / "log").write_bytes(b"caf\xe9\n")
    assert last_lines(tmp_path / "log") == ["caf�"]
