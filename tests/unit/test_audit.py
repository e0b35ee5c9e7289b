"""Leaks of every kind are planted and found, with their ids; a clean pair of splits is clean.

Tests: sft.data.audit.audit_page, sft.data.audit.audit_shown, sft.data.audit.leak_index, sft.data.audit.ngrams,
sft.data.audit.overlaps, sft.data.audit.split_keys, sft.data.read.benchmark_rows, sft.terms.audit_rules
"""

import hashlib
import io
import json
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sft.data.audit import audit_page, audit_shown, ngrams, overlaps
from sft.data.audit.leak_index import near_meanings, similar_pictures
from sft.data.read import examples, pictures
from sft.data.read.benchmark_rows import Benchmark
from sft.runtime.stage import StageError
from sft.terms.audit_rules import KINDS, Rules

DEFAULT = Rules()


def image(text: str, size: int = 64) -> bytes:
    """A picture with gradients and blobs of its own: 8 x 8 random greys, enlarged."""
    greys = (hashlib.sha256(text.encode()).digest() * 2)[:64]
    return pictures.png(
        Image.frombytes("L", (8, 8), greys).resize((size, size), Image.Resampling.BICUBIC).convert("RGB")
    )


def example(identifier: str, **changes) -> dict:
    row = dict.fromkeys(examples.SCHEMA.names) | {
        "id": identifier,
        "source_file": "train.parquet",
        "prompt": "Which digit is shown?\nA 0 B 1",
        "completion": "A",
        "choices": ["0", "1"],
        "answer": "A",
        "images": [image(identifier)],
        "group": f"group of {identifier}",
    }
    return row | changes


def prose(identifier: str, words: int = 40) -> str:
    """Words that no other row has in this order."""
    draw = random.Random(identifier)
    return " ".join(
        f"{draw.choice('bcdfgklmnprstvz')}{draw.choice('aeiou')}{draw.randrange(10**4)}" for _ in range(words)
    )


def text_row(identifier: str, **changes) -> dict:
    return example(identifier, prompt=f"{prose(identifier)}?", completion="It is so.", choices=[], images=[]) | changes


def compared(
    tmp_path: Path,
    train: list[dict],
    test: list[dict],
    rules: Rules = DEFAULT,
    validation=(),
    benchmarks=(),
    part=False,
) -> tuple[overlaps.Audit, dict]:
    splits = {"train": train, "validation": [*validation] or [example("of validation")], "test-0": test}
    for name, rows in splits.items():
        schema = examples.SCHEMA.append(examples.PART) if part and name == "train" else examples.SCHEMA
        examples.write(tmp_path / f"{name}.parquet", rows, schema)
    with ThreadPoolExecutor(2) as pool:
        paths = {name: tmp_path / f"{name}.parquet" for name in splits}
        made = overlaps.audit(paths, {one.name: one for one in benchmarks}, rules, pool)
    identifiers = {
        name: {number: row["id"] for number, row in audit_shown.rows_of(made.of(name), rows).items()}
        for name, rows in overlaps.named_rows(made).items()
    }
    return made, overlaps.report(made, rules, identifiers)


def overlap(tmp_path: Path, train: list[dict], test: list[dict], **more) -> dict[str, int]:
    """Rows of the test split that are in train, by the kinds that found any."""
    found = next(p for p in compared(tmp_path, train, test, **more)[1]["pairs"] if p["second"] == "test-0")["overlap"]
    return {kind: made["rows"] for kind, made in found.items() if made["rows"]}


TRAIN = [example(f"train-{i}") for i in range(20)]
TEST = [example(f"test-{i}") for i in range(10)]
TEXTS, TEST_TEXTS = ([text_row(f"{split}-{i}") for i in range(30)] for split in ("train", "test"))


def test_the_same_question_about_other_pictures_is_no_leak(tmp_path):
    assert overlap(tmp_path, TRAIN, TEST) == {}


def test_a_clean_pair_of_texts_is_clean(tmp_path):
    assert overlap(tmp_path, TEXTS, TEST_TEXTS) == {}


