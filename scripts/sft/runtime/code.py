"""The digest of the source that a result's values come from: the script and every module of science that it imports.

    code_digest("train_model")     what the manifest of a run keeps, and what planning compares it with
    describe("train_model")        the same by file and definition, to tell what an edit changed

Science is what a value is made from: its packages are `SCIENCE`. How a job is started, claimed, recorded and resumed,
and how it is planned and shown, is `OUTSIDE`; all of it counts as one number, `RUNTIME_VERSION`.

Within science these do not count, since no value depends on them: comments, docstrings and form, annotations, texts of
errors and log lines (sft.runtime.source_text); where a file lies and what it is called; the order of plain functions.
Files that a module names (templates, fonts) count with their bytes.
"""

import ast
import hashlib
from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from sft.runtime.source_text import Reader, docstring, sha

SCRIPTS = Path(__file__).resolve().parents[2]

# Part of every digest. Raised when a change of the runtime can change a value: results made before are then made again.
# Such a change is one of what scripts are handed: their configuration, inputs, options, random state or checkpoints.
RUNTIME_VERSION = 1

SCIENCE = ("terms", "sources", "data", "models", "embedded", "training", "conversion", "evaluation", "reporting")
OUTSIDE = ("runtime", "config", "packages", "planning", "estimates", "slurm", "cli", "workflow")

# Programs that a script starts as processes, whose sources make its values too.
STARTS = {"train_model": ("ranks/train_rank", "ranks/start_ranks")}

REST = "(module)"  # statements of a module that define no name


@dataclass
class Module:
    """One source file: its definitions by name, what it imports of ours, and the files beside it that it names.

    `parts`: name -> digest, methods as `Class.method`. `imports`: what a name is bound to, `(module, name or "")`; in
    the order of the file, since functions may import several things by one name.
    """

    path: Path
    parts: dict[str, str] = field(default_factory=dict)
    ordered: list[str] = field(default_factory=list)
    unordered: list[str] = field(default_factory=list)
    imports: dict[str, list[tuple[Path, str]]] = field(default_factory=dict)
    executes: set[Path] = field(default_factory=set)
    files: dict[str, str] = field(default_factory=dict)

    @property
    def body(self) -> str:
        """The digest of what is written in the file itself."""
        return sha("\n".join([*self.ordered, *sorted(self.unordered), *(f"{n} {d}" for n, d in self.files.items())]))

    def bound(self, name: str, seen: frozenset[Path] = frozenset()) -> str:
        """The digest of what `name` means in this file, wherever it is defined."""
        if name in self.parts:
            return self.parts[name]
        if name in self.imports and self.path not in seen:
            return _targets(self.imports[name], seen | {self.path})
        return self.body


def code_digest(script: str) -> str:
    """sha256 over the science that `scripts/<script>.py` executes, and `RUNTIME_VERSION`."""
    modules = (_module(path) for path in sources(script))
    lines = sorted(_full(module) for module in modules if module.ordered or module.unordered)
    return sha("\n".join([f"runtime {RUNTIME_VERSION}", *lines]))


def code_digest_again(script: str) -> str:
    """`code_digest` of the files as they are by now."""
    for cached in (_module, _resolved, _chain, _beside):
        cached.cache_clear()
    return code_digest(script)


def describe(script: str) -> dict[str, dict[str, str]]:
    """`{file: {definition: digest}}` of what `code_digest` counts; files relative to scripts/."""
    found = {}
    for path in sorted(sources(script)):
        module = _module(path)
        found[path.relative_to(SCRIPTS).as_posix()] = module.parts | module.files
    return {"(runtime)": {"RUNTIME_VERSION": str(RUNTIME_VERSION)}, **found}


def changes(before: dict[str, dict[str, str]], now: dict[str, dict[str, str]]) -> list[str]:
    """What differs between two descriptions, `file: definition, definition`; files that only moved are left out."""
    everywhere = {(name, made) for parts in before.values() for name, made in parts.items()}
    everywhere &= {(name, made) for parts in now.values() for name, made in parts.items()}
    told: dict[str, list[str]] = {}
    for file in sorted(before.keys() | now.keys()):
        old, new = before.get(file, {}), now.get(file, {})
        names = [name for name in sorted(old.keys() | new.keys()) if old.get(name) != new.get(name)]
        names = [n for n in names if not all((n, side[n]) in everywhere for side in (old, new) if n in side)]
        # A class is named by those of its methods that changed, where there are any.
        inner = {name.partition(".")[0] for name in names if "." in name}
        if names := [name for name in names if name not in inner]:
            told[file] = names
    return [f"{file}: {', '.join(names)}" for file, names in told.items()]


def sources(script: str) -> set[Path]:
    """The script's own file and, transitively, the modules of science below scripts/ that it imports anywhere."""
    found: set[Path] = set()
    waiting = [SCRIPTS / f"{name}.py" for name in (script, *STARTS.get(script, ()))]
    while waiting:
        path = waiting.pop()
        if path not in found and is_science(path):
            found.add(path)
            waiting += _module(path).executes
    return found


