"""`sft explain`: which fields of two results differ, from cells of a file and from directories.

Tests: sft.cli.explain
"""

import json

import pytest

from conftest import ROOT
from sft.config.reader import load
from sft.planning.differences import Difference, differences, flattened, record_differences
from sft.planning.planner import make_plan
from sft_command import sft
from whole_manifest import whole


@pytest.fixture(scope="module")
def runs():
    plan = make_plan(load([ROOT / "config/config.yaml"]))
    return {(run.experiment, run.cell, run.seed): run.train for runs in plan.runs.values() for run in runs}


def explain(*arguments, cwd=ROOT):
    # A wide terminal, so that no value is folded.
    return sft("explain", *arguments, cwd=cwd, COLUMNS="300")


def test_seeds(runs):
    first, second = runs["digits", "full", 0], runs["digits", "full", 1]
    assert differences(first.identity, second.identity) == [
        Difference("seed", "0", "1"),
        Difference("model.source.seed", "0", "1"),
    ]


def test_methods(runs):
    first, second = runs["digits_shift", "full", 0], runs["digits_shift", "lora", 0]
    found = {difference.field: difference[1:] for difference in differences(first.identity, second.identity)}
    assert found["method"] == ("full", "lora")
    assert found["lora.r"] == ("-", "16")
    assert found["training.learning_rate"] == ("0.0015", "0.005")
    assert not [field for field in found if field.startswith(("tokens", "model", "processor"))]


def test_data_is_entered_by_the_names_of_inputs(runs):
    first, second = runs["digits", "full", 0], runs["digits_shift", "full", 0]
    found = {difference.field: difference[1:] for difference in differences(first.identity, second.identity)}
    assert found["tokens.splits.dataset.image_transform"] == ("none", "invert")
    assert found["model.rule"] == ("download_model", "convert_checkpoint")
    assert found["training.max_steps"] == ("100", "50")


def test_equal_results_have_no_differences(runs):
    node = runs["digits", "full", 0]
    assert differences(node.identity, json.loads(json.dumps(node.identity))) == []


def test_an_input_reached_twice_is_compared_once():
    def run(template):
        processor = {"schema": 1, "rule": "p", "chat_template": template}
        tokens = {"schema": 1, "rule": "t", "from": {"processor": processor}}
        return {"schema": 1, "rule": "r", "from": {"tokens": tokens, "processor": processor}}

    assert differences(run("a"), run("b")) == [Difference("processor.chat_template", "a", "b")]


def test_an_input_that_only_one_has():
    first = {"rule": "r", "from": {}}
    second = {"rule": "r", "from": {"extra": {"rule": "x"}}}
    assert differences(first, second) == [Difference("extra", "-", "made by x")]


def test_an_input_of_which_only_the_digest_is_known():
    first, second = ({"rule": "r", "from": {"run": digit * 64}} for digit in "ab")
    assert differences(first, second) == [Difference("run", "a" * 12, "b" * 12)]
    assert differences(first, first) == []
    assert differences(first, {"rule": "r", "from": {"run": {"rule": "x"}}}) == [
        Difference("run", "a" * 12, "made by x")
    ]


def test_what_digests_stand_for_is_compared_where_it_lies(tmp_path):
    """A ledger's config.json names its runs by digest; theirs say more."""
    plan = make_plan(load([ROOT / "config/config.yaml"]))
    figures = [node for node in plan.of_rule("plot_accuracy") if "digits_shift" in node.directory]
    ledgers = [node for node in plan.of_rule("collect_metrics") if "digits_shift" not in node.directory]
    one, other = figures[0].inputs["ledger"], ledgers[0]
    assert set(map(type, one.identity["from"].values())) == {str}
    assert len(json.dumps(one.document())) < len(json.dumps(one.whole_identity())) / 10
    for node in plan.nodes.values():
        (tmp_path / node.directory).mkdir(parents=True, exist_ok=True)
        (tmp_path / node.directory / "config.json").write_text(json.dumps(node.document()))
    read = explain(one.directory, other.directory, cwd=tmp_path)
    planned = explain(one.directory, other.directory)
    rows = [[line.split() for line in done.stdout.splitlines()[3:]] for done in (read, planned)]
    assert rows[0] == rows[1]
    assert ["run-0.training.max_steps", "50", "100"] in rows[0]


def test_flattened():
    value = {"rule": "r", "a": {"b": [1, {"rule": "kept"}]}, "empty": {}, "none": None, "text": "x"}
    assert dict(flattened(value)) == {"a.b[0]": "1", "a.b[1].rule": "kept", "empty": "{}", "none": "null", "text": "x"}


def test_records_of_equal_settings():
    first = {"code": "a" * 64, "content": "c", "key": "k", "versions": {"torch": "2.12", "trl": "1"}}
    second = first | {"code": "b" * 64, "versions": {"torch": "2.13", "trl": "1"}}
    assert record_differences(first, second) == [
        Difference("code", "a" * 12, "b" * 12),
        Difference("versions.torch", "2.12", "2.13"),
    ]


def test_command_line(tmp_path, runs):
    done = explain("digits/0", "digits/full/seed-1")
    assert done.returncode == 0, done.stderr
    assert "model.source.seed" in done.stdout
    assert "2 fields differ" in done.stdout
    for name, seed in (("a", 0), ("b", 2)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(runs["digits", "full", seed].document()))
    done = explain("a", "b", cwd=tmp_path)
    assert [line.split() for line in done.stdout.splitlines() if line.strip().startswith("seed")] == [
        ["seed", "0", "2"]
    ]


def test_command_line_says_what_it_does_not_know():
    done = explain("digits/0", "digit_shift/lora/1")
    assert done.returncode == 1
    assert done.stderr == "digit_shift/lora/1: no such result, run or cell. Did you mean digits_shift/lora/1?\n"
    done = explain("digits/0", "digits/0", "config/nowhere.yaml")
    assert done.returncode == 1
    assert done.stderr.startswith("config/nowhere.yaml: no such file")
    assert "Traceback" not in done.stderr


def test_json_for_programs(tmp_path, runs):
    found = json.loads(explain("digits/0", "digits/1", "--json").stdout)
    assert (found["first"], found["second"]) == (runs["digits", "full", 0].id, runs["digits", "full", 1].id)
    assert (found["equal"], found["made_differently"]) == (False, [])
    assert found["differences"][0] == {"field": "seed", "first": "0", "second": "1"}
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(runs["digits", "full", 0].document()))
        record = whole(code=name * 64, content="c", key="k", versions={})
        (tmp_path / name / "manifest.json").write_text(json.dumps(record))
    found = json.loads(explain("a", "b", "--json", cwd=tmp_path).stdout)
    assert (found["equal"], found["differences"]) == (True, [])
    assert found["made_differently"] == [{"field": "code", "first": "a" * 12, "second": "b" * 12}]


def test_equal_cells_are_one_result():
    done = explain("digits/0", "digits/full/0")
    assert done.returncode == 0
    assert "are one result" in done.stdout