def smaller(encoded: bytes) -> bytes:
    """The same picture as another JPEG of half the size: other pixels everywhere."""
    buffer = io.BytesIO()
    picture = pictures.decode(encoded)
    picture.resize((picture.width // 2, picture.height // 2)).save(buffer, format="JPEG", quality=60)
    return buffer.getvalue()


# What is planted in the test split -> by which kinds the audit finds it.
PLANTED = {
    "the id": (example("leak", id="train-3"), {"id"}),
    "the whole row": (
        example("leak", images=[image("train-3")]),
        {"content", "normalised", "picture", "similar_picture"},
    ),
    "the question, shouted": (
        example("leak", images=[image("train-3")], prompt=" which DIGIT is shown ?\nA 0 B 1"),
        {"normalised", "picture", "similar_picture"},
    ),
    "the picture": (example("leak", images=[image("train-3")], prompt="Is it odd?"), {"picture", "similar_picture"}),
    "a second picture": (example("leak", images=[image("other"), image("train-3")]), {"picture", "similar_picture"}),
    "the picture, smaller": (example("leak", images=[smaller(image("train-3"))]), {"similar_picture"}),
    "the group": (example("leak", group="group of train-3"), {"group"}),
    "the text": (text_row("leak", prompt=TEXTS[3]["prompt"]), {"content", "normalised", "ngram"}),
    "the text, other signs": (
        text_row("leak", prompt=TEXTS[3]["prompt"].upper().replace(" ", ", ")),
        {"normalised", "ngram"},
    ),
    "14 words inside another text": (
        text_row("leak", prompt=f"{prose('a')} {' '.join(TEXTS[3]['prompt'].split()[9:23])} {prose('b')}"),
        {"ngram"},
    ),
    "a turn of a conversation": (
        text_row(
            "leak",
            messages=json.dumps(
                [
                    {"role": "user", "content": "Say this."},
                    {"role": "assistant", "content": TEXTS[3]["prompt"]},
                    {"role": "user", "content": "Why?"},
                    {"role": "assistant", "content": "You asked."},
                ]
            ),
        ),
        {"ngram"},
    ),
    "text without roles": (text_row("leak", prompt=None, completion=TEXTS[3]["prompt"]), {"normalised", "ngram"}),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_leak_is_found(tmp_path, name):
    planted, found = PLANTED[name]
    text = not planted["images"]
    train, test = (TEXTS, TEST_TEXTS) if text else (TRAIN, TEST)
    # A question without choices in a text without roles is the same text: content compares the whole of it.
    if name == "text without roles":
        found = found | {"content"}
    assert overlap(tmp_path, train, [*test, planted]) == dict.fromkeys(found, 1)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "meaning"])
def test_each_kind_stops_a_run_at_its_limit(tmp_path, kind):
    """Each planted leak stops a run whose only limit is that of its kind, and no run that only reports it."""
    planted = next(row for row, found in PLANTED.values() if kind in found)
    train, test = (TRAIN, TEST) if planted["images"] else (TEXTS, TEST_TEXTS)
    others = dict.fromkeys(KINDS, "report")
    for limit, passes in ((0, False), (1, True), ("report", True)):
        _, made = compared(tmp_path, train, [*test, planted], Rules(limits=others | {kind: limit}))
        assert made["passed"] == passes, (kind, limit)
    rules = Rules(limits=others | {kind: 0})
    _, made = compared(tmp_path, train, [*test, planted], rules)
    assert f"test-0 in train by {kind}: 1 of" in overlaps.complaint(made)
    assert overlaps.allowing(made, rules) == f"audit.limits.{kind}: 1"


def test_what_stops_by_default(tmp_path):
    stopping = set()
    for name, (planted, _) in PLANTED.items():
        train, test = (TRAIN, TEST) if planted["images"] else (TEXTS, TEST_TEXTS)
        if not compared(tmp_path, train, [*test, planted])[1]["passed"]:
            stopping.add(name)
    only_reported = {"the picture, smaller", "14 words inside another text", "a turn of a conversation"}
    assert stopping == PLANTED.keys() - only_reported


def test_words_that_a_split_repeats_are_the_form_of_its_questions(tmp_path):
    form = prose("an instruction that stands before every question")
    train, test = ([row | {"prompt": f"{form} {row['prompt']}"} for row in rows] for rows in (TEXTS, TEST_TEXTS))
    assert overlap(tmp_path, train, test) == {}
    # Copied into train a hundred times, but once in the test split: no form, a leak.
    copies = [text_row(f"copy-{i}", prompt=f"{prose(f'c{i}')} {test[7]['prompt']}") for i in range(100)]
    assert overlap(tmp_path, [*train, *copies], test) == {"ngram": 1}
    made = compared(tmp_path, train, test, Rules(ngram_common=1000))[1]
    assert made["largest_by_kind"]["ngram"] == len(test)


def test_rows_too_short_for_a_run_of_words_are_counted(tmp_path):
    made = compared(tmp_path, TEXTS, [*TEST_TEXTS, text_row("short", prompt="Who?")])[1]
    assert next(p for p in made["pairs"] if p["second"] == "test-0")["rows_without_ngrams"] == 1


def test_ngrams_are_counted_as_a_slow_and_plain_program_counts_them():
    draw = random.Random(0)
    texts = [" ".join(draw.choice("abc") for _ in range(draw.randrange(0, 30))) for _ in range(200)]
    keys, places = ngrams.ngrams(texts, 5)
    split = [text.split() for text in texts]
    plain = [tuple(one[i : i + 5]) for one in split for i in range(len(one) - 4)]
    assert len(set(keys.tolist())) == len(set(plain))
    assert places.tolist() == [i for i, one in enumerate(split) for _ in range(len(one) - 4)]
    assert len(set(zip(keys.tolist(), plain, strict=True))) == len(set(plain))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Don't, STOP-now_please", ["don", "t", "stop", "now", "please"]),
        ("Straße ﬁve", ["strasse", "five"]),
        ("日本の abc漢字", ["日", "本", "の", "abc", "漢", "字"]),
        ("x² + y²", ["x2", "y2"]),
    ],
)
def test_words(text, expected):
    assert ngrams.words(text) == expected


