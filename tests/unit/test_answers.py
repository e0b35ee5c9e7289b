"""What counts as an answer, and what does not."""

import pytest

from sft.evaluation.answers import is_strictly_right, named_choice, named_letter, normalised

DIGITS = [str(digit) for digit in range(10)]


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("H", "H"),
        ("h", "H"),
        (" H.\n", "H"),
        ("(H)", "H"),
        ("**H**", "H"),
        ("**H.**", "H"),
        ("`H`", "H"),
        ("H. 7", "H"),
        ("H) 7", "H"),
        ("H: 7", "H"),
        ("(H) 7", "H"),
        ("H 7", "H"),
        ("H\n7 is what I see", "H"),
        ("The answer is H.", "H"),
        ("the answer is (H)", "H"),
        ("Final answer: **H**", "H"),
        ("Answer:H", "H"),
        ("I would choose option H because it has a bar.", "H"),
        (r"so \boxed{H}", "H"),
        ("The answer is not obvious. At first the answer is B. But the answer is H.", "H"),
        ("<think>maybe B. 1, or A</think>H. 7", "H"),
        ("I think it is (H)", "H"),
    ],
)
def test_a_named_letter_is_found(text, letter):
    assert named_letter(text, DIGITS) == letter


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        "7",
        "A dog is in the picture",
        "An apple",
        "I see a seven",
        "a bird",
        "the answer is a dog",
        "The answer is A dog",
        "A. 0 B. 1 C. 2 D. 3",
        "A 0 B 1 C 2 D 3",
        "(A) or (B)",
        "K",
        "K. 10",
        "The answer is K.",
        "e.g. seven",
        "HHHH",
        "H7",
        "<think>B. 1",
        "\ufffd\ufffd",
    ],
)
def test_no_letter_is_made_up(text):
    assert named_letter(text, DIGITS) == ""


def test_only_letters_of_choices_count():
    assert named_letter("C. no", ["yes", "no"]) == ""
    assert named_letter("B. no", ["yes", "no"]) == "B"
    assert named_letter("B. no", []) == ""


def test_strict_treats_both_sides_alike():
    assert is_strictly_right("h.  7 ", "H. 7", multiple_choice=True)
    # A full stop may be part of the target: it is dropped from both sides or from neither.
    assert is_strictly_right("B. yes.", "B. yes.", multiple_choice=True)
    assert is_strictly_right("B. yes", "B. yes.", multiple_choice=True)
    assert not is_strictly_right("H", "H. 7", multiple_choice=True)
    assert not is_strictly_right("H. 8", "H. 7", multiple_choice=True)


def test_strict_on_a_free_completion_keeps_case_and_punctuation():
    assert is_strictly_right(" food\n", "food", multiple_choice=False)
    assert not is_strictly_right("Food", "food", multiple_choice=False)
    assert not is_strictly_right("food.", "food", multiple_choice=False)


def test_normalised_composes_characters():
    assert normalised("Cafe\u0301") == normalised("Caf\u00e9")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("food", "B"),
        ("Food.", "B"),
        ("It is a food, I think", "B"),
        ("body part", "D"),
        ("the body part of a fish", "D"),
        ("body", "C"),
        ("act or food", ""),
        ("action", ""),
        ("", ""),
        ("<think>food</think> act", "A"),
    ],
)
def test_a_choice_is_named_by_its_text(text: str, expected: str):
    assert named_choice(text, ["act", "food", "body", "body part"]) == expected