@cache
def is_science(path: Path) -> bool:
    """Whether a file below scripts/ counts; ValueError for one of a package that is in neither list."""
    package, *inside = path.relative_to(SCRIPTS).parts
    if package != "sft":
        return True  # a script
    name = inside[0].removesuffix(".py")
    if name in SCIENCE:
        return True
    if name in OUTSIDE or name == "__init__":
        return False
    raise ValueError(f"{path} is neither science nor runtime: put its package into a list of sft/runtime/code.py")


def _full(module: Module) -> str:
    """A module with what its imports of ours mean; the same wherever the files lie."""
    bound = sorted(f"{name} {_targets(found)}" for name, found in module.imports.items())
    return sha("\n".join([module.body, *bound]))


def _targets(found: list[tuple[Path, str]], seen: frozenset[Path] = frozenset()) -> str:
    told = [_target(path, name, seen) for path, name in found]
    return " ".join(told if len(set(told)) > 1 else told[:1])


def _target(path: Path, name: str, seen: frozenset[Path] = frozenset()) -> str:
    if not is_science(path):
        return f"outside {path.stem}.{name}"
    module = _module(path)
    return module.bound(name, seen) if name else module.body


@cache
def _module(path: Path) -> Module:
    module = Module(path)
    tree = ast.parse(path.read_bytes(), filename=str(path))
    reader = Reader(_is_ours)
    defined = Counter(name for statement in tree.body for name in _binds(statement))
    for statement in tree.body[docstring(tree) :]:
        if isinstance(statement, ast.ClassDef):
            for inner in statement.body:
                if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef):
                    # Read once: the class counts the digest of the method in the place of its text.
                    reader.known[inner] = module.parts[f"{statement.name}.{inner.name}"] = reader.digest(inner)
        digest = reader.digest(statement)
        for name in _names(statement) or [REST]:
            module.parts[name] = sha(module.parts[name] + digest) if name in module.parts else digest
        plain = isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef) and not statement.decorator_list
        # Of several that define one name the last is meant.
        plain = plain and all(defined[name] == 1 for name in _binds(statement))
        (module.unordered if plain else module.ordered).append(digest)
    for node in reader.imports:
        _add_import(module, node)
    for text in sorted(reader.texts & _beside(path.parent)):
        module.files |= _files_named(path.parent / text)
    return module


def _names(statement: ast.stmt) -> list[str]:
    """The names that a statement of a module defines."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [statement.name]
    targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
    found = [node.id for target in targets if target for node in ast.walk(target) if isinstance(node, ast.Name)]
    return found if isinstance(statement, ast.Assign | ast.AnnAssign | ast.AugAssign) else []


def _binds(statement: ast.stmt) -> set[str]:
    """The names that a statement of a module may bind, in whatever way."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {statement.name}
    inside = list(ast.walk(statement))
    found = {node.asname or node.name for node in inside if isinstance(node, ast.alias)}
    found |= {node.id for node in inside if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    return found | {node.name for node in inside if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def _add_import(module: Module, node: ast.Import | ast.ImportFrom) -> None:
    if isinstance(node, ast.Import):
        for alias in node.names:
            if found := _resolved(alias.name):
                module.imports.setdefault(alias.asname or alias.name, []).append((found, ""))
                module.executes |= _chain(alias.name)
        return
    base = node.module or ""
    if node.level:
        package = module.path.relative_to(SCRIPTS).parts[: -node.level]
        base = ".".join([*package, *([base] if base else [])])
    outer = _resolved(base)
    for alias in node.names:
        targets = module.imports.setdefault(alias.asname or alias.name, [])
        if inner := _resolved(f"{base}.{alias.name}"):
            targets.append((inner, ""))
            module.executes |= _chain(f"{base}.{alias.name}")
        elif outer:
            targets.append((outer, alias.name))
            module.executes |= _chain(base)


@cache
def _resolved(name: str) -> Path | None:
    """The file of a module of ours, None for others; as in Python, a package goes before a module of its name."""
    base = SCRIPTS.joinpath(*name.split("."))
    return next((path for path in (base / "__init__.py", base.with_suffix(".py")) if path.is_file()), None)


@cache
def _chain(name: str) -> set[Path]:
    """Files that `import name` executes: `import a.b.c` executes a/__init__.py and a/b/__init__.py as well."""
    parts = name.split(".")
    found = (_resolved(".".join(parts[:n])) for n in range(1, len(parts) + 1))
    return {path for path in found if path}


@cache
def _beside(folder: Path) -> set[str]:
    """Names in a folder of ours that are no Python."""
    names = (entry.name for entry in folder.iterdir() if entry.suffix not in (".py", ".pyc"))
    return {name for name in names if name != "__pycache__" and not (folder / name / "__init__.py").exists()}


def _files_named(named: Path) -> dict[str, str]:
    """A data file, or all files of a folder: name -> sha256 of the bytes."""
    inside = [named] if named.is_file() else sorted(path for path in named.rglob("*") if path.is_file())
    files = [path for path in inside if path.suffix not in (".py", ".pyc")]
    return {path.relative_to(named.parent).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _is_ours(node: ast.Import | ast.ImportFrom) -> bool:
    if isinstance(node, ast.Import):
        return all(_resolved(alias.name) is not None for alias in node.names)
    return bool(node.level) or (node.module or "").split(".")[0] == "sft" or _resolved(node.module or "") is not None
