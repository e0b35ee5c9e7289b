"""The digest of the code closure: what moves it and what does not.

Tests: sft.runtime.code, sft.runtime.source_text
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from sft.runtime import code


@pytest.fixture
def scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/__init__.py").write_text('"""Library."""\n')
    (tmp_path / "lib/used.py").write_text('"""Used."""\n\n\ndef f(x):\n    """Doc."""\n    return x + 1\n')
    (tmp_path / "lib/deep.py").write_text("VALUE = 1\n")
    (tmp_path / "lib/other.py").write_text("VALUE = 1\n")
    (tmp_path / "work.py").write_text("from lib.used import f\n\n\ndef main():\n    import lib.deep\n    return f(1)\n")
    monkeypatch.setattr(code, "SCRIPTS", tmp_path)
    yield tmp_path
    forget()


def forget() -> None:
    for value in vars(code).values():
        if hasattr(value, "cache_clear"):
            value.cache_clear()


def digest() -> str:
    forget()
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


# What stands in a function of science, what replaces it, and whether a value may depend on it.
EDITS = [
    ("raise ValueError('too long')", "raise ValueError('longer than allowed')", False),
    ("raise ValueError(f'{x} is too long')", "raise ValueError(f'too long: {x!r}')", False),
    ("raise ValueError(f'{f(x)} is too long')", "raise ValueError(f'{x} is too long')", True),
    ("raise ValueError('too long')", "raise TypeError('too long')", True),
    ("stage.say('begins')", "stage.say('starts')", False),
    ("stage.say(f'{x} rows')", "stage.say(f'rows: {x}')", False),
    ("stage.say(f'{f(x)} rows')", "stage.say(f'{f(x + 1)} rows')", True),
    ("stage.say(f('rows'))", "stage.say(f('row'))", True),
    ("raise ValueError('a' + f('rows'))", "raise ValueError('b' + f('rows'))", False),
    ("raise ValueError('a' + f('rows'))", "raise ValueError('a' + f('row'))", True),
    ("raise ValueError('a') from error", "raise ValueError('a') from other", True),
    ("raise ValueError('a', code='x')", "raise ValueError('b', code='y')", False),
    ("raise ValueError('a', code=1)", "raise ValueError('a', code=2)", True),
    ("print('slow', file=sys.stderr)", "print('very slow', file=sys.stderr)", False),
    ("print('1.0')", "print('2.0')", True),
    ("warnings.warn('slow', stacklevel=2)", "warnings.warn('very slow', stacklevel=2)", False),
    ("parser.add_argument('--n', help='rows')", "parser.add_argument('--n', help='how many rows')", False),
    ("parser.add_argument('--n', default='1')", "parser.add_argument('--n', default='2')", True),
    ("assert x, 'must be'", "assert x, 'must be there'", False),
    ("assert x, 'must be'", "assert x > 1, 'must be'", True),
    ("y: int = 1", "y: float = 1", False),
    ("y: int = 1", "y: int = 2", True),
    ("y = 1e-8", "y = 1e-6", True),
    ("y = 'loss'", "y = 'losses'", True),
    ("y = f'loss {x}'", "y = f'losses {x}'", True),
    ("def g(a: int = 1) -> int: return a", "def g(a: 'float' = 1): return a", False),
    ("def g(a: int = 1) -> int: return a", "def g(a: int = 2) -> int: return a", True),
    ("import torch", "import numpy", True),
    ("if TYPE_CHECKING:\n        import torch", "if TYPE_CHECKING:\n        import numpy", False),
]


@pytest.mark.parametrize(("before", "after", "counts"), EDITS)
def test_only_what_a_value_can_depend_on_counts(scripts: Path, before: str, after: str, counts: bool) -> None:
    path = scripts / "lib/used.py"
    path.write_text(f"def f(x):\n    {before}\n    return x\n")
    first = digest()
    path.write_text(f"def f(x):\n    {after}\n    return x\n")
    assert (digest() != first) == counts


def test_fields_of_a_class_count_with_their_types(scripts: Path) -> None:
    """A dataclass, or a model of pydantic, does something with them."""
    path = scripts / "lib/used.py"
    path.write_text("class Row:\n    x: int = 0\n\n\ndef f(x):\n    return x\n")
    first = digest()
    path.write_text("class Row:\n    x: float = 0\n\n\ndef f(x):\n    return x\n")
    assert digest() != first


def test_moved_renamed_and_reordered_code_does_not_count(scripts: Path) -> None:
    (scripts / "lib/used.py").write_text("def f(x):\n    return g(x)\n\n\ndef g(x):\n    return x + 1\n")
    first = digest()
    (scripts / "lib/used.py").write_text("def g(x):\n    return x + 1\n\n\ndef f(x):\n    return g(x)\n")
    assert digest() == first
    (scripts / "lib/used.py").rename(scripts / "lib/moved.py")
    (scripts / "work.py").write_text((scripts / "work.py").read_text().replace("lib.used", "lib.moved"))
    assert digest() == first


def test_the_same_name_from_another_file_counts(scripts: Path) -> None:
    (scripts / "lib/deep.py").write_text("def f(x):\n    return x - 1\n")
    first = digest()
    (scripts / "work.py").write_text((scripts / "work.py").read_text().replace("from lib.used", "from lib.deep"))
    (scripts / "lib/deep.py").write_text("import lib.used\n\n\ndef f(x):\n    return x - 1\n")  # both stay imported
    assert digest() != first


def test_another_door_of_the_runtime_counts(scripts: Path) -> None:
    """Of the runtime no source is read; which of its modules a name comes from is."""
    (scripts / "sft/runtime").mkdir(parents=True)
    for path in ("sft/__init__.py", "sft/runtime/__init__.py", "sft/runtime/a.py", "sft/runtime/b.py"):
        (scripts / path).write_text("def read():\n    return 1\n")
    (scripts / "lib/deep.py").write_text("from sft.runtime.a import read\n")
    before = digest()
    (scripts / "sft/runtime/a.py").write_text("def read():\n    return 2\n")
    assert digest() == before
    (scripts / "lib/deep.py").write_text("from sft.runtime.b import read\n")
    assert digest() != before


def test_files_that_a_module_names_count(scripts: Path) -> None:
    (scripts / "lib/fonts").mkdir()
    (scripts / "lib/fonts/a.ttf").write_bytes(b"1")
    (scripts / "lib/page.html").write_text("<p>")
    (scripts / "lib/unnamed.html").write_text("<p>")
    (scripts / "lib/used.py").write_text("FONTS = 'fonts'\n\n\ndef f(x):\n    return 'page.html'\n")
    found = [digest()]
    for file, text in (("fonts/a.ttf", "2"), ("page.html", "<b>")):
        (scripts / "lib" / file).write_text(text)
        found.append(digest())
    assert len(set(found)) == 3
    (scripts / "lib/unnamed.html").write_text("<b>")
    assert digest() == found[-1]


def test_what_changed_is_told_by_file_and_definition(scripts: Path) -> None:
    (scripts / "lib/used.py").write_text("class A:\n    def f(self):\n        return 1\n\n\ndef f(x):\n    return x\n")
    forget()
    before = code.describe("work")
    (scripts / "lib/used.py").write_text("class A:\n    def f(self):\n        return 2\n\n\ndef f(x):\n    return x\n")
    (scripts / "lib/deep.py").write_text("VALUE = 2\n")
    forget()
    assert code.changes(before, code.describe("work")) == ["lib/deep.py: VALUE", "lib/used.py: A.f"]


def test_runtime_version_counts(scripts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = digest()
    monkeypatch.setattr(code, "RUNTIME_VERSION", code.RUNTIME_VERSION + 1)
    assert digest() != before
