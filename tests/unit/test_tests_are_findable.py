"""Where the tests of a module are: in `test_<module>.py`, or in the file whose docstring says `Tests: sft.<module>`.

sft.data.split.division   tests/unit/test_division.py
sft.data.read.cells       grep -rn "sft.data.read.cells" tests: the docstring of tests/unit/test_formats.py
"""

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# A file of `__init__` that only says what its package is has nothing to test.
EMPTY = 3


def modules(scripts: Path) -> list[str]:
    """The dotted names of all modules of ours that have something in them."""
    found = []
    for path in sorted((scripts / "sft").rglob("*.py")):
        parts = path.relative_to(scripts).with_suffix("").parts
        statements = len(ast.parse(path.read_text()).body)
        if parts[-1] != "__init__" or statements > EMPTY:
            found.append(".".join(part for part in parts if part != "__init__"))
    return found


def declared(text: str) -> list[str]:
    """The modules of the paragraph `Tests: …` of a test file's docstring."""
    docstring = ast.get_docstring(ast.parse(text)) or ""
    paragraph = next((part for part in docstring.split("\n\n") if part.startswith("Tests: ")), "")
    return re.findall(r"[\w.]+", paragraph.removeprefix("Tests: "))


def places(tests: Path) -> tuple[set[str], dict[str, list[str]]]:
    """(modules' last names that test files are named for, {test file: modules that it declares})."""
    files = sorted(tests.rglob("test_*.py"))
    named = {file.stem.removeprefix("test_") for file in files}
    told = {file.relative_to(tests).as_posix(): declared(file.read_text()) for file in files}
    return named, {file: names for file, names in told.items() if names}


def without_place(scripts: Path, tests: Path) -> list[str]:
    named, told = places(tests)
    said = {name for names in told.values() for name in names}
    return [name for name in modules(scripts) if name.rpartition(".")[2] not in named and name not in said]


def test_every_module_has_a_place():
    fix = "name a test file for it, or write it behind `Tests: ` in the docstring of the file that tests it"
    assert without_place(ROOT / "scripts", ROOT / "tests") == [], fix


def test_what_is_declared_is_there_and_told_once():
    _, told = places(ROOT / "tests")
    known = set(modules(ROOT / "scripts"))
    assert {name: file for file, names in told.items() for name in names if name not in known} == {}
    count = Counter(name for names in told.values() for name in names)
    assert [name for name, places_of_it in count.items() if places_of_it > 1] == []


def test_no_two_modules_are_looked_for_under_one_name():
    """`test_<module>.py` says which one only where the last name is one module's."""
    named, _ = places(ROOT / "tests")
    count = Counter(name.rpartition(".")[2] for name in modules(ROOT / "scripts"))
    assert [name for name, modules_of_it in count.items() if modules_of_it > 1 and name in named] == []


@pytest.fixture
def small(tmp_path: Path) -> Path:
    (tmp_path / "scripts/sft/data").mkdir(parents=True)
    (tmp_path / "scripts/sft/data/__init__.py").write_text('"""Data."""\n')
    (tmp_path / "scripts/sft/data/cells.py").write_text("VALUE = 1\n")
    (tmp_path / "tests/unit").mkdir(parents=True)
    return tmp_path


@pytest.mark.parametrize(
    ("file", "text", "found"),
    [
        ("test_cells.py", "", True),
        ("test_formats.py", '"""Formats.\n\nTests: sft.data.rows,\nsft.data.cells\n"""\n', True),
        ("test_formats.py", '"""Formats: sft.data.cells."""\n', False),
        ("test_formats.py", "# Tests: sft.data.cells\n", False),
        ("cells.py", '"""Tests: sft.data.cells"""\n', False),
    ],
)
def test_a_module_without_a_place_is_seen(small: Path, file: str, text: str, found: bool):
    (small / "tests/unit" / file).write_text(text)
    assert without_place(small / "scripts", small / "tests") == ([] if found else ["sft.data.cells"])
