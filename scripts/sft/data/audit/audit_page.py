"""The audit as one page that a person reads: no script, nothing from elsewhere, prints in black and white."""

from html import escape
from typing import Any

from sft.data.audit.audit_shown import Pair, Side
from sft.data.read.pictures import SMALLEST_LOOK
from sft.terms.audit_rules import KINDS

NAMES = {
    "content": "exact",
    "normalised": "normalised",
    "ngram": "{ngram_size} words",
    "picture": "picture",
    "id": "id",
    "group": "group",
    "similar_picture": "looks alike",
    "meaning": "meaning",
}
MEANING = {
    "content": "same question, choices and pixels, byte for byte",
    "normalised": "same pixels, same question but for case, punctuation and spaces",
    "ngram": "a run of {ngram_size} words in common, answers included; runs that stand in more than {ngram_common} "
    "rows of the evaluated split are the form of its questions and do not count",
    "picture": "same pixels in any picture, whatever the text",
    "id": "same id",
    "group": "same group",
    "similar_picture": "a picture that differs in at most {picture_distance} of 64 bits of how it looks; "
    "drawings look alike easily, and pictures of less than {smallest} pixels a side are not compared",
    "meaning": "nearly the same sentence embedding",
}
STYLE = """
:root { color-scheme: light }
body { font: 16px/1.5 system-ui, sans-serif; color: #222; background: #fff; max-width: 68rem; margin: 2rem auto;
  padding: 0 1rem }
h1 { font-size: 1.5rem; margin: 0 0 .3rem } h2 { font-size: 1.15rem; margin: 2.2rem 0 .5rem }
h3 { font-size: 1rem; margin: 0; font-weight: 600 }
.scroll { overflow-x: auto }
table { border-collapse: collapse; width: 100% }
th, td { text-align: right; padding: .35rem .6rem; border-bottom: 1px solid #ddd; vertical-align: top }
th { font-weight: 600 } tbody th { font-weight: 400; white-space: nowrap }
th.text, td.text { text-align: left } thead th { border-bottom: 2px solid #222; vertical-align: bottom }
.leak { font-weight: 700; background: #fbe3d6; padding: 0 .3rem } .only { color: #555 } .none { color: #767676 }
.verdict { padding: .6rem .9rem; border-left: 5px solid #2a7a4b; background: #f3f8f5; font-size: 1.05rem }
.verdict.stopped { border-color: #b8400e; background: #fdf4ef }
code { font-size: .9em } p code, h3 code { overflow-wrap: anywhere } .note { color: #555; font-size: .9rem }
dl.note { display: grid; grid-template-columns: max-content 1fr; gap: .1rem .8rem } dl.note dd { margin: 0 }
dl.note dt { font-weight: 600; color: #222 }
article { border: 1px solid #ccc; border-radius: 6px; margin: 0 0 1rem; break-inside: avoid }
article header { padding: .45rem .8rem; background: #f5f5f5; border-bottom: 1px solid #ddd; border-radius: 6px 6px 0 0 }
article.stops header { background: #fbe3d6 }
.badge { display: inline-block; border: 1px solid #888; border-radius: 1rem; padding: 0 .6rem; font-size: .85rem;
  background: #fff; margin-left: .3rem }
.sides { display: grid; grid-template-columns: 1fr 1fr }
.sides > section { padding: .6rem .8rem; min-width: 0 } .sides > section + section { border-left: 1px solid #ddd }
.sides p { margin: 0 } .said { white-space: pre-wrap; overflow-wrap: anywhere; margin-top: .4rem !important }
mark { background: #ffe08a; color: inherit; text-decoration: underline; text-underline-offset: 3px }
.sides img { max-width: 9rem; min-width: 6rem; image-rendering: pixelated; border: 1px solid #ccc;
  margin: .4rem .4rem 0 0 }
@media (max-width: 45rem) { .sides { grid-template-columns: 1fr } .sides > section + section { border-left: 0;
  border-top: 1px solid #ddd } }
@media print { body { margin: 0; max-width: none } }
"""