def test_marks_stand_where_the_words_stand():
    text, other = "Zuerst: EINS, zwei — drei vier. Schluß", "… eins zwei drei VIER fünf"
    assert [text[a:b] for a, b in ngrams.shared_spans(text, other, 3)] == ["EINS, zwei — drei vier"]


def test_pictures_that_look_alike_are_all_compared():
    draw = np.random.default_rng(0)
    first = draw.integers(0, 2**63, 500, dtype=np.uint64)
    flips = np.array([sum(1 << int(b) for b in draw.choice(64, n, replace=False)) for n in (0, 1, 4, 5, 9)], np.uint64)
    hits = similar_pictures((first, np.arange(500)), (first[:5] ^ flips, np.arange(5)), 4)
    assert (hits.second.tolist(), hits.first.tolist()) == ([0, 1, 2], [0, 1, 2])
    assert hits.strength.tolist() == [1, 63 / 64, 60 / 64]


def test_near_meanings_are_those_of_all_pairs(monkeypatch):
    monkeypatch.setattr("sft.data.audit.leak_index._VECTORS", 7)  # several blocks a side
    draw = np.random.default_rng(0)
    first, second = (draw.normal(size=(rows, 16)).astype(np.float16) for rows in (50, 30))
    second[3] = first[11]
    first, second = (v / np.linalg.norm(v.astype(np.float32), axis=1, keepdims=True) for v in (first, second))
    second[4] = 0  # a row that was not read
    products = second.astype(np.float32) @ first.T.astype(np.float32)
    hits = near_meanings(first, second, 0.5)
    plain = [row for row in range(30) if products[row].max() >= 0.5]
    assert hits.second.tolist() == plain
    assert hits.first.tolist() == products[plain].argmax(axis=1).tolist()
    assert 3 in plain
    assert 4 not in plain


def test_another_encoding_of_a_picture_is_the_same_picture(tmp_path):
    buffer = io.BytesIO()
    pictures.decode(image("train-3")).save(buffer, format="WEBP", lossless=True)
    leak = example("leak", images=[buffer.getvalue()])
    assert overlap(tmp_path, TRAIN, [leak]) == {"content": 1, "normalised": 1, "picture": 1, "similar_picture": 1}


@pytest.mark.parametrize(
    ("first", "second", "kinds"),
    [
        ("What is 2 + 2?", "What is 2 + 2?", {"content", "normalised"}),
        ("What is 2 + 2?", "what is  2 + 2", {"normalised"}),
        ("Straße ﬁve", "STRASSE five!", {"normalised"}),
        ("Is a < b?", "Is a > b?", set()),
        ("日本", "中国", set()),
    ],
)
def test_text_rows_are_compared_by_their_text(tmp_path, first, second, kinds):
    train, test = ([example(name, images=[], prompt=text)] for name, text in (("a", first), ("b", second)))
    assert overlap(tmp_path, train, test) == dict.fromkeys(kinds, 1)


def test_an_id_that_a_mix_prefixed_is_still_found(tmp_path):
    train = [example("digits/test-1", images=[image("another")], group=None) | {"part": "digits"}]
    assert overlap(tmp_path, train, TEST, part=True) == {"id": 1}


