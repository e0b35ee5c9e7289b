"""The audit as one page that a person reads: tables, no script, prints in black and white."""

from html import escape
from typing import Any

MEANING = {
    "id": "same id",
    "content": "same prompt, choices and pixels",
    "normalised": "same pixels, same prompt but for case, punctuation and spaces",
    "picture": "same pixels, any text",
    "group": "same group",
}
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem; margin: 0 0 .3rem } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem }
table { border-collapse: collapse; width: 100% }
th, td { text-align: right; padding: .35rem .6rem; border-bottom: 1px solid #ddd; vertical-align: top }
th:first-child, td:first-child, .text { text-align: left } thead th { border-bottom: 2px solid #222 }
.leak { font-weight: 700; background: #fbe3d6 } .verdict { padding: .6rem .9rem; border-left: 5px solid #2a7a4b }
.verdict.stopped { border-color: #b8400e } code { font-size: .9em } .note { color: #555; font-size: .9rem }
"""


def page(made: dict[str, Any], title: str, directories: dict[str, str]) -> str:
    """HTML of `audit.report`'s result; `directories` says where each split lies."""
    maximum = made["maximum_overlap"]
    kinds = list(MEANING)
    verdict = (
        f"No split shares more than {maximum} rows with another, by any of the five readings."
        if made["passed"]
        else f"Training is stopped: up to {made['largest_overlap']} rows are shared, {maximum} are allowed."
    )
    splits = [
        [f"<code>{escape(name)}</code>", f"<code>{escape(directories.get(name, ''))}</code>"]
        + [f"{facts[key]:,}" for key in ("rows", "pictures", "distinct_pictures", "groups")]
        + [f"{facts[key]:,}" for key in ("repeated_rows", "contradictory_contents")]
        for name, facts in made["splits"].items()
    ]
    pairs, found = [], []
    for pair in made["pairs"]:
        where = f"<code>{escape(pair['second'])}</code> in <code>{escape(pair['first'])}</code>"
        pairs.append([where, f"{pair['rows']:,}", *(_count(pair["overlap"][kind]["rows"], maximum) for kind in kinds)])
        for kind in kinds:
            for here, there in pair["overlap"][kind]["examples"]:
                found.append([where, kind, f"<code>{escape(here)}</code>", f"<code>{escape(there)}</code>"])
    meaning = "".join(f"<li><b>{kind}</b>: {text}</li>" for kind, text in MEANING.items())
    head = ["split", "directory", "rows", "pictures", "distinct", "groups", "repeated rows", "contradictory"]
    shown = _table(["", "by", "row", "is"], found, text=4) if found else "<p>None.</p>"
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title><style>{STYLE}</style></head><body>
<h1>{escape(title)}</h1>
<p class="verdict{"" if made["passed"] else " stopped"}">{escape(verdict)}</p>
<h2>Rows that two splits share</h2>
{_table(["", "rows", *kinds], pairs)}
<ul class="note">{meaning}</ul>
<h2>The splits</h2>
{_table(head, splits, text=2)}
<p class="note">Repeated: the content stands in an earlier row of the split. Contradictory: contents that stand with
more than one completion. Neither stops training.</p>
<h2>Examples of shared rows</h2>
{shown}
</body></html>
"""


def _count(rows: int, maximum: int) -> str:
    # The bold figure, not only the colour, marks a leak.
    return f'<span class="leak">{rows:,}</span>' if rows > maximum else f"{rows:,}"


def _table(head: list[str], rows: list[list[str]], text: int = 1) -> str:
    def line(cells: list[str], tag: str) -> str:
        marks = [' class="text"' if i < text else "" for i in range(len(cells))]
        return "<tr>" + "".join(f"<{tag}{m}>{c}</{tag}>" for m, c in zip(marks, cells, strict=True)) + "</tr>"

    body = "\n".join(line(cells, "td") for cells in rows)
    return f"<table><thead>{line(head, 'th')}</thead><tbody>\n{body}\n</tbody></table>"
