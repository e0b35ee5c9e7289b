"""Pages: what stands in data is shown as it is, never run; nothing is loaded from elsewhere."""

import re
from collections import Counter
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import jinja2
import pytest

from sft.data.audit import label_page
from sft.data.audit.audit_page import page as audit_page
from sft.data.audit.audit_shown import Pair, Side
from sft.data.audit.page import render
from sft.runtime import code

HOSTILE = (
    "</style></title></code><script>alert(1)</script><img src=x onerror=alert(1)> \"'{{ 7 * 7 }}{% raw %}{# no #}&amp;"
)


class Elements(HTMLParser):
    """The elements of a page, and what it would load or run."""

    def __init__(self, page: str):
        super().__init__()
        self.count: Counter[str] = Counter()
        self.addresses: list[str] = []
        self.handlers: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.count[tag] += 1
        for name, value in attributes:
            if name in ("src", "href", "data", "action", "srcset"):
                self.addresses.append(value or "")
            if name.startswith("on"):
                self.handlers.append(name)


def shown_as_it_is(page: str) -> Elements:
    """The hostile text stands in the page, and no element, attribute or expression came of it."""
    assert HOSTILE in unescape(page)
    assert "{{ 7 * 7 }}" in page
    assert "49" not in page
    assert "://" not in page
    assert "default-src 'none'" in page
    found = Elements(page)
    assert found.count["script"] == found.count["link"] == 0
    assert found.count["style"] == found.count["head"] == found.count["body"] == 1
    assert found.handlers == []
    assert all(address.startswith("data:image/png;base64,") for address in found.addresses)
    return found


def audit_made() -> dict:
    found = {"rows": 2, "limit": 0, "by_source": {HOSTILE: 1}, "found_in": {HOSTILE: 1}}
    pair = {"first": HOSTILE, "second": HOSTILE, "rows": 3, "overlap": {"content": found}}
    counts = ("rows", "pictures", "distinct_pictures", "groups", "repeated_rows", "contradictory_contents")
    return {
        "passed": False,
        "pairs": [pair | {"rows_without_ngrams": 1, "rows_of_common_ngrams_only": 1}],
        "ngram_size": 13,
        "ngram_common": 10,
        "picture_distance": 4,
        "splits": {HOSTILE: dict.fromkeys(counts, 1) | {"rows_by_source": {HOSTILE: 1}}},
        "benchmarks": {HOSTILE: {"rows": 1}},
    }


def test_hostile_rows_and_names_are_text_in_the_audit():
    side = Side(HOSTILE, HOSTILE, HOSTILE, [(HOSTILE, True), (HOSTILE, False)], ["data:image/png;base64,AAAA"], 1)
    pairs = [Pair({"content": 1.0}, True, side, side)]
    page = audit_page(audit_made(), pairs, HOSTILE, {HOSTILE: HOSTILE}, {HOSTILE: {HOSTILE: {HOSTILE: 1}}})
    found = shown_as_it_is(page)
    assert found.count["mark"] == 2
    assert found.addresses == ["data:image/png;base64,AAAA"] * 2


def test_hostile_rows_and_names_are_text_in_the_labels():
    facts = dict.fromkeys(label_page.WORDS, 1) | {
        "end_of_turn_ids": {"2": 1},
        "tokens_per_row": {"3": 1, "5": 3},
        "supervised_tokens_per_row": {},
        "shown": [
            {
                "id": HOSTILE,
                "tokens": 3,
                "segments": [{"text": HOSTILE, "supervised": True}, {"text": HOSTILE, "supervised": False}],
            }
        ],
    }
    labels = {
        "splits": {HOSTILE: facts},
        "special_token_ids": {"pad": 2, "eos": 2, "bos": None},
        "added_by_the_template": HOSTILE,
    }
    found = {"threshold": HOSTILE, "split": HOSTILE, "allowed": 0.5, "found": 1, "passed": False, "what": HOSTILE}
    tests = {HOSTILE: {"rows": 3, "rows_with_control_tokens": 1, "ids": [HOSTILE], "refused": True}}
    page = label_page.page(HOSTILE, labels, [found], tests)
    found = shown_as_it_is(page)
    assert "pad 2, end of text 2, beginning of text none" in page
    assert "tokens in a row: 3 to 5, median 5" in page
    assert "<td>50.0%</td><td>1</td>" in re.sub(r"\s", "", page)
    assert found.count["b"] == 2, "what is learned, and its legend"


def test_pictures_of_a_row_are_counted_once():
    assert label_page._shortened("<|im|>" + "<pad>" * 300 + "7") == "<|im|><pad> × 300 7"


def test_a_value_that_a_template_is_not_given_is_an_error():
    with pytest.raises(jinja2.UndefinedError, match="is undefined"):
        render("audit_page.html.jinja", title="t", passed=True)


@pytest.mark.parametrize(("script", "page"), [("audit_splits", "audit_page"), ("audit_labels", "label_page")])
def test_the_digest_of_a_page_has_its_templates_and_its_style(script: str, page: str):
    named = {Path(name).name for parts in code.describe(script).values() for name in parts}
    assert {f"{page}.html.jinja", "page.html.jinja", "page.css"} <= named
