"""Reading choices and answers is certain or an error; nothing unknown becomes choice 0."""

import pytest

from sft.data.read import multiple_choice as mc

DIGITS = [str(digit) for digit in range(10)]


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("['yes', 'no']", ["yes", "no"]),
        ('["yes", "no"]', ["yes", "no"]),
        ("('yes', 'no')", ["yes", "no"]),
        ("[1, 2.5]", ["1", "2.5"]),
        (["yes", " no "], ["yes", "no"]),
        ('["it\'s [not]", "a, b"]', ["it's [not]", "a, b"]),
        # JSON by its own rules: an escaped slash, a character beyond the plane, a number as it is written.
        (r'["and\/or", "\ud83d\ude00"]', ["and/or", "\U0001f600"]),
        ("[1.10, 1.1]", ["1.10", "1.1"]),
    ],
)
def test_choices_that_are_certain(cell, expected):
    assert mc.parse_choices(cell) == expected


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ("yes or no", "not the text of a list"),
        ("['yes', 'no'", "not the text of a list"),
        ("['yes' 'no']", "at least 2"),  # the text of a numpy array: Python joins the two
        ("{'a': 1}", "not a list"),
        ("['yes', None]", "NoneType"),
        ("__import__('os').getcwd()", "not the text of a list"),
        (["only"], "at least 2"),
        ([], "at least 2"),
        (["yes", " "], "choice B is empty"),
        ([str(i) for i in range(27)], "letters go to 26"),
        (7, "not a list"),
        ("[true, false]", "true and false are no texts"),
        ('["yes", null]', "NoneType"),
    ],
)
def test_choices_that_are_refused(cell, reason):
    with pytest.raises(ValueError, match=reason):
        mc.parse_choices(cell)


@pytest.mark.parametrize(
    ("answer", "choices", "letter"),
    [
        ("B", ["cat", "dog"], "B"),
        ("b", ["cat", "dog"], "B"),
        (1, ["cat", "dog"], "B"),
        (1.0, ["cat", "dog"], "B"),
        ("1", ["cat", "dog"], "B"),
        ("dog", ["cat", "dog"], "B"),
        (" dog ", ["cat", "dog"], "B"),
        (7, DIGITS, "H"),
        ("7", DIGITS, "H"),  # index and text agree
        ("A", ["A", "B"], "A"),  # letter and text agree
    ],
)
def test_answers_that_are_certain(answer, choices, letter):
    assert mc.parse_answer(answer, choices) == letter


@pytest.mark.parametrize(
    ("answer", "choices", "reason"),
    [
        ("C", ["cat", "dog"], "no letter A to B"),
        ("", ["cat", "dog"], "no letter"),
        (2, ["cat", "dog"], "not an index 0 to 1"),
        (-1, ["cat", "dog"], "not an index"),
        (0.5, ["cat", "dog"], "not an index"),
        (True, ["cat", "dog"], "bool"),
        (None, ["cat", "dog"], "NoneType"),
        ("2", ["2", "4", "8"], "choice A by its text or choice C by its index"),
        ("A", ["B", "A"], "choice A by its letter or choice B by its text"),
        ("dog", ["dog", "dog"], "choice A by its text or choice B by its text"),
    ],
)
def test_answers_that_are_refused(answer, choices, reason):
    with pytest.raises(ValueError, match=reason):
        mc.parse_answer(answer, choices)


def test_rendering():
    assert mc.render_question("Which?", ["cat", "dog"], "inline") == "Which?\nA cat B dog"
    assert mc.render_question("Which?", ["cat", "dog"], "lines") == "Which?\nChoices:\nA. cat\nB. dog\n"
    assert mc.render_target("B", ["cat", "dog"], "letter") == "B"
    assert mc.render_target("B", ["cat", "dog"], "letter_and_text") == "B. dog"
