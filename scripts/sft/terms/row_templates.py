"""Small Jinja templates of the configuration that make a prompt, a completion or a text of a row's columns.

A configuration is data and may come from anybody, so a template can read the row's columns and nothing else, calls
no function and no method that could build a huge text, and cannot loop without end: it loops over the row's own
lists, at most twice inside each other, and its text is bounded.

    "### Instruction:\\n{{ instruction }}\\n\\n### Response:\\n"
"""

from collections.abc import Mapping
from typing import Any

from jinja2 import StrictUndefined, TemplateError, TemplateSyntaxError, nodes
from jinja2.meta import find_undeclared_variables
from jinja2.sandbox import ImmutableSandboxedEnvironment, SecurityError

MAXIMUM_SOURCE = 10_000
MAXIMUM_TEXT = 1_000_000
LOOPS_INSIDE_EACH_OTHER = 2
# What writes, tests or takes apart a text; nothing that repeats or pads one ("center", "format", "*").
FILTERS = {
    *("capitalize", "count", "d", "default", "e", "escape", "first", "float", "int", "items", "join", "last"),
    *("length", "list", "lower", "replace", "reverse", "round", "sort", "string", "title", "tojson", "trim", "unique"),
    *("upper",),
}
METHODS = {
    *("capitalize", "endswith", "get", "items", "keys", "lower", "lstrip", "removeprefix", "removesuffix", "rstrip"),
    *("split", "splitlines", "startswith", "strip", "title", "upper", "values"),
}
REFUSED = (nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends, nodes.Block, nodes.Macro, nodes.CallBlock)


class RowTemplate:
    """One compiled template. ValueError for a source that is no template, or does what templates may not."""

    def __init__(self, source: str):
        if len(source) > MAXIMUM_SOURCE:
            raise ValueError(f"a template of {len(source)} characters; {MAXIMUM_SOURCE} are allowed")
        environment = _Sandbox(undefined=StrictUndefined, keep_trailing_newline=True)
        environment.filters = {name: made for name, made in environment.filters.items() if name in FILTERS}
        environment.globals = {}
        try:
            tree = environment.parse(source)
            _check(tree, 0)
            self.columns = sorted(find_undeclared_variables(tree))
            self._template = environment.from_string(source)
        except TemplateSyntaxError as error:
            raise ValueError(f"no Jinja template: {error.message} (line {error.lineno})") from None
        except TemplateError as error:
            raise ValueError(f"no Jinja template: {error}") from None

    def render(self, row: Mapping[str, Any]) -> str:
        """The text for one row; ValueError with the reason where it cannot be made."""
        made, length = [], 0
        try:
            for piece in self._template.generate({name: row[name] for name in self.columns if name in row}):
                made.append(piece)
                length += len(piece)
                if length > MAXIMUM_TEXT:
                    raise ValueError(f"the template writes more than {MAXIMUM_TEXT} characters")
        except (TemplateError, TypeError, ArithmeticError, LookupError, AttributeError) as error:
            raise ValueError(f"the template fails: {error}") from None
        return "".join(made)


class _Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's own sandbox, with few methods and without the operators that multiply texts."""

    intercepted_binops = frozenset(["*", "**", "%"])

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        numbers = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in (left, right))
        if not numbers or (operator == "**" and abs(right) > 64):
            raise SecurityError(f"{operator} is for small numbers only")
        return super().call_binop(context, operator, left, right)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if callable(value) and attr not in METHODS:
            return False
        return super().is_safe_attribute(obj, attr, value)


def _check(node: nodes.Node, loops: int) -> None:
    """ValueError for statements that templates of rows may not have."""
    if isinstance(node, REFUSED):
        raise ValueError(f"a template of a row cannot have {type(node).__name__.lower()}; write its text out")
    if isinstance(node, nodes.For):
        loops += 1
        if loops > LOOPS_INSIDE_EACH_OTHER or node.recursive:
            raise ValueError(f"a template of a row has at most {LOOPS_INSIDE_EACH_OTHER} loops inside each other")
    for child in node.iter_child_nodes():
        _check(child, loops)
