"""The digest of the code closure: what moves it and what does not."""

import re
from pathlib import Path

import pytest

from sft.runtime import code


@pytest.fixture
def scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/__init__.py").write_text('"""Library."""\n')
    (tmp_path / "lib/used.py").write_text('"""Used."""\n\n\ndef f(x):\n    """Doc."""\n    return x + 1\n')
    (tmp_path / "lib/deep.py").write_text("VALUE = 1\n")
    (tmp_path / "lib/other.py").write_text("VALUE = 1\n")
    (tmp_path / "work.py").write_text("from lib.used import f\n\n\ndef main():\n    import lib.deep\n    return f(1)\n")
    monkeypatch.setattr(code, "SCRIPTS", tmp_path)
    return tmp_path


def digest() -> str:
    for cached in (code._parsed, code._imports, code._tree_digest):
        cached.cache_clear()
    return code.code_digest("work")


def test_closure_holds_lazily_imported_modules_and_packages(scripts: Path) -> None:
    names = {path.relative_to(scripts).as_posix() for path in code.sources("work")}
    assert names == {"work.py", "lib/__init__.py", "lib/used.py", "lib/deep.py"}


def test_comments_docstrings_and_formatting_do_not_count(scripts: Path) -> None:
    before = digest()
    (scripts / "lib/used.py").write_text('"""Other."""\n# why\ndef f( x ):\n    """Other."""\n    return (x+1)\n')
    assert digest() == before


@pytest.mark.parametrize("file", ["work.py", "lib/__init__.py", "lib/used.py", "lib/deep.py"])
def test_every_executed_file_counts(scripts: Path, file: str) -> None:
    before = digest()
    path = scripts / file
    path.write_text(path.read_text() + "\nNEW = 2\n")
    assert digest() != before


def test_files_that_are_not_imported_do_not_count(scripts: Path) -> None:
    before = digest()
    (scripts / "lib/other.py").write_text("VALUE = 2\n")
    assert digest() == before


def test_every_rule_has_a_script_of_its_name() -> None:
    root = Path(__file__).resolve().parents[2]
    text = "".join(file.read_text() for file in (root / "workflow/rules").glob("*.smk"))
    scripts = dict(re.findall(r"^rule (\w+):.*?script=script\(\"(\w+)\"\)", text, re.MULTILINE | re.DOTALL))
    assert len(scripts) >= 15
    # A baseline's scores lie below the baseline; they are made by the same script as all scores.
    assert {rule: name for rule, name in scripts.items() if rule != name} == {"score_baseline": "score"}
    assert [name for name in scripts.values() if not (root / "scripts" / f"{name}.py").is_file()] == []
