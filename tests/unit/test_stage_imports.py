"""Each rule's conda environment has every package that the rule's script, or a module of ours behind it, imports."""

import ast
import sys
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from pins import normal, read_lock, read_source, read_yaml
from sft.planning.rules import RULES, rule_of
from sft.runtime.code import SCRIPTS, sources

ROOT = Path(__file__).resolve().parents[2]

FIGURES = sorted(path.stem for path in SCRIPTS.glob("plot_*.py"))
OURS = {path.stem for path in SCRIPTS.iterdir()}
# What only an optional environment has, and the one file that imports it and says where it is missing.
OPTIONAL = {"unsloth": "scripts/sft/training/backends/unsloth.py"}


def stages() -> dict[str, str]:
    """The script of each rule (of `plot`: of each figure), and the name of the environment that it runs in."""
    scripts = [script for name in RULES for script in ([name] if name != "plot" else FIGURES)]
    return {script: rule_of(script).environment for script in scripts}


@cache
def distributions() -> dict[str, set[str]]:
    return {module: {normal(name) for name in names} for module, names in packages_distributions().items()}


def imported(path: Path) -> set[str]:
    """Top-level names of other people's modules that `path` imports anywhere, also inside functions."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    optional = {name for name, file in OPTIONAL.items() if path == ROOT / file}
    return names - set(sys.stdlib_module_names) - OURS - optional


def missing(script: str, stage: str) -> list[str]:
    has = set(read_yaml(ROOT / f"envs/{stage}.yaml", ROOT).pins)
    return [
        f"{path.relative_to(ROOT)} imports {module}, which envs/{stage}.yaml does not have"
        for path in sorted(sources(script))
        for module in sorted(imported(path))
        if not distributions().get(module, {module}) & has
    ]


@pytest.mark.parametrize("name", OPTIONAL)
def test_an_optional_package_has_its_locks(name: str) -> None:
    for lock in (f"locks/{name}.txt", f"locks/cpu-{name}.txt"):
        assert name in read_lock(ROOT / lock, ROOT).pins


def test_every_rule_that_runs_a_script_has_an_environment():
    assert len(stages()) >= 28


@pytest.mark.parametrize(("script", "stage"), stages().items())
def test_the_environment_of_a_rule_has_what_its_script_imports(script, stage):
    assert missing(script, stage) == []


def test_a_package_that_an_environment_lacks_is_noticed():
    assert any("imports seaborn" in text or "imports matplotlib" in text for text in missing("plot_accuracy", "data"))


def test_what_our_files_import_is_pinned_directly_and_not_by_way_of_something_else():
    pinned = set(read_source(ROOT / "requirements.in", ROOT).pins)
    indirect = {
        f"{path.relative_to(ROOT)} imports {module}"
        for path in SCRIPTS.rglob("*.py")
        for module in imported(path)
        if not distributions().get(module, {module}) & pinned
    }
    assert indirect == set()
