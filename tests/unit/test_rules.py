"""The table of rules: the Snakefiles have a rule for each line of it, and write no path of their own."""

import re
from pathlib import Path

import pytest

from sft.planning.node import Node
from sft.planning.rules import RULES, rule_of

ROOT = Path(__file__).resolve().parents[2]
FILES = {path.name: path.read_text() for path in sorted((ROOT / "workflow/rules").glob("*.smk"))}
BLOCKS = {
    block.partition(":")[0]: block
    for text in FILES.values()
    for block in re.split(r"^rule ", text, flags=re.MULTILINE)[1:]
}
FIGURES = sorted(path.stem for path in (ROOT / "scripts").glob("plot_*.py"))


def test_each_rule_is_in_the_table_and_each_line_of_it_is_a_rule() -> None:
    assert BLOCKS.keys() == RULES.keys()
    assert len(RULES) >= 20


@pytest.mark.parametrize("name", RULES)
def test_a_rule_takes_all_that_it_says_from_its_own_line(name: str) -> None:
    named = re.findall(r'\b(?:made_from|outputs|log_of|environment|node|python|script|shown)\("(\w+)"', BLOCKS[name])
    assert set(named) == {name}
    for part in ("made_from", "outputs", "log_of", "environment", "node", "python", "script"):
        assert f'{part}("{name}")' in BLOCKS[name], part
    assert BLOCKS[name].count("shown(") == len(RULES[name].shown)


def test_no_path_is_written_beside_the_table() -> None:
    """common.smk puts `results/` before the table's patterns, once."""
    assert {file: text.count("results/") for file, text in FILES.items() if "results/" in text} == {"common.smk": 1}


def test_what_is_passed_on_is_a_parameter_and_what_is_asked_for_a_resource() -> None:
    asked = {
        word for block in BLOCKS.values() for word in re.findall(r"^        (\w+)=", _resources(block), re.MULTILINE)
    }
    assert asked == {"mem_mb", "runtime", "gpu"}
    assert not [name for name, block in BLOCKS.items() if "{resources." in block]


def _resources(block: str) -> str:
    return (re.search(r"^    resources:\n((?:        .*\n)+)", block, re.MULTILINE) or ["", ""])[1]


def test_paths_in_commands_are_quoted() -> None:
    for name, block in BLOCKS.items():
        bare = re.findall(r"\{(?:params\.(?:python|script|node)|log)\}", block)
        assert not bare, name


@pytest.mark.parametrize("script", [name for name in RULES if name != "plot"] + FIGURES)
def test_every_rule_has_a_script_of_its_name_and_an_environment(script: str) -> None:
    assert (ROOT / "scripts" / f"{script}.py").is_file()
    assert (ROOT / "envs" / f"{rule_of(script).environment}.yaml").is_file()


def test_a_node_lies_where_its_rule_says_and_moves_without_another_name() -> None:
    train = Node("train_model", "mine", {}, {"seed": 1})
    node = Node("predict", "words", {}, {}, {"run": train}, place={"run": train.id})
    scores = Node("score", "scores", {}, {}, {"predictions": node}, place={"predictions": node.path})
    assert scores.directory == f"results/runs/{train.id}/evaluations/{node.id}/scores"
    assert scores.log == f"{scores.directory}/score.log"
    figure = Node("plot_loss", "x", {}, {}, place={"experiment": "x", "figure": "loss"})
    assert figure.log == "results/experiments/x/figures/loss/plot_loss.log"
    before = node.identity, node.digest
    node.results = "theirs/results"
    assert (node.identity, node.digest) == before
    assert node.manifest == f"theirs/results/runs/{train.id}/evaluations/{node.id}/manifest.json"
