"""Chunks of Markdown: slices of their document that miss nothing, stay in their section and never cut code."""

import random
from pathlib import Path

import pytest

from sft.data.read.markdown_chunks import chunks, estimate, read_document
from sft.runtime.stage import StageError

ROOT = Path(__file__).resolve().parents[2]
COLUMNS = [
    "chunk_id",
    "text",
    "source_file",
    "section_heading",
    "char_start",
    "char_end",
    "token_estimate",
    "prev_chunk_id",
    "next_chunk_id",
    "url",
    "doc_title",
]
FENCES = ("```", "~~~", "`````", "~~~~~~")
CODE = (
    "# no heading, a comment\nmake check\n",
    "## neither is this\n\n\n  indented = 1\n",
    "```\na fence inside of a longer one\n```\n",
    "| no | table |\n|----|-------|\n",
    "---\ntitle: no front matter\n---\n",
    "naïve = 'Größe'  # 文字 🙂\n",
    "\n\nblank lines first and last\n\n",
)
PROSE = (
    "A paragraph of plain words that goes on for a while and says nothing.\nIts second line does not either.\n",
    "Ünïcödé 文字 🙂, *emphasis* and `code`.\u2028A separator that is no line ending.\n",
    "- a list\n- of items\n\n  with a paragraph in one\n",
    "> a quotation\n> of two lines\n",
    "| a | b |\n| --- | --- |\n| 1 | `|` |\n",
    "[reference]: https://example.org/page\n",
    "<details>\n<summary>HTML</summary>\n</details>\n",
    "***\n",
    "Escaped \\# and \\`\\`\\` and a trailing backslash\\\nnext line\n",
)
HEADINGS = ("# First {n}\n", "## Second {n} ##\n", "Setext {n}\n========\n", "Setext {n}\n---\n", "###### Deep `{n}`\n")


def made_document(seed: int) -> tuple[str, list[str], str]:
    """(document, code blocks in it as they are written, front matter) of nasty Markdown."""
    rng = random.Random(seed)
    blocks, code = [], []
    for n in range(rng.randrange(1, 30)):
        kind = rng.randrange(5)
        if kind == 0:
            blocks.append(rng.choice(HEADINGS).format(n=n))
        elif kind == 1:
            inside = rng.choice(CODE)
            fence = rng.choice(FENCES)
            fence = "`````" if fence == "```" and "```" in inside else fence
            written = f"{fence}{rng.choice(['', 'python', 'yaml title=x'])}\n{inside}{fence}"
            if rng.randrange(3) == 0:
                quoted = "".join(f"> {line}\n" for line in written.split("\n"))
                code.append(quoted.removesuffix("\n"))
                blocks.append(quoted)
            elif rng.randrange(2) == 0:
                lines = written.split("\n")
                item = f"1. {lines[0]}\n" + "".join(f"   {line}\n" if line else "\n" for line in lines[1:])
                code.append(item.removesuffix("\n"))
                blocks.append(item)
            else:
                code.append(written)
                blocks.append(written + "\n")
        elif kind == 2:
            indented = f"    indented code {n}\n\n    after a blank line"
            code.append(indented)
            # Indented code cannot interrupt a paragraph or belong to a list: a rule stands before it.
            blocks.append("***\n\n" + indented + "\n")
        else:
            blocks.append(rng.choice(PROSE))
    matter = rng.choice(["", "", "---\ntitle: Über alles\ntags: [a, b]\n---\n"])
    body = "".join(block + "\n" * rng.randrange(1, 4) for block in blocks)
    ending = rng.choice(["\n", "\r\n", "\r"])
    mark = rng.choice(["", "\ufeff"])
    return (
        mark + (matter + body).replace("\n", ending),
        [text.replace("\n", ending) for text in code],
        mark + matter.replace("\n", ending),
    )


@pytest.mark.parametrize("block", range(8))
def test_properties_of_made_documents(block: int):
    for seed in range(block * 20, block * 20 + 20):
        document, code, matter = made_document(seed)
        for size in (8, 40, 400):
            made = chunks(document, "guide/page.md", size)
            where = f"seed {seed}, {size} tokens"
            check(made, document, len(matter), where)
            for text in code:
                assert any(text in chunk["text"] for chunk in made), f"{where}: cut {text!r}"


