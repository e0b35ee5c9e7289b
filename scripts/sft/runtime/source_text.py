"""What a piece of source does, as a text to digest: its syntax tree without what no value depends on.

Left out are docstrings, annotations of functions and variables, and the texts of errors, log lines and `--help`. What
an error or a log line calls is kept: a call can change a value. The tree is walked here, not printed by `ast.dump`,
whose text differs between Python versions.
"""

import ast
import hashlib
from collections.abc import Callable
from typing import ClassVar

# Calls that only tell a person something: by the last word of what is called.
TELLING = {"say", "summary", "print", "warn", "warning", "info", "debug", "error", "exit"}
# Arguments that are help for a person.
HELP = {"help", "metavar", "epilog"}
# Decorators that do not look at annotations.
PLAIN_DECORATORS = {
    *("staticmethod", "classmethod", "property", "cached_property", "cache", "lru_cache", "contextmanager"),
    *("setter", "no_grad", "inference_mode", "override", "abstractmethod", "wraps"),
}
# What can change a value wherever it stands, also within an error or a log line.
WORK = (
    *(ast.Call, ast.NamedExpr, ast.Await, ast.Yield, ast.YieldFrom, ast.Starred),
    *(ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp),
)
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def sha(text: str) -> str:
    """sha256 of a text, in hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()


class Reader:
    """Reads syntax trees as a text of what they do, and notes what they import and which texts they hold."""

    def __init__(self, is_ours: Callable[[ast.Import | ast.ImportFrom], bool]) -> None:
        self._is_ours = is_ours
        self.imports: list[ast.Import | ast.ImportFrom] = []
        self.texts: set[str] = set()
        self.known: dict[ast.AST, str] = {}
        self._out: list[str] = []
        self._is_import = False

    def digest(self, node: ast.AST) -> str:
        """sha256 of what a statement does."""
        self._out = []
        self._is_import = isinstance(node, ast.Import | ast.ImportFrom)
        self._read(node, False, False)
        return sha("".join(self._out))

    def _read(self, node: object, telling: bool, in_class: bool) -> None:
        """`telling`: inside an error or a log line, whose texts do not count."""
        if isinstance(node, list):
            self._out.append("[")
            for item in node:
                self._read(item, telling, in_class)
            self._out.append("]")
            return
        if not isinstance(node, ast.AST):
            self._out.append(f"{type(node).__name__}:{node!r};")
            return
        if node in self.known:
            self._out.append(f"({self.known[node]})")
            return
        kind = type(node)
        special = self._SPECIAL.get(kind)
        if special and special(self, node, telling, in_class):
            return
        telling = telling or (isinstance(node, ast.keyword) and node.arg in HELP)
        skipped = _skipped(node)
        self._out.append(f"({kind.__name__}")
        for name in node._fields:
            value = getattr(node, name, None)
            # Empty fields differ between Python versions (3.12 added type_params); none changes a meaning.
            if value is None or value == [] or name in ("type_comment", "kind", "ctx") or name in skipped:
                continue
            if name == "body" and kind in _DOCUMENTED:
                value = value[docstring(node) :]
            if name == "args" and "returns" in skipped:
                value = _without_annotations(value)
            self._out.append(f" {name}=")
            self._read(value, telling, in_class=kind is ast.ClassDef and name == "body")
        self._out.append(")")

    def _import(self, node: ast.Import | ast.ImportFrom, telling: bool, in_class: bool) -> bool:
        if isinstance(node, ast.Import) and len(node.names) > 1:
            for alias in node.names:
                self._read(ast.Import([alias]), telling, in_class)
            return True
        if not self._is_ours(node):
            return False
        self.imports.append(node)  # what the names mean is added by sft.runtime.code
        if not self._is_import:
            # Where work imports it, and after what; at the top of a file the order is that of the files' names.
            self._out.append(f"(import {' '.join(sorted(alias.asname or alias.name for alias in node.names))})")
        return True

    def _constant(self, node: ast.Constant, telling: bool, in_class: bool) -> bool:
        if not isinstance(node.value, str):
            return False
        self._out.append("(text)" if telling else f"(str:{node.value!r})")
        self.texts.add(node.value)
        return True

    def _joined(self, node: ast.JoinedStr, telling: bool, in_class: bool) -> bool:
        if not telling:
            return False
        self._out.append("(text)")
        for part in node.values:
            # What is only looked at cannot change a value; what is called, and with what, may.
            if not isinstance(part, ast.FormattedValue):
                continue
            for inside in (part.value, part.format_spec):
                if inside and any(isinstance(node, WORK) for node in ast.walk(inside)):
                    self._read(inside, inside is part.format_spec, False)
        return True

    def _work(self, node: ast.expr, telling: bool, in_class: bool) -> bool:
        if not telling:
            return False
        self._read(node, False, False)  # work that is done for an error or a log line: its texts count
        return True

    def _tell(self, node: ast.Raise | ast.Expr, telling: bool, in_class: bool) -> bool:
        told = node.exc if isinstance(node, ast.Raise) else node.value
        if not isinstance(told, ast.Call) or (isinstance(node, ast.Expr) and not _tells(told)):
            return False
        self._out.append(f"({type(node).__name__} ")
        self._read(told.func, False, False)
        for argument in told.args:
            self._read(argument, True, False)
        for keyword in told.keywords:
            self._out.append(f" {keyword.arg}=")
            self._read(keyword.value, True, False)
        if isinstance(node, ast.Raise):
            self._read(node.cause, True, False)
        self._out.append(")")
        return True

    def _if(self, node: ast.If, telling: bool, in_class: bool) -> bool:
        if _called(node.test) != "TYPE_CHECKING":
            return False
        self._read(node.orelse, telling, in_class)
        return True

    def _annotated(self, node: ast.AnnAssign, telling: bool, in_class: bool) -> bool:
        if in_class:
            return False  # a field of a dataclass
        if node.value is not None:
            self._read(ast.Assign([node.target], node.value), telling, False)
        return True

    _SPECIAL: ClassVar[dict[type, Callable[..., bool]]] = {
        ast.Import: _import,
        ast.ImportFrom: _import,
        ast.Constant: _constant,
        **dict.fromkeys(WORK, _work),
        ast.Raise: _tell,
        ast.Expr: _tell,
        ast.JoinedStr: _joined,
        ast.If: _if,
        ast.AnnAssign: _annotated,
    }


def _skipped(node: ast.AST) -> tuple[str, ...]:
    """Fields of a node on which no value depends."""
    if isinstance(node, ast.Assert):
        return ("msg",)
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return ("returns",) if all(_called(one) in PLAIN_DECORATORS for one in node.decorator_list) else ()
    return ()


def _without_annotations(arguments: ast.arguments) -> ast.arguments:
    def bare(argument: ast.arg) -> ast.arg:
        return ast.arg(argument.arg)

    return ast.arguments(
        posonlyargs=[bare(one) for one in arguments.posonlyargs],
        args=[bare(one) for one in arguments.args],
        vararg=arguments.vararg and bare(arguments.vararg),
        kwonlyargs=[bare(one) for one in arguments.kwonlyargs],
        kw_defaults=arguments.kw_defaults,
        kwarg=arguments.kwarg and bare(arguments.kwarg),
        defaults=arguments.defaults,
    )


def _tells(call: ast.Call) -> bool:
    """Whether a call whose result nobody takes only tells a person something: a line of the log, a warning."""
    if _called(call) == "print":
        return any(one.arg == "file" and _called(one.value) == "stderr" for one in call.keywords)
    return _called(call) in TELLING


def _called(node: ast.AST) -> str:
    """The last word of what is called or named: `say` of `stage.say(…)`."""
    while isinstance(node, ast.Call):
        node = node.func
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def docstring(node: ast.AST) -> int:
    """1 where the body of `node` begins with a docstring, else 0."""
    first = node.body[0] if isinstance(node, _DOCUMENTED) and node.body else None
    value = first.value if isinstance(first, ast.Expr) else None
    return int(isinstance(value, ast.Constant) and isinstance(value.value, str))
