"""What an edit of our source makes again: counted by what making it took, and told by what changed.

Tests: sft.planning.new_code, sft.planning.unfinished, sft.runtime.code_records
"""

import json
import math
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sft.planning.freshness import State, examine
from sft.planning.new_code import device_minutes, new_code
from sft.planning.node import Node
from sft.planning.plan import Plan
from sft.runtime import code_records, manifest
from sft.runtime.canonical import digest
from sft.workflow.guest import Guest
from whole_manifest import whole

TOKENS = Node("tokenize_dataset", "words", {}, {"n": 1})
RUN = Node("train_model", "words", {}, {"n": 2}, {"tokens": TOKENS})
OLD = {"score.py": {"make": "1"}}


@pytest.fixture(autouse=True)
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    monkeypatch.chdir(tmp_path)
    plan = Plan()
    for node in (TOKENS, RUN):
        plan.add(node)
    make(TOKENS)
    return plan


def make(node: Node, **more: Any) -> None:
    Path(node.directory).mkdir(parents=True, exist_ok=True)
    above = {name: {"key": "", "content": ""} for name in node.inputs}
    manifest.write(Path(node.directory), whole(identity_digest=digest(node.identity), inputs=above, code="now", **more))


def begin(code: str, *steps: int) -> None:
    """A run with checkpoints that `code` made, an attempt of two processes, and no manifest."""
    run = Path(RUN.directory)
    for step in steps:
        checkpoint = run / f"checkpoints/checkpoint-{step}"
        checkpoint.mkdir(parents=True)
        (checkpoint / "complete.json").write_text(json.dumps({"step": step, "provenance": {"code": code}}))
    started = "2026-11-20T10:00:00+00:00"
    (run / "attempts.jsonl").write_text(json.dumps({"attempt": 1, "started": started, "processes": 2}) + "\n")
    ended = datetime.fromisoformat(started).timestamp() + 1800
    row = {"attempt": 1, "time": ended, "split": "train", "step": max(steps)}
    (run / "metrics.jsonl").write_text(json.dumps(row) + "\n")


def states(plan: Plan, policy: str = "rerun", **edited: str) -> dict[str, State]:
    return examine(plan, policy, code=lambda rule: edited.get(rule, "now"))


def test_an_unfinished_run_of_other_code_is_told_and_counted(plan: Plan) -> None:
    begin("old", 9, 100)
    found = states(plan)
    assert found[RUN.directory] == State("missing", "its steps so far were trained by other code (100)", True)
    told = new_code(plan, found)
    assert told.rules == {"train_model": 1}
    assert told.minutes == pytest.approx(60)
    assert told.changed == {"train_model": ["there is no record of the code that made it"]}
    kept = states(plan, "accept")
    assert kept[RUN.directory] == State("missing", "not made yet")  # it is continued
    assert new_code(plan, kept).rules == {}


def test_an_unfinished_run_of_this_code_is_continued(plan: Plan) -> None:
    begin("now", 9)
    assert states(plan)[RUN.directory] == State("missing", "not made yet")
    assert new_code(plan, states(plan)).rules == {}
    # Whether its tokens become the same bytes again is not known before.
    assert new_code(plan, states(plan, tokenize_dataset="newer")).rules == {"tokenize_dataset": 1, "train_model": 1}


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"step": 3, "provenance": null}', '{"step": "x"}'])
def test_damaged_records_of_an_unfinished_run_end_nothing(plan: Plan, text: str) -> None:
    begin("old", 9)
    run = Path(RUN.directory)
    (run / "attempts.jsonl").write_text(f"{text}\n")
    assert new_code(plan, states(plan)).rules == {"train_model": 1}
    (run / "checkpoints/checkpoint-9/complete.json").write_text(text)
    assert states(plan)[RUN.directory].reason == "not made yet"


def test_a_missing_input_does_not_hide_what_other_code_made(plan: Plan) -> None:
    make(RUN, wall_seconds=600.0)
    Path(TOKENS.manifest).unlink()
    found = states(plan, train_model="newer")
    assert found[RUN.directory] == State("stale", f"its tokens has to be made again ({TOKENS.id})", True)
    assert new_code(plan, found).minutes == 10
    assert not states(plan, "accept", train_model="newer")[RUN.directory].other_code


@pytest.mark.parametrize(
    ("hours", "minutes"),
    [(0.5, 30), (0, 0), ("not measured", 1), (None, 1), (math.nan, 1), (math.inf, 1), (-1, 1)],
)
def test_what_it_took_is_a_number_that_can_be_compared(hours: Any, minutes: float) -> None:
    assert device_minutes({"facts": {"cost": {"device_hours": hours}}, "wall_seconds": 60}) == minutes


def test_a_manifest_without_costs_costs_nothing() -> None:
    for cost in (None, "not measured", []):
        assert device_minutes({"facts": {"cost": cost}}) == 0
    assert device_minutes({"facts": {}, "wall_seconds": math.nan}) == 0


def test_a_budget_that_cannot_be_compared_stops(plan: Plan) -> None:
    make(RUN, wall_seconds=60.0)
    job = SimpleNamespace(output=[RUN.manifest])
    workflow = SimpleNamespace(dag=SimpleNamespace(needrun_jobs=lambda: [job]))
    study = SimpleNamespace(plan=plan, states=states(plan, train_model="newer"), workflow=workflow, rerun_budget=1)
    Guest(study)._require_budget()
    for budget in (0.5, math.nan):
        study.rerun_budget = budget
        with pytest.raises(SystemExit, match=r"is less than the 1\.0 device-minutes"):
            Guest(study)._require_budget()


@pytest.mark.parametrize("text", ["", "[]", '"x"', "null", '{"parts": []}', '{"parts": {"a.py": ["x"]}}', "\0"])
def test_a_damaged_record_of_the_code_is_none_and_is_written_again(tmp_path: Path, text: str) -> None:
    directory = tmp_path / "results/runs/x"
    record = tmp_path / "results/code/0000000000000000.json"
    record.parent.mkdir(parents=True)
    record.write_text(text)
    assert code_records.read(directory, "0" * 64) is None
    code_records.keep(directory, "score", "0" * 64, OLD)
    assert code_records.read(directory, "0" * 64) == OLD
    written = record.stat().st_mtime_ns
    code_records.keep(directory, "score", "0" * 64, OLD)
    assert record.stat().st_mtime_ns == written
