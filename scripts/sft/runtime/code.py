"""The digest of the source that a script executes: itself and every module of ours that it imports.

What counts is the syntax tree without docstrings, so comments, formatting and documentation may change
freely. The tree is walked here, not printed by `ast.dump`, whose text differs between Python versions.
"""

import ast
import hashlib
from functools import cache
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parents[2]


def code_digest(script: str) -> str:
    """sha256 over the sources that `scripts/<script>.py` executes, found by following its imports of ours."""
    lines = [f"{path.relative_to(SCRIPTS).as_posix()} {_tree_digest(path)}" for path in sorted(sources(script))]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def sources(script: str) -> set[Path]:
    """The script's own file and, transitively, the modules below scripts/ that it imports anywhere."""
    found: set[Path] = set()
    waiting = [SCRIPTS / f"{script}.py"]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting += _imports(path)
    return found


@cache
def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_bytes(), filename=str(path))


@cache
def _imports(path: Path) -> list[Path]:
    names: set[str] = set()
    for node in ast.walk(_parsed(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level:
            package = path.relative_to(SCRIPTS).parts[: -node.level]
            stem = ".".join([*package, *([node.module] if node.module else [])])
            names |= {stem} | {f"{stem}.{alias.name}" for alias in node.names}
    files = []
    for name in names:
        parts = name.split(".")
        # `import a.b.c` executes a/__init__.py and a/b/__init__.py as well.
        for n in range(1, len(parts) + 1):
            base = SCRIPTS.joinpath(*parts[:n])
            files += [p for p in (base.with_suffix(".py"), base / "__init__.py") if p.is_file()]
    return files


@cache
def _tree_digest(path: Path) -> str:
    sha = hashlib.sha256()
    _feed(_parsed(path), sha)
    return sha.hexdigest()


def _feed(node: object, sha) -> None:
    if isinstance(node, ast.AST):
        sha.update(f"({type(node).__name__}".encode())
        for name, value in ast.iter_fields(node):
            if name == "body" and isinstance(value, list) and _has_docstring(node, value):
                value = value[1:]
            # Empty fields differ between Python versions (3.12 added type_params); none changes a meaning.
            if value is None or value == [] or name in ("type_comment", "kind", "ctx"):
                continue
            sha.update(f" {name}=".encode())
            _feed(value, sha)
        sha.update(b")")
    elif isinstance(node, list):
        sha.update(b"[")
        for item in node:
            _feed(item, sha)
        sha.update(b"]")
    else:
        sha.update(f"{type(node).__name__}:{node!r};".encode())


def _has_docstring(node: ast.AST, body: list) -> bool:
    return (
        isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
        and bool(body)
        and isinstance(body[0], ast.Expr)
        and isinstance(body[0].value, ast.Constant)
        and isinstance(body[0].value.value, str)
    )
