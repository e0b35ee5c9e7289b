"""The audit of the splits as one page that a person reads."""

from typing import Any

from sft.data.audit.audit_shown import Pair
from sft.data.audit.page import render
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


def page(made: dict[str, Any], pairs: list[Pair], title: str, directories: dict[str, str], left_out: dict) -> str:
    """HTML of `audit.report`'s result and `audit_shown.shown_pairs`.

    `directories` says where each split lies, `left_out` what its division reported:
    `{split directory: {reason: {source file or part: rows}}}`.
    """
    met = [kind for kind in KINDS if any(kind in pair["overlap"] for pair in made["pairs"])]
    overlaps = [(pair, kind, found) for pair in made["pairs"] for kind, found in pair["overlap"].items()]
    return render(
        "audit_page.html.jinja",
        **made,
        title=title,
        directories=directories,
        names={kind: NAMES[kind].format(**made) for kind in met},
        meanings={kind: MEANING[kind].format(**made, smallest=SMALLEST_LOOK) for kind in met},
        over=[one for one in overlaps if _is_over(one[2])],
        is_over=_is_over,
        reported=sum(found["limit"] is None and found["rows"] > 0 for _, _, found in overlaps),
        sources=[
            (pair, kind, source, count, list(found["found_in"].items()))
            for pair, kind, found in overlaps
            for source, count in list(found["by_source"].items())[:10]
        ],
        shown=pairs,
        degree=_degree,
        left_out=[
            (where, reason.replace("_", " "), name, count)
            for where, reasons in left_out.items()
            for reason, files in reasons.items()
            for name, count in files.items()
            if count
        ],
    )


def _is_over(found: dict[str, Any]) -> bool:
    return found["limit"] is not None and found["rows"] > found["limit"]


def _degree(kind: str, strength: float) -> str:
    """How much of a row is the same, where that is a matter of degree."""
    if kind == "ngram":
        return f": {strength:.0%} of its runs"
    if kind == "similar_picture":
        return f": {round(64 * (1 - strength))} of 64 bits differ"
    return f": {strength:.2f}" if kind == "meaning" else ""
