"""The digest of the code closure: what moves it and what does not.

Tests: sft.runtime.code, sft.runtime.source_text
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from sft.runtime import code

SCRIPTS = code.SCRIPTS


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
    ("stage.say(f'{x}')", "stage.say(f'{(x := 1)}')", True),
    ("stage.say((x := 'a'))", "stage.say((x := 'b'))", True),
    ("raise ValueError(f'{(x := 1)}')", "raise ValueError(f'{(x := 2)}')", True),
    ("stage.say(f'{x}')", "stage.say(f'{(yield x)}')", True),
    ("stage.say((yield 'a'))", "stage.say((yield 'b'))", True),
    ("stage.say(f'{x}')", "stage.say(f'{[*x]}')", True),
    ("stage.say(f'{x}')", "stage.say(f'{[y for y in x]}')", True),
    ("stage.say(f'{x:.2f}')", "stage.say(f'{x:.3f}')", False),
    ("stage.say(f'{x:.2f}')", "stage.say(f'{x:{f(x)}}')", True),
    ("stage.say(f'{x:{f(x)}}')", "stage.say(f'{x:>{f(x)}}')", False),
    ("import torch", "import numpy", True),
    ("import torch, numpy", "import torch, pandas", True),
    ("import os, lib.deep", "import sys, lib.deep", True),
    ("import lib.deep; import lib.other", "import lib.other; import lib.deep", True),
    ("x(); import lib.deep", "import lib.deep; x()", True),
    ("if TYPE_CHECKING:\n        import torch", "if TYPE_CHECKING:\n        import numpy", False),
]


@pytest.mark.parametrize(("before", "after", "counts"), EDITS)
def test_only_what_a_value_can_depend_on_counts(scripts: Path, before: str, after: str, counts: bool) -> None:
    path = scripts / "lib/used.py"
    path.write_text(f"def f(x):\n    {before}\n    return x\n")
    first = digest()
    path.write_text(f"def f(x):\n    {after}\n    return x\n")
    assert (digest() != first) == counts


def test_what_is_awaited_in_a_log_line_counts(scripts: Path) -> None:
    path = scripts / "lib/used.py"
    path.write_text("async def f(x):\n    stage.say(f'{x}')\n")
    first = digest()
    path.write_text("async def f(x):\n    stage.say(f'{await x}')\n")
    assert digest() != first


# What stands in lib/used.py beside `f`, what replaces it, and what the modules of the two imports hold.
MODULES = [
    ("def g():\n    import os, lib.other\n", {"other": "a = 2\n"}),
    ("import os, lib.other\n", {"other": "a = 2\n"}),
    # Python takes the package.
    ("import lib.other\n", {"other/__init__": "a = 2\n"}),
]


@pytest.mark.parametrize(("text", "edited"), MODULES)
def test_all_that_is_imported_counts(scripts: Path, text: str, edited: dict[str, str]) -> None:
    used = scripts / "lib/used.py"
    used.write_text(f"{text}{used.read_text()}")
    for name in ("deep", "other"):
        (scripts / f"lib/{name}.py").write_text("a = 1\n")
    first = digest()
    for name, changed in edited.items():
        path = scripts / f"lib/{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(changed)
    assert digest() != first


@pytest.mark.parametrize(("first", "second"), [("other", "other"), ("other", "deep")])
def test_functions_may_import_two_things_by_one_name(scripts: Path, first: str, second: str) -> None:
    def text(*names: str) -> str:
        imports = "import lib.deep\nimport lib.other\n"
        return imports + "".join(f"def f{n}(x):\n    from lib.{name} import VALUE\n" for n, name in enumerate(names))

    (scripts / "lib/other.py").write_text("VALUE = 2\n")
    (scripts / "lib/used.py").write_text(text("deep", "other"))
    before = digest()
    (scripts / "lib/used.py").write_text(text(first, second))
    assert digest() != before


@pytest.mark.parametrize("other", ["def g(x):\n    return 2\n", "g = f\n", "if f:\n    g = f\n", "import os as g\n"])
def test_the_order_counts_of_what_has_one_name(scripts: Path, other: str) -> None:
    path, one = scripts / "lib/used.py", "def g(x):\n    return 1\n"
    path.write_text(f"def f(x):\n    return x\n{one}{other}")
    first = digest()
    path.write_text(f"def f(x):\n    return x\n{other}{one}")
    assert digest() != first


def test_an_empty_module_does_not_count(scripts: Path) -> None:
    before = digest()
    (scripts / "lib/empty").mkdir()
    (scripts / "lib/deep.py").rename(scripts / "lib/empty/deep.py")
    (scripts / "lib/empty/__init__.py").write_text('"""Nothing."""\n')
    work = scripts / "work.py"
    work.write_text(work.read_text().replace("import lib.deep", "import lib.empty.deep as lib_deep"))
    moved = digest()
    (scripts / "lib/empty/__init__.py").unlink()
    assert digest() == moved != before


def test_texts_of_errors_that_predictions_keep_count(scripts: Path) -> None:
    used, text = scripts / "lib/used.py", (SCRIPTS / "sft/data/read/pictures.py").read_text()
    used.write_text(text)
    first = digest()
    for told in ('"no readable picture"', '"no picture"', "bytes that are"):
        assert text.count(told) == 1
        used.write_text(text.replace(told, told.replace("i", "o").replace("a", "e")))
        assert digest() != first, told


def test_code_is_read_again_on_request(scripts: Path) -> None:
    before = digest()
    (scripts / "lib/deep.py").write_text("VALUE = 2\n")
    assert code.code_digest("work") == before
    assert code.code_digest_again("work") != before


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
