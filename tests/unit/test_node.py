"""One result: its name comes from its content alone, and says what it is."""

import pytest

from sft.planning.node import OF_MANY, Node, recorded_node, slug
from sft.planning.plan import Plan, PlanError


def node(label: str = "words", own: dict | None = None, **more) -> Node:
    return Node("prepare_dataset", label, {"not": "identity"}, own or {"n": 1}, **more)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("tiny words", "tiny-words"),
        ("a/b\\c", "a-b-c"),
        ("..", "x"),
        ("", "x"),
        ("-.a.-", "a"),
        ("é", "x"),
        ("a" * 70, "a" * 60),
        ("a" * 59 + ".b", "a" * 59),
        ("1e-5_x", "1e-5_x"),
    ],
)
def test_a_label_becomes_a_part_of_a_path(text: str, part: str):
    assert slug(text) == part


def test_the_name_says_what_it_is_and_only_content_moves_it():
    made = node()
    assert made.id == f"words-{made.digest[:8]}"
    assert made.directory == f"results/datasets/{made.id}"
    assert made.manifest == f"{made.directory}/manifest.json"
    assert node(execution={"threads": 8}, environment="record", gates={"audit": node("audit")}).id == made.id
    assert node("letters").digest == made.digest
    elsewhere = node(results="first/results")
    assert (elsewhere.id, elsewhere.path, elsewhere.directory) == (made.id, made.path, f"first/{made.directory}")
    assert node(own={"n": 2}).digest != made.digest
    assert node(inputs={"run": node(own={"n": 2})}).digest != made.digest


def test_implied_inputs_say_nothing_new():
    above = node(own={"n": 2})
    assert node(inputs={"run": above}, implied=frozenset(["run"])).digest == node().digest


def test_of_hundreds_of_others_the_digests_stand_for_them():
    above = node(own={"n": 2})
    (rule,) = OF_MANY
    ledger = Node(rule, "ledger", {}, {}, {"run": above})
    assert ledger.identity["from"] == {"run": above.digest}
    assert ledger.whole_identity()["from"] == {"run": above.identity}
    assert node(inputs={"run": above}).identity["from"] == {"run": above.identity}


def test_the_document_is_what_a_script_reads():
    above = node(own={"n": 2})
    made = node(inputs={"run": above}, pins="envs/mine.yaml", environment="record")
    assert made.document() == {
        "rule": "prepare_dataset",
        "id": made.id,
        "config": {"not": "identity"},
        "identity": made.identity,
        "inputs": {"run": above.directory},
        "environment": {"policy": "record", "pins": "envs/mine.yaml"},
    }
    assert node().document()["environment"] == {"policy": "strict", "pins": "envs/data.yaml"}
    made.first.append(above)
    assert made.document()["first"] == [above.directory]


def test_an_archived_node_is_what_was_written_down():
    made = node(inputs={"run": node(own={"n": 2})})
    again = recorded_node(made.directory, made.document(), {})
    assert (again.id, again.directory, again.identity) == (made.id, made.directory, made.identity)
    assert again.document()["identity"] == made.identity


def test_equal_results_are_one_and_different_ones_never_share_a_name():
    plan = Plan()
    first = plan.add(node())
    assert plan.add(node(gates={"audit": node("audit")})) is first
    assert list(first.gates) == ["audit"]
    collision = node(own={"n": 2})
    collision.__dict__["id"] = first.id
    with pytest.raises(PlanError, match="would hold two different results"):
        plan.add(collision)
