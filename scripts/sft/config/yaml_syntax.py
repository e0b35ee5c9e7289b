"""PyYAML's and libyaml's syntax errors in plain words: where, what is wrong, what to do."""

import re

import yaml

# (part of the parser's message, what is wrong, what to do); both parsers' spellings, first match wins.
_WORDS = [
    (
        r"could not find expected ':'",
        "this line is neither `key: value` nor part of a list",
        "Write a colon and a space after the key",
    ),
    (
        r"mapping values are not allowed",
        "a second `: ` on one line, or a key indented deeper than its siblings",
        "Quote text that contains `: `, and align keys that belong together",
    ),
    (
        r"(did not find expected|expected) (key|<block end>)",
        "the indentation fits no block that is open here",
        "Align keys that belong together",
    ),
    (
        r"(did not find expected|expected) '-' indicator",
        "a key stands among the items of a list",
        "Indent it below an item, or end the list",
    ),
    (
        r"sequence entries are not allowed",
        "a list item (`- `) stands where none can",
        "Begin the list on a line of its own, indented",
    ),
    (r"unknown escape character", "unknown escape in a quoted text", "Use single quotes, or double the backslash"),
    (r"tag|expected URI", "tags (`!name`) are not allowed", "Remove the tag; quote the value if it is text"),
    (
        r"(anchor|alias)|expected alphabetic or numeric character",
        "`&` and `*` begin anchors and aliases, and no name follows",
        "Quote text that begins with & or *",
    ),
    (r"directive|incompatible YAML", "a %-directive this reader does not know", "Remove the line that begins with %"),
    (r"document start", "content after the end of the document", "Remove it, or the line `---` or `...` before it"),
    (r"(comment or line break|indentation indicator)", "bad header of a block text", "Write | or > alone on its line"),
    (r"tab", "a tab where only spaces may stand", "Use spaces for indentation"),
    (r"expected node content|expected the node content", "a value is missing or misplaced here", "Write a value"),
]


def explain(error: yaml.MarkedYAMLError, text: str) -> tuple[int, str, str]:
    """(line, what is wrong, what to do) for a parser's `error` about `text`; lines count from 1."""
    line = error.problem_mark.line + 1 if error.problem_mark else 1
    opened = error.context_mark.line + 1 if error.context_mark else line
    problem, context = error.problem or "", error.context or ""
    lines = text.splitlines()
    # An error about indentation with tabs is reported at the tab or at the line after it.
    for number in (line, line - 1):
        if 0 < number <= len(lines) and re.match(r" *\t", lines[number - 1]):
            return number, "a tab is used for indentation", "Use spaces"
    if "found unexpected end of stream" in problem or "unexpected document" in problem:
        return opened, "a quoted text that begins here is not closed", "Close the quote"
    if "flow" in context and re.search(r"',' or|expected the node content|expected node content", problem):
        bracket, closing = ("{", "}") if "mapping" in context else ("[", "]")
        if "node" in context:
            return line, "a value is missing or a bracket is misplaced", "Check brackets and commas"
        return opened, f"`{bracket}` that opens here is not closed by `{closing}`", "Close it, and check the commas"
    if "cannot start any token" in problem and error.problem_mark:
        start = lines[line - 1][error.problem_mark.column :][:1] if 0 < line <= len(lines) else ""
        return line, f"a value cannot begin with {start}" if start.strip() else problem, "Quote the text"
    if "simple key" in context:  # noticed at the end of the file, but about the line of the key
        line = opened
    for pattern, message, fix in _WORDS:
        if re.search(pattern, problem) or (not problem and re.search(pattern, context)):
            return line, message, fix
    return line, f"not valid YAML ({problem or context})", "Check indentation, quotes and brackets near this line"
