"""The normal form of a text: what two texts share that say the same in other letters.

Folded, so that texts that differ in it alone are the same:

| what | for example |
| --- | --- |
| case, but in formulas | `WHAT IS` and `What is`; `CO2` and `Co2` stay two |
| white space, but between numbers | `a  b` and `a b`; `1 2` and `12` stay two |
| compatibility forms of Unicode (NFKC), but raised and lowered ones | `ﬁve` and `five`; `15²` and `152` stay two |
| marks of Markdown | `**bold**`, `- item`, `# heading`, back-quotes |
| punctuation of sentences: . , ; : ? ! quotes, dashes, hyphens, brackets round words | `well-known`, `(see below)` |
| what is not seen: zero-width characters, soft hyphens | |

Kept is what carries a meaning: operators (`* / % + - ^ = < >`), signs before numbers, points, commas and colons within
numbers, brackets around numbers, operands and arguments, and `# @ & \\ _ $`. A folded pair that differs in meaning
would stop a run, or lose a row where `deduplicate` is `normalised`.
"""

import re
import unicodedata

# Characters of category S (symbols), which are kept, stand for punctuation that is kept.
_STANDS_FOR = dict(zip(".,:*/%\\&#@()[]{}! -", "∙∘∶∗∕∝∖∧⋕⊚⊂⊃⊏⊐⊰⊱¬∣−", strict=True))
_ALWAYS = str.maketrans({mark: _STANDS_FOR[mark] for mark in "*/%\\&#@"})
_RAISED = "↑"

_DASHES = str.maketrans(dict.fromkeys("‐‑‒–—―−﹣－", "-"))
_UNSEEN = re.compile("[\u00ad\u200b-\u200f\u2060\ufeff]")
_EMPHASIS = re.compile(
    r"(?<![\w*])(\*{1,3})(?=\S)([^*\n]+)(?<=\S)\1(?![\w*])"
    r"|(?<![\w_])(_{1,3})(?=\S)([^_\n]+)(?<=\S)\3(?![\w_])"
)
_BEGINS_LINE = re.compile(r"^[ \t]*(?:[-*•][ \t]+|#{1,6}[ \t]+)", re.MULTILINE)
# What follows begins with the character that is looked for: such patterns are searched for quickly.
_LETTER = r"[^\W\d_]"  # as an operand, with a border of a word
_MINUS = re.compile(
    rf"-(?:(?=\s*[\d(.])|(?=[*&!]|-{_LETTER}\b)|(?<=\d-)(?=\w)|(?<=\d\s-)(?=\s)|(?<!\w-)(?={_LETTER}\b)"
    rf"|(?<=\b{_LETTER}-)(?={_LETTER}\b)|(?<=\b{_LETTER}\s-)(?=\s{_LETTER}\b)|(?<=\d-)(?=\s?{_LETTER}\b))"
)
_WITHIN_NUMBERS = re.compile(r"[.,:](?:(?<=\d.)(?=\d)|(?<=\.)(?<![\w.]\.)(?=\d))")
_NOT = re.compile(r"!(?=[=\w(])")
_BETWEEN_NUMBERS = re.compile(r"[\s,;](?<=\d.)(?:(?<=[,;])\s*(?=[-.]\d)|\s*(?<=\s)(?=\d))", re.DOTALL)
_BRACKETS = [
    ("(", re.compile(r"\(([^()]*)\)")),
    ("[", re.compile(r"\[([^\[\]]*)\]")),
    ("{", re.compile(r"\{([^{}]*)\}")),
]
_WORD = re.compile(r"[^\W\d_]{2}")
# The chemical elements that formulas are of, two letters first.
_ELEMENTS = (
    "He|Li|Be|Ne|Na|Mg|Al|Si|Cl|Ar|Ca|Sc|Ti|Cr|Mn|Fe|Co|Ni|Cu|Zn|Ga|Ge|As|Se|Br|Kr|Rb|Sr|Zr|Nb|Mo|Tc|Ru|Rh|Pd|Ag|Cd|In|"
    "Sn|Sb|Te|Xe|Cs|Ba|La|Ce|Nd|Sm|Eu|Gd|Tb|Dy|Er|Yb|Lu|Hf|Ta|Re|Os|Ir|Pt|Au|Hg|Tl|Pb|Bi|Po|At|Rn|Fr|Ra|Ac|Th|Pa|Pu|"
    "H|B|C|N|O|F|P|S|K|V|Y|I|W|U"
)
_FORMULA = re.compile(rf"\b(?:(?:{_ELEMENTS})\d{{0,2}}){{2,}}\b|\b(?:{_ELEMENTS})\d{{1,2}}\b")
_MIXED = re.compile(r"[A-Z]\d|[a-z][A-Z]")


class _Raised(dict):
    """str.translate's table that marks raised and lowered characters, which NFKC would make plain ones."""

    def __missing__(self, code: int) -> str | int:
        kind = unicodedata.decomposition(chr(code)).partition(">")[0] if code > 0x7F else ""
        self[code] = {"<super": f"^{chr(code)}", "<sub": f"↓{chr(code)}"}.get(kind, code)
        return self[code]


class _Dropped(dict):
    """str.translate's table that drops punctuation, white space and control characters; filled as they are met."""

    def __missing__(self, code: int) -> int | None:
        kept = None if chr(code) != "_" and unicodedata.category(chr(code))[0] in "PZC" else code
        self[code] = kept
        return kept


_MARKED, _DROPPED = _Raised(), _Dropped()


def normalised(text: str) -> str:
    """The normal form of a text; see the table above."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text.translate(_MARKED)).translate(_DASHES)
        text = _UNSEEN.sub("", text)
    text = _BEGINS_LINE.sub("", text.replace("`", ""))
    if "*" in text or "_" in text:
        text = _EMPHASIS.sub(_without_emphasis, text)
    text = _BETWEEN_NUMBERS.sub(_STANDS_FOR[" "], text)
    text = _MINUS.sub(_STANDS_FOR["-"], text)
    text = _WITHIN_NUMBERS.sub(lambda found: _STANDS_FOR[found[0]], text)
    text = _NOT.sub(_STANDS_FOR["!"], text)
    for mark, bracket in _BRACKETS:
        if mark in text:
            text = bracket.sub(_kept_bracket, bracket.sub(_kept_bracket, text))  # twice: one within another
    text = text.translate(_ALWAYS)
    if _MIXED.search(text):
        text = _FORMULA.sub(_kept_case, text)
    return text.casefold().translate(_DROPPED)


def _without_emphasis(found: re.Match[str]) -> str:
    """Words without the marks around them; around operands these are operators."""
    inside = found[2] or found[4]
    return inside if _WORD.search(inside) else found[0]


def _kept_bracket(found: re.Match[str]) -> str:
    """Brackets of a call, or around numbers and operands; those around words are punctuation."""
    inside, before = found[1], found.string[found.start() - 1 : found.start()]
    if not (before.isalnum() or before == "_") and (_WORD.search(inside) or not inside.strip()):
        return found[0]
    return f"{_STANDS_FOR[found[0][0]]}{inside}{_STANDS_FOR[found[0][-1]]}"


def _kept_case(found: re.Match[str]) -> str:
    """A formula with its capitals marked; a word in capitals is a word, and one letter with a number a label."""
    text = found[0]
    if sum(c.isalpha() for c in text) == 1 or not _MIXED.search(text):
        return text
    return re.sub("[A-Z]", lambda capital: _RAISED + capital[0], text)