def page(made: dict[str, Any], pairs: list[Pair], title: str, directories: dict[str, str], left_out: dict) -> str:
    """HTML of `audit.report`'s result and `audit_shown.shown_pairs`.

    `directories` says where each split lies, `left_out` what its division reported (see `_left_out`).
    """
    met = [kind for kind in KINDS if any(kind in pair["overlap"] for pair in made["pairs"])]
    names = {kind: NAMES[kind].format(**made) for kind in met}
    meaning = "".join(
        f"<dt>{names[kind]}</dt><dd>{MEANING[kind].format(**made, smallest=SMALLEST_LOOK)}</dd>" for kind in met
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{escape(title)}</title><style>{STYLE}</style></head><body>
<h1>{escape(title)}</h1>
<p class="verdict{"" if made["passed"] else " stopped"}">{_verdict(made, names)}</p>
<h2 id="shared">Rows that two splits share</h2>
{_shared(made, names)}
<p class="note">A figure in <span class="leak">bold on colour</span> is above its limit and stops training. The limit
stands below each figure; <span class="only">“reported”</span> kinds never stop it. A dash: not compared.</p>
<dl class="note">{meaning}</dl>
{_sources(made, names)}
<h2 id="pairs">Shared rows, side by side</h2>
{_pairs(pairs, names)}
<h2 id="splits">The splits</h2>
{_splits(made, directories)}
{_left_out(left_out)}
</body></html>
"""


def _verdict(made: dict[str, Any], names: dict[str, str]) -> str:
    over = [
        f"{found['rows']:,} of {pair['rows']:,} rows of <b>{escape(pair['second'])}</b> are in "
        f"<b>{escape(pair['first'])}</b> ({names[kind]})"
        for pair in made["pairs"]
        for kind, found in pair["overlap"].items()
        if found["limit"] is not None and found["rows"] > found["limit"]
    ]
    if over:
        more = f" And {len(over) - 3} more, below." if len(over) > 3 else ""
        return f"Training is stopped: {'; '.join(over[:3])}.{more}"
    reported = sum(
        found["limit"] is None and found["rows"] > 0 for pair in made["pairs"] for found in pair["overlap"].values()
    )
    further = f" {reported} figures that are only reported are not zero: look at them." if reported else ""
    return f"No split shares more rows with another than its limits allow.{further}"


def _shared(made: dict[str, Any], names: dict[str, str]) -> str:
    rows = []
    for pair in made["pairs"]:
        where = f"<code>{escape(pair['second'])}</code> in <code>{escape(pair['first'])}</code>"
        rows.append([where, f"{pair['rows']:,}", *(_count(pair["overlap"].get(kind)) for kind in names)])
    notes = []
    for pair in made["pairs"]:
        if pair["first"] == "train" and pair["rows_without_ngrams"]:
            notes.append(
                f"{pair['rows_without_ngrams']:,} of {pair['rows']:,} rows of <code>{escape(pair['second'])}</code> "
                f"have fewer than {made['ngram_size']} words: no run of words can be met."
            )
        if pair["first"] == "train" and pair["rows_of_common_ngrams_only"]:
            notes.append(
                f"{pair['rows_of_common_ngrams_only']:,} of {pair['rows']:,} rows of "
                f"<code>{escape(pair['second'])}</code> have only runs of words that stand in more than "
                f"{made['ngram_common']} of its rows."
            )
    told = f'<ul class="note">{"".join(f"<li>{note}</li>" for note in notes)}</ul>' if notes else ""
    return _table(["rows of … in …", "rows", *names.values()], rows) + told


def _count(found: dict[str, Any] | None) -> str:
    if found is None:
        return '<span class="none">–</span>'
    limit = "reported" if found["limit"] is None else f"limit {found['limit']:,}"
    over = found["limit"] is not None and found["rows"] > found["limit"]
    figure = f'<span class="leak">{found["rows"]:,}</span>' if over else f"{found['rows']:,}"
    return f'{figure}<br><span class="only note">{limit}</span>'


def _sources(made: dict[str, Any], names: dict[str, str]) -> str:
    rows = []
    for pair in made["pairs"]:
        for kind, found in pair["overlap"].items():
            for source, count in list(found["by_source"].items())[:10]:
                met = ", ".join(f"{escape(name)} ({n:,})" for name, n in list(found["found_in"].items())[:3])
                more = f", and {len(found['found_in']) - 3} more" if len(found["found_in"]) > 3 else ""
                where = f"<code>{escape(pair['second'])}</code> in <code>{escape(pair['first'])}</code>"
                rows.append([where, names[kind], f"<code>{escape(source)}</code>", met + more, f"{count:,}"])
    if not rows:
        return ""
    head = ["", "by", "file or part", "met in", "rows"]
    return f'<h2 id="sources">Where they come from</h2>\n{_table(head, rows, text=4)}'


def _pairs(pairs: list[Pair], names: dict[str, str]) -> str:
    if not pairs:
        return "<p>None.</p>"
    note = '<p class="note">The worst first, a few of each kind. Marked: runs of words that both have.</p>'
    return note + "\n".join(_pair(pair, names) for pair in pairs)


def _pair(pair: Pair, names: dict[str, str]) -> str:
    badges = "".join(
        f'<span class="badge">{names[kind]}{_strength(kind, strength)}</span>' for kind, strength in pair.kinds.items()
    )
    stops = " stops training" if pair.stops else " reported"
    return f"""<article{' class="stops"' if pair.stops else ""}>
<header><h3><code>{escape(pair.second.identifier)}</code> = <code>{escape(pair.first.identifier)}</code>{badges}
<span class="note">{stops}</span></h3></header>
<div class="sides">{_side(pair.second)}{_side(pair.first)}</div></article>"""


def _strength(kind: str, strength: float) -> str:
    """How much of it is the same, where that is a matter of degree."""
    if kind == "ngram":
        return f": {strength:.0%} of its runs"
    if kind == "similar_picture":
        return f": {round(64 * (1 - strength))} of 64 bits differ"
    return f": {strength:.2f}" if kind == "meaning" else ""


def _side(side: Side) -> str:
    text = "".join(f"<mark>{escape(piece)}</mark>" if marked else escape(piece) for piece, marked in side.marked)
    images = "".join(
        f'<img src="{address}" alt="picture {i} of row {escape(side.identifier)}">'
        for i, address in enumerate(side.thumbnails, 1)
    )
    more = f'<p class="note">and {side.more_pictures} more pictures</p>' if side.more_pictures else ""
    source = f", <code>{escape(side.source)}</code>" if side.source else ""
    return f"""<section><p class="note"><b>{escape(side.where)}</b>{source}</p>{images}{more}
<p class="said">{text}</p></section>"""


def _splits(made: dict[str, Any], directories: dict[str, str]) -> str:
    keys = ("rows", "pictures", "distinct_pictures", "groups", "repeated_rows", "contradictory_contents")
    rows = [
        [f"<code>{escape(name)}</code>", f"<code>{escape(directories.get(name, ''))}</code>"]
        + [f"{facts[key]:,}" for key in keys]
        for name, facts in made["splits"].items()
    ]
    rows += [
        [
            f"<code>{escape(name)}</code> (benchmark)",
            f"<code>{escape(directories.get(name, ''))}</code>",
            f"{facts['rows']:,}",
            *[""] * (len(keys) - 1),
        ]
        for name, facts in made["benchmarks"].items()
    ]
    head = ["split", "directory", "rows", "pictures", "distinct", "groups", "repeated rows", "contradictory"]
    note = """<p class="note">Repeated: the content stands in an earlier row of the split. Contradictory: contents that
stand with more than one completion. Neither stops training; <code>split.deduplicate</code>
removes repeated rows.</p>"""
    parts = [
        [f"<code>{escape(name)}</code>", f"<code>{escape(source)}</code>", f"{count:,}"]
        for name, facts in made["splits"].items()
        for source, count in list(facts["rows_by_source"].items())[:20]
    ]
    return _table(head, rows, text=2) + note + _table(["split", "file or part", "rows"], parts, text=2)


def _left_out(left_out: dict[str, dict[str, dict[str, int]]]) -> str:
    """`{split directory: {reason: {source file or part: rows}}}` as a table; nothing where nothing was left out."""
    rows = [
        [
            f"<code>{escape(where)}</code>",
            escape(reason.replace("_", " ")),
            f"<code>{escape(name)}</code>",
            f"{count:,}",
        ]
        for where, reasons in left_out.items()
        for reason, files in reasons.items()
        for name, count in files.items()
        if count
    ]
    if not rows:
        return ""
    head = ["split directory", "left out as", "file or part", "rows"]
    return f'<h2 id="left-out">Rows that were left out when the data was divided</h2>\n{_table(head, rows, text=3)}'


def _table(head: list[str], rows: list[list[str]], text: int = 1) -> str:
    def cell(tag: str, i: int, content: str, scope: str = "") -> str:
        aligned = ' class="text"' if i < text else ""
        return f"<{tag}{scope}{aligned}>{content}</{tag}>"

    first = "".join(cell("th", i, name, ' scope="col"') for i, name in enumerate(head))
    body = "\n".join(
        "<tr>"
        + "".join(cell("td", i, c) if i else cell("th", i, c, ' scope="row"') for i, c in enumerate(row))
        + "</tr>"
        for row in rows
    )
    return f'<div class="scroll"><table><thead><tr>{first}</tr></thead><tbody>\n{body}\n</tbody></table></div>'
