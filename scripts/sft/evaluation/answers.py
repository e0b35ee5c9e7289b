"""Reading answers out of generated text: is it the expected one, and which choice's letter does it name.

The rules are part of a result, so they are few, written down here, and the same for every model. Nothing is
guessed: a text that names no letter, or more than one, names none (some published scorers turn such a text
into the first choice, which hands every broken answer to A).
"""

import re
import unicodedata
from collections.abc import Sequence

from sft.data.read.multiple_choice import LETTERS

_OPENING = r"[(\[{*_`\"'“‘]*"
_CLOSING = r"[)\]}*_`\"'”’]*"
# "answer is H", "Answer: (H)", "final answer: **H**", "option H", "\boxed{H}"; the words in any case, the letter
# in upper case, and A and I not before a word, because "The answer is A dog" names no choice.
_ANNOUNCED = re.compile(
    rf"(?:(?i:\banswer(?:\s+is)?|\boption|\bchoice)\s*[:=]?\s*{_OPENING}|\\boxed\{{\s*)"
    r"([A-Z])(?![A-Za-z0-9])(?:(?<![AI])|(?!\s+[A-Za-z]))"
)
# A letter that punctuation marks as a label: "(H)", "H.", "H)", "H:", "**H**".
_MARKED = re.compile(r"(?<![A-Za-z0-9.])(?:[(\[*]+([A-Z])[)\]*]+|([A-Z])[.):](?![A-Za-z0-9]))")
_THOUGHTS = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL)
_ALONE = re.compile(rf"{_OPENING}([A-Za-z]){_CLOSING}[.):]?{_CLOSING}")
_LEADING = re.compile(rf"{_OPENING}([A-Z]){_CLOSING}(?:[.):]{_CLOSING}(?![A-Za-z0-9])|\s*\n)")


def normalised(text: str) -> str:
    """`text` as compared strictly: NFC, case folded, runs of white space one space, one trailing full stop off.

    It is applied to the answer and to the target alike. Stripping the full stop from one side only would make
    every target that ends in one impossible to match.
    """
    folded = " ".join(unicodedata.normalize("NFC", text).casefold().split())
    return folded.removesuffix(".").rstrip()


def is_strictly_right(raw_text: str, gold_text: str, *, multiple_choice: bool) -> bool:
    """Whether the generated text is the whole target.

    Multiple choice compares `normalised` texts ("H. 7"). Free completions are compared as they are but for white
    space at both ends, because case and punctuation may be what was to be learned.
    """
    if multiple_choice:
        return normalised(raw_text) == normalised(gold_text)
    return raw_text.strip() == gold_text.strip()


def named_letter(raw_text: str, choices: Sequence[str]) -> str:
    """The letter of the choice that `raw_text` names, or "" where it names none or more than one.

    Text inside <think> is not an answer. The first rule that applies decides:

    1. the text is one letter, in any case, with or without punctuation around it ("H", "h.", "(H)");
    2. the text announces its answer ("the answer is H", "Answer: H", "option H", "\\boxed{H}"): the last one counts;
    3. the text begins with a label ("H. 7", "H) 7", or H alone on its line) or is a letter and its own choice
       ("H 7"), and no other letter is used as a label after it: a repeated list of choices is no answer;
    4. exactly one letter is used as a label anywhere ("I think it is (H)").

    Only letters that belong to a choice count: of ten choices, K is no answer.
    """
    letters = LETTERS[: len(choices)]
    text = _THOUGHTS.sub(" ", raw_text).strip()

    alone = _ALONE.fullmatch(text)
    if alone:
        return _known(alone[1].upper(), letters)
    announced = _ANNOUNCED.findall(text)
    if announced:
        return _known(announced[-1], letters)
    labels = {first or second for first, second in _MARKED.findall(text)} & set(letters)
    leading = _LEADING.match(text)
    if leading and leading[1] in letters:
        return leading[1] if labels <= {leading[1]} else ""
    for letter, choice in zip(letters, choices, strict=False):
        if normalised(text) == normalised(f"{letter} {choice}"):
            return letter
    return labels.pop() if len(labels) == 1 else ""


def named_choice(raw_text: str, choices: Sequence[str]) -> str:
    """The letter of the choice whose text `raw_text` is or contains as whole words, or "" for none or several.

    Text inside <think> is not an answer. A choice that is part of another one that is there ("body", "body part")
    does not count.
    """
    text = normalised(_THOUGHTS.sub(" ", raw_text))
    found = [(letter, normalised(choice)) for letter, choice in zip(LETTERS, choices, strict=False)]
    for letter, choice in found:
        if text == choice:
            return letter
    there = [(letter, choice) for letter, choice in found if re.search(rf"(?<!\w){re.escape(choice)}(?!\w)", text)]
    whole = [letter for letter, choice in there if not any(choice != other and choice in other for _, other in there)]
    return whole[0] if len(whole) == 1 else ""


def _known(letter: str, letters: str) -> str:
    return letter if letter in letters else ""