def check(made: list[dict], document: str, begin: int, where: str) -> None:
    place = begin
    for number, chunk in enumerate(made):
        assert list(chunk) == COLUMNS, where
        assert chunk["text"] == document[chunk["char_start"] : chunk["char_end"]], where
        assert chunk["text"].strip(), where
        assert chunk["char_start"] >= place, where
        assert not document[place : chunk["char_start"]].strip("\ufeff \t\r\n"), where
        assert chunk["prev_chunk_id"] == (made[number - 1]["chunk_id"] if number else None), where
        assert chunk["next_chunk_id"] == (made[number + 1]["chunk_id"] if number + 1 < len(made) else None), where
        assert chunk["token_estimate"] == estimate(chunk["text"]), where
        place = chunk["char_end"]
    assert not document[place:].strip(), where
    assert len({chunk["chunk_id"] for chunk in made}) == len(made), where


def test_a_shell_comment_starts_no_section_and_code_stays_whole():
    code = "~~~sh\n# install\n" + "make\n" * 200 + "# done\n~~~"
    made = chunks(f"# Use\n\nwords\n\n{code}\n\n## Next\n\nmore\n", "a.md", 50)
    assert [chunk["section_heading"] for chunk in made] == ["Use", "Use", "Next"]
    assert made[1]["text"] == code


def test_the_same_paragraph_twice_has_two_places():
    made = chunks("# A\n\nsame words\n\n# B\n\nsame words\n", "a.md", 50)
    assert [chunk["text"] for chunk in made] == ["# A\n\nsame words", "# B\n\nsame words"]
    assert made[1]["char_start"] == 17


def test_headings_without_text_stay_with_what_follows():
    made = chunks("# Title\n\n## Part\n\nwords\n\n## Empty\n", "a.md", 50)
    assert [(chunk["text"], chunk["section_heading"]) for chunk in made] == [
        ("# Title\n\n## Part\n\nwords", "Part"),
        ("## Empty", "Empty"),
    ]


def test_long_lists_and_tables_are_cut_between_items():
    items = "".join(f"- item {n} " + "word " * 20 + "\n" for n in range(20))
    rows = "| a | b |\n| --- | --- |\n" + "".join(f"| {n} | {'word ' * 20} |\n" for n in range(20))
    for text, mark in ((items, "- item"), (rows, "| ")):
        made = chunks(text, "a.md", 100)
        assert len(made) > 4
        assert all(chunk["text"].startswith(mark) and chunk["token_estimate"] <= 100 for chunk in made)


@pytest.mark.parametrize(
    ("document", "title", "first"),
    [
        ("---\ntitle: Given\n---\n# Heading\n\nx\n", "Given", "# Heading\n\nx"),
        ("---\r\ntags: [a]\r\n---\r\n# *The* `Heading`\r\n\r\nx\r\n", "The Heading", "# *The* `Heading`\r\n\r\nx"),
        ("\ufeff# Heading\n", "Heading", "# Heading"),
        ("words only\n", "a", "words only"),
        ("---\nno mapping\n---\nwords\n", "no mapping", "---"),
        ("---\n{broken: [\n---\nwords\n", "{broken: [", "---"),
        ("Setext\n===\n\nx\n", "Setext", "Setext\n===\n\nx"),
    ],
)
def test_titles_and_front_matter(document: str, title: str, first: str):
    made = chunks(document, "guide/a.md", 50)
    assert made[0]["doc_title"] == title
    assert made[0]["text"] == first


@pytest.mark.parametrize("document", ["", "\n\n \t\n", "---\ntitle: x\n---\n"])
def test_a_document_without_text_has_no_chunk(document: str):
    assert chunks(document, "a.md", 50) == []


def test_addresses_name_the_file():
    assert chunks("x", "guide/a.md", 50, "https://example.org/docs/")[0]["url"] == "https://example.org/docs/guide/a.md"
    assert chunks("x", "guide/a.md", 50)[0]["url"] is None


def test_a_file_keeps_its_line_endings_and_must_be_utf_8(tmp_path: Path):
    (tmp_path / "a.md").write_bytes("Größe\r\nx\n".encode())
    assert read_document(tmp_path / "a.md") == "Größe\r\nx\n"
    (tmp_path / "b.md").write_bytes("Größe".encode("latin-1"))
    with pytest.raises(StageError, match=r"b\.md: not UTF-8 .* at byte 2"):
        read_document(tmp_path / "b.md")


@pytest.mark.parametrize("name", ["README.md", "config/README.md", "CONTRIBUTING.md"])
def test_the_pages_of_this_project(name: str):
    document = read_document(ROOT / name)
    made = chunks(document, name, 256)
    check(made, document, 0, name)
    assert max(chunk["token_estimate"] for chunk in made) <= 300
    assert sum(chunk["token_estimate"] for chunk in made) > 0.95 * estimate(document)