def test_the_report_names_pairs_counts_ids_and_sources(tmp_path):
    train = [*TRAIN, example("again", images=[image("train-1")], completion="B", source_file="b.parquet")]
    validation = [example("v", images=[image("test-2")])]
    test = [*TEST, example("leak", images=[image("train-3")], source_file="test.parquet")]
    found, made = compared(tmp_path, train, test, validation=validation)
    assert not made["passed"]
    text = overlaps.complaint(made)
    assert "test-0 in train by content: 1 of 11 rows (leak = train-3)" in text
    assert "test-0 in validation by picture: 1 of 11 rows (test-2 = v)" in text
    assert "validation in train" not in text
    content = next(p for p in made["pairs"] if (p["first"], p["second"]) == ("train", "test-0"))["overlap"]["content"]
    assert (content["by_source"], content["found_in"]) == ({"test.parquet": 1}, {"train.parquet": 1})
    assert made["splits"]["train"]["rows_by_source"] == {"train.parquet": 20, "b.parquet": 1}
    assert made["splits"]["train"]["repeated_rows"] == 1
    assert made["splits"]["train"]["contradictory_contents"] == 1
    assert compared(tmp_path, train, test, Rules(maximum_overlap=1), validation=validation)[1]["passed"]
    pairs = audit_shown.shown_pairs(found, Rules())
    left_out = {"results/splits/a&b": {"too_long": {"train.parquet": 3}}}
    page = audit_page.page(made, pairs, "Overlap: <x>", {"train": "results/splits/a&b"}, left_out)
    assert "Overlap: &lt;x&gt;" in page
    assert "a&amp;b" in page
    assert "Training is stopped: 1 of 11 rows of <b>test-0</b> are in <b>train</b> (exact)" in page
    assert "too long" in page
    assert page.count('src="data:image/png;base64,') == 2 * len(pairs)
    assert "<script" not in page
    assert "://" not in page, "the page loads nothing"


def test_the_page_shows_both_texts_and_marks_what_they_share(tmp_path):
    run = " ".join(TEXTS[3]["prompt"].split()[9:24])
    test = [*TEST_TEXTS, text_row("leak", prompt=f"{prose('a')} {run} <b>{prose('b')}</b>")]
    found, made = compared(tmp_path, TEXTS, test)
    page = audit_page.page(made, audit_shown.shown_pairs(found, Rules()), "t", {}, {})
    assert page.count(f"<mark>{run}</mark>") == 2
    assert "&lt;b&gt;" in page
    assert "<code>leak</code> = <code>train-3</code>" in page


def benchmark(tmp_path: Path, rows: list[dict]) -> Benchmark:
    (tmp_path / "files").mkdir(exist_ok=True)
    (tmp_path / "files/test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Benchmark("maths", tmp_path / "files", ["question", "hint"])


QUESTION = "Natalia sold clips to 48 friends in April, and half as many in May. How many clips did she sell?"


@pytest.mark.parametrize(
    ("prompt", "kinds"),
    [
        (QUESTION, {"content", "normalised", "ngram"}),
        (f"Solve this.\n{QUESTION.lower()}\nThink first.", {"normalised", "ngram"}),
        (f"Once upon a time {QUESTION[:80]} and so on", {"ngram"}),
        ("Natalia sold clips.", set()),
    ],
)
def test_a_benchmark_in_training_is_found_and_stops_the_run(tmp_path, prompt, kinds):
    rows = [{"question": QUESTION, "hint": None}, *({"question": prose(f"q{i}"), "hint": "h"} for i in range(50))]
    train = [*TEXTS, text_row("leak", prompt=prompt)]
    rules = Rules(benchmarks={"maths": {"text_keys": ["question", "hint"]}})
    found, made = compared(tmp_path, train, TEST_TEXTS, rules, benchmarks=[benchmark(tmp_path, rows)])
    pair = next(pair for pair in made["pairs"] if (pair["first"], pair["second"]) == ("train", "maths"))
    assert {kind for kind, one in pair["overlap"].items() if one["rows"]} == kinds
    assert made["passed"] == (not kinds)
    if kinds:
        assert f"maths in train by {min(kinds)}: 1 of 51 rows (test.jsonl, row 0 = leak)" in overlaps.complaint(made)
        assert f"audit.benchmarks.maths.limits.{min(kinds)}: 1" in overlaps.allowing(made, rules)
        assert "test.jsonl, row 0" in audit_page.page(made, audit_shown.shown_pairs(found, rules), "t", {}, {})
        allowed = Rules(benchmarks={"maths": {"limits": dict.fromkeys(kinds, 1)}})
        assert compared(tmp_path, train, TEST_TEXTS, allowed, benchmarks=[benchmark(tmp_path, rows)])[1]["passed"]


def test_a_benchmark_without_rows_or_text_is_refused(tmp_path):
    with pytest.raises(StageError, match=r"audit\.benchmarks\.maths: .* has no row"):
        list(benchmark(tmp_path, []).read())
    with pytest.raises(StageError, match=r"maths: test\.jsonl, row 0: column 'question' holds a int, not text"):
        list(benchmark(tmp_path, [{"question": 3, "hint": None}]).read())


def test_a_picture_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(StageError, match=r"train\.parquet, id broken: .*no readable picture"):
        compared(tmp_path, [example("broken", images=[image("x")[:40]])], TEST)
