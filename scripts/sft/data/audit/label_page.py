"""The label audit as one page that a person reads: verdict, counts, histograms, and rows with their mask in colour."""

import re
from collections.abc import Mapping
from html import escape
from typing import Any

WORDS = {
    "rows": "rows prepared",
    "rows_kept": "rows trained on",
    "rows_dropped": "dropped as too long",
    "rows_truncated": "rows cut at max_length",
    "rows_answer_truncated": "answers cut at max_length",
    "rows_fully_masked": "left out: nothing to learn",
    "rows_without_end_of_turn": "without a learned end of turn",
    "rows_with_control_tokens": "with control tokens in their text",
    "rows_with_two_bos": "with two beginnings of text",
    "tokens": "tokens",
    "supervised_tokens": "learned tokens",
}
BARS = 24
_RUN = re.compile(r"(<[^<>]{2,30}>)\1{3,}")
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 62rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem; margin: 0 0 .3rem } h2 { font-size: 1.15rem; margin: 2.2rem 0 .5rem }
h3 { font-size: 1rem; margin: 1.2rem 0 .3rem }
table { border-collapse: collapse } th, td { text-align: right; padding: .3rem .8rem; border-bottom: 1px solid #ddd }
th:first-child, td:first-child, .text { text-align: left } thead th { border-bottom: 2px solid #222 }
.verdict { padding: .6rem .9rem; border-left: 5px solid #2a7a4b } .stopped { border-color: #b8400e }
.bad { font-weight: 700; background: #fbe3d6 } .note { color: #555; font-size: .9rem }
.row { font: 14px/1.55 ui-monospace, "DejaVu Sans Mono", monospace; white-space: pre-wrap; overflow-wrap: anywhere;
  background: #f6f6f4; color: #555; padding: .6rem .8rem; margin: .2rem 0 1rem; border-radius: 4px }
.row b, .learned { font-weight: 600; color: #0b3d1e; background: #bfe6cb; border-bottom: 2px solid #2a7a4b }
.charts { display: flex; gap: 3rem; flex-wrap: wrap } figure { margin: 0 } figcaption { font-size: .9rem; color: #555 }
summary { cursor: pointer }
"""


def page(title: str, labels: Mapping[str, Any], found: list[dict[str, Any]], tests: Mapping[str, Any]) -> str:
    """HTML of labels.json, of `label_audit.judged`, and of the control tokens found in test splits."""
    stopped = not all(row["passed"] for row in found) or any(test["refused"] for test in tests.values())
    verdict = "Training is stopped: see the marked lines." if stopped else "All thresholds are held."
    splits = labels["splits"]
    counts = [
        [words, *(f"{facts[key]:,}" for facts in splits.values())]
        for key, words in WORDS.items()
        if key in ("rows", "rows_kept", "tokens", "supervised_tokens") or any(facts[key] for facts in splits.values())
    ]
    held = [
        [
            f"<code>{threshold}</code>",
            _number(rows[0]["allowed"]),
            *(_number(row["found"]) for row in rows),
            "; ".join(f'<span class="bad">{escape(row["split"])}: {escape(row["what"])}</span>' for row in bad)
            or "held",
        ]
        for threshold, rows in _by_threshold(found).items()
        for bad in [[row for row in rows if not row["passed"]]]
    ]
    judged = list(dict.fromkeys(row["split"] for row in found))
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="verdict{" stopped" if stopped else ""}">{verdict}</p>',
        "<h2>Rows and tokens</h2>",
        _table(["", *map(escape, splits)], counts),
        _facts(labels, tests),
        "<h2>Thresholds</h2>",
        _table(["key of <code>labels:</code>", "allowed", *map(escape, judged), ""], held),
        "<h2>Tokens a row</h2>",
        *(_charts(split, facts) for split, facts in splits.items() if facts["rows"]),
        "<h2>Rows as the model reads them</h2>",
        '<p class="note">What is learned is <b class="learned">green and underlined</b>. The rows with the '
        "smallest hashes of their ids are shown, so they are the same however the rows are ordered.</p>",
        *(_rows(split, facts) for split, facts in splits.items()),
    ]
    body = "\n".join(parts)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title><style>{STYLE}</style></head><body>
{body}
</body></html>
"""


def _by_threshold(found: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    made: dict[str, list[dict[str, Any]]] = {}
    for row in found:
        made.setdefault(row["threshold"], []).append(row)
    return made


def _facts(labels: Mapping[str, Any], tests: Mapping[str, Any]) -> str:
    ids = labels["special_token_ids"]
    ends = sorted({end for facts in labels["splits"].values() for end in facts["end_of_turn_ids"]}, key=int)
    lines = [
        f"Token ids: pad {_id(ids['pad'])}, end of text {_id(ids['eos'])}, beginning of text {_id(ids['bos'])}; "
        f"turns end with {', '.join(ends) or 'nothing'}."
    ]
    if ids["pad"] is not None and (ids["pad"] == ids["eos"] or str(ids["pad"]) in ends):
        lines.append(
            "The pad token also ends texts or turns. Labels go by the length of a row, so that end stays learned."
        )
    if labels["added_by_the_template"]:
        lines.append(
            "Where a row has no system message, the template writes one by itself: "
            f"<q>{escape(labels['added_by_the_template'])}</q>. It is there in training and in evaluation."
        )
    for name, test in tests.items():
        if test["rows_with_control_tokens"]:
            mark = ' class="bad"' if test["refused"] else ""
            lines.append(
                f"<span{mark}>Test split {escape(name)}: {test['rows_with_control_tokens']} of {test['rows']} rows "
                f"hold control tokens in their text ({escape(', '.join(test['ids']))}).</span>"
            )
    return "".join(f"<p>{line}</p>" for line in lines)


def _charts(split: str, facts: Mapping[str, Any]) -> str:
    return (
        f'<h3>{escape(split)}</h3><div class="charts">'
        + _histogram(facts["tokens_per_row"], "tokens in a row")
        + _histogram(facts["supervised_tokens_per_row"], "learned tokens in a row")
        + "</div>"
    )


def _histogram(counts: Mapping[str, int], caption: str) -> str:
    """A small bar chart (SVG) of {tokens: rows}; the text beside it says the range."""
    values = sorted((int(value), rows) for value, rows in counts.items())
    if not values:
        return ""
    low, high = values[0][0], values[-1][0]
    step = max(1, -(-(high - low + 1) // BARS))
    bars = [0] * ((high - low) // step + 1)
    for value, rows in values:
        bars[(value - low) // step] += rows
    highest, width = max(bars), 12
    heights = [76 * rows / highest for rows in bars]
    rectangles = "".join(
        f'<rect x="{i * width}" y="{80 - height:.1f}" width="{width - 2}" height="{height:.1f}">'
        f"<title>{low + i * step} to {low + (i + 1) * step - 1}: {rows} rows</title></rect>"
        for i, (rows, height) in enumerate(zip(bars, heights, strict=True))
    )
    total = sum(rows for _, rows in values)
    middle, seen = low, 0
    for value, rows in values:
        seen += rows
        if 2 * seen >= total:
            middle = value
            break
    size = len(bars) * width
    return (
        f'<figure><svg width="{size}" height="82" viewBox="0 0 {size} 82" fill="#4a6fa5" role="img" '
        f'aria-label="{caption}">{rectangles}<line x1="0" x2="{size}" y1="81" y2="81" stroke="#222"/></svg>'
        f"<figcaption>{caption}: {f'{low} to {high}, median {middle}' if high > low else low}</figcaption></figure>"
    )


def _rows(split: str, facts: Mapping[str, Any]) -> str:
    made = []
    for row in facts["shown"]:
        text = "".join(
            f"<b>{escape(_shown(part['text']))}</b>" if part["supervised"] else escape(_shown(part["text"]))
            for part in row["segments"]
        )
        made.append(
            f'<p class="note"><code>{escape(row["id"])}</code>, {row["tokens"]} tokens</p><div class="row">{text}</div>'
        )
    if not made:
        return ""
    first = " open" if split == "train" else ""
    return f"<details{first}><summary>{escape(split)}: {len(made)} rows</summary>{''.join(made)}</details>"


def _id(number: int | None) -> str:
    return "none" if number is None else str(number)


def _shown(text: str) -> str:
    """Text of a row; of a run of picture tokens one, and how many there are."""
    return _RUN.sub(lambda match: f"{match[1]} × {len(match[0]) // len(match[1])} ", text)


def _number(value: float | None) -> str:
    if value is None:
        return "none"
    return f"{value:.1%}" if isinstance(value, float) else f"{value:,}"


def _table(head: list[str], rows: list[list[str]], text: int = 1) -> str:
    def line(cells: list[str], tag: str) -> str:
        marks = [
            ' class="text"' if i < text or (not head[-1] and i == len(head) - 1) else "" for i in range(len(cells))
        ]
        return "<tr>" + "".join(f"<{tag}{m}>{c}</{tag}>" for m, c in zip(marks, cells, strict=True)) + "</tr>"

    return f"<table><thead>{line(head, 'th')}</thead><tbody>{''.join(line(row, 'td') for row in rows)}</tbody></table>"
