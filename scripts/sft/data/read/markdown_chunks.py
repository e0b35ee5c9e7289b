"""Markdown documents as chunks: pieces of a section's length that know where they stand.

A chunk is {chunk_id, text, source_file, section_heading, char_start, char_end, token_estimate, prev_chunk_id,
next_chunk_id, url, doc_title}, the columns that vROM packages carry (vecdb-wasm, tools/vrom_builder.py). That builder
finds sections and code with regular expressions and places with `str.find`: a comment in a shell example starts a
section there, code between `~~~` is cut, and a chunk whose text was put together from paragraphs begins at 0. Here a
CommonMark parser says which lines a block covers, and a chunk is a slice of the document:

    text == document[char_start:char_end], and between two chunks there is white space only.

A document is the file decoded as UTF-8 with its line endings kept, so `open(path, newline="", encoding="utf-8").read()`
gives the text that the places count.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from markdown_it import MarkdownIt
from markdown_it.tree import SyntaxTreeNode

from sft.runtime.stage import StageError

# English prose has about four characters a token under the tokenizers of today; an estimate needs no tokenizer.
CHARACTERS_PER_TOKEN = 4
# What may be cut between its parts where it is too long for one chunk. Paragraphs, code and HTML never are.
DIVISIBLE = ("bullet_list", "ordered_list", "list_item", "blockquote", "table", "thead", "tbody")
# Line endings of CommonMark 0.31.2, section 2.1; str.splitlines knows more.
LINE_ENDING = re.compile(r"\r\n|\r|\n")
_EOL = r"(?:\r\n|\r|\n)"
FRONT_MATTER = re.compile(rf"---[ \t]*{_EOL}(?:(.*?){_EOL})??(?:---|\.\.\.)[ \t]*(?:{_EOL}|\Z)", re.DOTALL)
BYTE_ORDER_MARK = "\ufeff"


SCHEMA = {
    "chunk_id": "string",
    "text": "string",
    "source_file": "string",
    "section_heading": "string",
    "char_start": "int64",
    "char_end": "int64",
    "token_estimate": "int64",
    "prev_chunk_id": "string",
    "next_chunk_id": "string",
    "url": "string",
    "doc_title": "string",
}


def write(made: list[dict[str, Any]], path: Path) -> None:
    """Chunks as a parquet file."""
    import pyarrow

    from sft.data.read.tables import write_rows

    path.parent.mkdir(parents=True, exist_ok=True)
    schema = pyarrow.schema([(name, pyarrow.type_for_alias(kind)) for name, kind in SCHEMA.items()])
    write_rows(made, schema, path)


def read_document(path: Path) -> str:
    """The file as text, line endings kept; StageError where it is not UTF-8."""
    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise StageError(f"{path}: not UTF-8 ({error.reason} at byte {error.start}). Save it as UTF-8") from None


def chunks(document: str, source_file: str, chunk_tokens: int, base_url: str | None = None) -> list[dict[str, Any]]:
    """The chunks of a document, in order; none of an empty one.

    A chunk lies in one section, has about `chunk_tokens` tokens at most, and is longer only where one block that
    cannot be cut is. A heading without text of its own stays with the section that follows it. YAML front matter is
    no part of any chunk; its title, else the first heading, is the document's title.
    """
    begin, title = _front_matter(document, source_file)
    body = document[begin:]
    starts = [0, *(ending.end() for ending in LINE_ENDING.finditer(body)), len(body)]
    tree = SyntaxTreeNode(MarkdownIt("commonmark").enable("table").parse(body))
    headings = {node.map[0]: _heading(node) for node in tree.children if node.type == "heading" and node.map}
    title = title or next((heading for heading in headings.values() if heading), None) or Path(source_file).stem
    places = [(begin + starts[first], begin + starts[last], heading) for first, last, heading in
              _pieces(tree, headings, starts, chunk_tokens * CHARACTERS_PER_TOKEN)]  # fmt: skip
    places = [place for place in (_trimmed(document, *place) for place in places) if place]
    ids = [f"{source_file}#{number:04d}" for number in range(len(places))]
    return [
        {
            "chunk_id": ids[number],
            "text": document[start:end],
            "source_file": source_file,
            "section_heading": heading,
            "char_start": start,
            "char_end": end,
            "token_estimate": estimate(document[start:end]),
            "prev_chunk_id": ids[number - 1] if number else None,
            "next_chunk_id": ids[number + 1] if number + 1 < len(ids) else None,
            "url": f"{base_url.rstrip('/')}/{source_file}" if base_url else None,
            "doc_title": title,
        }
        for number, (start, end, heading) in enumerate(places)
    ]


def estimate(text: str) -> int:
    """About how many tokens a text has."""
    return max(1, len(text) // CHARACTERS_PER_TOKEN)


def _pieces(
    tree: SyntaxTreeNode, headings: dict[int, str], starts: list[int], most: int
) -> Iterator[tuple[int, int, str | None]]:
    """(first line, line behind the last, heading of the section) of the chunks, covering all lines."""
    end = len(starts) - 1
    cuts = sorted({0, *(line for child in tree.children for line in _cuts(child, starts, most))})
    first, heading, only_headings = 0, None, True
    for line, following in zip(cuts, [*cuts[1:], end], strict=True):
        in_new_section = line in headings and not only_headings
        too_long = not only_headings and starts[following] - starts[first] > most
        if line > first and (in_new_section or too_long):
            yield first, line, heading
            first, only_headings = line, True
        if line in headings:
            heading = headings[line]
        else:
            only_headings = False
    if end:
        yield first, end, heading


def _cuts(node: SyntaxTreeNode, starts: list[int], most: int) -> Iterator[int]:
    """The lines at which a chunk may begin, within one block."""
    if not node.map:
        return
    first, last = node.map
    yield first
    if node.type in DIVISIBLE and starts[last] - starts[first] > most:
        for child in node.children:
            yield from _cuts(child, starts, most)


def _heading(node: SyntaxTreeNode) -> str:
    """A heading's text on one line, without its marks."""
    shown = {"softbreak": " ", "hardbreak": " "}
    parts = (part for child in node.children for part in child.walk())
    return "".join(
        shown.get(part.type) or part.content for part in parts if part.type in (*shown, "text", "code_inline")
    )


def _front_matter(document: str, source_file: str) -> tuple[int, str | None]:
    """Where the text begins, and the title that YAML front matter gives, if any."""
    begin = len(BYTE_ORDER_MARK) if document.startswith(BYTE_ORDER_MARK) else 0
    found = FRONT_MATTER.match(document, begin)
    if not found:
        return begin, None
    try:
        data = yaml.safe_load(found.group(1) or "")
    except yaml.YAMLError:
        data = None
    if not isinstance(data, dict):
        # A document may as well begin with a rule; what stands between two rules then is text.
        return begin, None
    title = data.get("title")
    return found.end(), str(title) if title is not None else None


def _trimmed(document: str, start: int, end: int, heading: str | None) -> tuple[int, int, str | None] | None:
    """The piece without the blank lines before it and the white space behind it; None for nothing but white space."""
    text = document[start:end]
    if not text.strip():
        return None
    # The first line keeps its indentation: four spaces are code.
    before = text[: len(text) - len(text.lstrip())]
    lines = list(LINE_ENDING.finditer(before))
    return start + (lines[-1].end() if lines else 0), start + len(text.rstrip()), heading
