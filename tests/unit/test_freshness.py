"""Which planned results are taken as they are: the truth table of manifests, without Snakemake."""

import json
import os
from pathlib import Path

import pytest

from sft.planning.freshness import State, examine
from sft.planning.node import Node
from sft.planning.plan import Plan
from sft.runtime import manifest
from sft.runtime.canonical import digest
from sft.runtime.installed import VENV_PYTHON
from sft.sources import local_files
from whole_manifest import output, whole


def code_of(rule: str) -> str:
    return f"code of {rule}"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    Path("data/a.jsonl").write_text("{}\n")


def plan_of(*nodes: Node) -> Plan:
    plan = Plan()
    for node in nodes:
        plan.add(node)
    return plan


def make(node: Node, content: str = "1", facts: dict | None = None) -> None:
    """Finish a node as its script would, with one file."""
    folder = Path(node.directory)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "out").write_text(content)
    above = {name: manifest.read(n.directory) for name, n in node.inputs.items()}
    record = whole(
        identity_digest=digest(node.identity),
        inputs={name: {"key": made["key"], "content": made["content"]} for name, made in above.items()},
        outputs={"out": output(bytes=len(content))},
        content=content,
        facts=facts or {},
        code=code_of(node.rule),
    )
    manifest.write(folder, record)


def finished() -> tuple[Plan, Node, Node]:
    """A source and what is prepared from it, both made."""
    above = Node("download_dataset", "words", {"source": {"path": "data"}}, {"n": 1})
    below = Node("prepare_dataset", "words", {}, {}, {"source": above})
    make(above, facts={"source_files": local_files.describe([Path("data/a.jsonl")])})
    make(below)
    return plan_of(below, above), above, below


def states(plan: Plan, **options: object) -> dict[str, State]:
    return examine(plan, code=code_of, **options)


def reason(plan: Plan, node: Node, **options: object) -> str:
    state = states(plan, **options)[node.directory]
    assert state.status in ("stale", "missing")
    return state.reason


def test_what_is_made_as_planned_is_fresh_in_whatever_order_it_is_planned():
    plan, *_ = finished()
    assert {state.status for state in states(plan).values()} == {"fresh"}


def test_what_is_not_made_is_missing_and_what_comes_after_it_is_stale():
    plan, above, below = finished()
    Path(above.directory, manifest.NAME).unlink()
    assert states(plan)[above.directory] == State("missing", "not made yet")
    assert reason(plan, below) == f"its source has to be made again ({above.id})"


def test_a_touch_is_no_change():
    plan, above, _ = finished()
    for path in (Path("data/a.jsonl"), Path(above.directory, "out"), Path(above.directory, manifest.NAME)):
        os.utime(path, (1, 1))
    assert {state.status for state in states(plan).values()} == {"fresh"}


def test_another_configuration():
    plan, above, _ = finished()
    record = json.loads(Path(above.directory, manifest.NAME).read_text())
    manifest.write(Path(above.directory), record | {"identity_digest": "0" * 64})
    assert reason(plan, above) == "was made from another configuration"


def test_made_from_other_bytes():
    plan, above, below = finished()
    record = manifest.read(above.directory)
    manifest.write(Path(above.directory), record | {"content": "2"})
    assert reason(plan, below) == f"its source is not the one it was made from ({above.id})"


def test_outputs_that_are_gone_or_of_another_size():
    plan, _, below = finished()
    out = Path(below.directory, "out")
    out.write_text("22")
    assert reason(plan, below) == "out was changed after it was made"
    out.unlink()
    assert reason(plan, below) == "out is missing"


def test_files_of_the_user_that_changed_vanished_or_joined():
    plan, above, below = finished()
    Path("data/b.jsonl").write_text("{}\n")
    assert reason(plan, above) == "data/b.jsonl joined the source"
    assert reason(plan, below) == f"its source has to be made again ({above.id})"
    Path("data/b.jsonl").unlink()
    Path("data/a.jsonl").write_text("[]\n")
    assert reason(plan, above) == "its source data/a.jsonl has other bytes now"
    Path("data/a.jsonl").unlink()
    assert reason(plan, above) == "its source data/a.jsonl is gone"


def test_documents_that_joined():
    Path("a.md").write_text("# A\n")
    node = Node("download_dataset", "docs", {"source": {"markdown": ["*.md"]}}, {})
    make(node, facts={"source_files": local_files.describe([Path("a.md")])})
    assert states(plan_of(node))[node.directory].fresh
    Path("b.md").write_text("# B\n")
    assert reason(plan_of(node), node) == "b.md joined the source"


def test_other_code_counts_as_the_policy_says():
    plan, above, below = finished()

    def newer(rule: str) -> str:
        return "newer" if rule == "download_dataset" else code_of(rule)

    stale = examine(plan, "rerun", code=newer)[above.directory]
    assert (stale.status, stale.other_code) == ("stale", True)
    assert "other code" in stale.reason
    after = examine(plan, "rerun", code=newer)[below.directory]
    assert (after.status, after.other_code) == ("stale", True)
    kept = examine(plan, "accept", code=newer)[above.directory]
    assert (kept.status, kept.other_code) == ("fresh", True)
    assert kept.reason == stale.reason


def test_what_an_archive_gives_is_taken_as_it_is():
    plan, above, below = finished()
    Path(above.directory, "out").unlink()
    given = frozenset([above.directory])
    assert {state.status for state in states(plan, given=given).values()} == {"fresh"}
    Path(above.directory, manifest.NAME).unlink()
    assert states(plan, given=given)[above.directory].status == "missing"
    assert not states(plan, given=given)[below.directory].fresh


def test_an_environment_without_its_python():
    node = Node("make_environment", "cpu", {}, {})
    make(node)
    assert reason(plan_of(node), node) == "its packages are gone"
    python = Path(node.directory, VENV_PYTHON)
    python.parent.mkdir(parents=True)
    python.touch()
    assert states(plan_of(node))[node.directory].fresh
