"""Leaks of every kind are planted and found, with their ids; a clean pair of splits is clean."""

import hashlib
import io
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image

from sft.data import audit, audit_page, examples, pictures
from sft.stage import StageError


def image(text: str) -> bytes:
    return pictures.png(Image.frombytes("RGB", (4, 2), (hashlib.sha256(text.encode()).digest() * 2)[:24]))


def example(identifier: str, **changes) -> dict:
    return {
        "id": identifier,
        "source_file": "train.parquet",
        "prompt": "Which digit is shown?\nA 0 B 1",
        "completion": "A",
        "choices": ["0", "1"],
        "answer": "A",
        "images": [image(identifier)],
        "group": f"group of {identifier}",
        "system": None,
    } | changes


def keys(tmp_path, name: str, rows: list[dict], schema=examples.SCHEMA) -> audit.SplitKeys:
    examples.write(tmp_path / f"{name}.parquet", rows, schema)
    with ThreadPoolExecutor(2) as pool:
        return audit.read_split(tmp_path / f"{name}.parquet", name, pool)


def overlap(tmp_path, train: list[dict], test: list[dict], schema=examples.SCHEMA) -> dict[str, int]:
    found = audit.compare(keys(tmp_path, "train", train, schema), keys(tmp_path, "test", test))
    return {kind: made["rows"] for kind, made in found.items() if made["rows"]}


TRAIN = [example(f"train-{i}") for i in range(20)]
TEST = [example(f"test-{i}") for i in range(10)]


def test_the_same_question_about_other_pictures_is_no_leak(tmp_path):
    assert overlap(tmp_path, TRAIN, TEST) == {}


@pytest.mark.parametrize(
    ("planted", "found"),
    [
        ({"id": "train-3"}, {"id"}),
        ({"images": [image("train-3")]}, {"content", "normalised", "picture"}),
        ({"images": [image("train-3")], "prompt": " which DIGIT is shown ?\nA 0 B 1"}, {"normalised", "picture"}),
        ({"images": [image("train-3")], "prompt": "Is it odd?"}, {"picture"}),
        ({"images": [image("other"), image("train-3")]}, {"picture"}),
        ({"group": "group of train-3"}, {"group"}),
    ],
)
def test_a_planted_leak_is_found(tmp_path, planted, found):
    assert overlap(tmp_path, TRAIN, [*TEST, example("leak", **planted)]) == dict.fromkeys(found, 1)


def test_another_encoding_of_a_picture_is_the_same_picture(tmp_path):
    buffer = io.BytesIO()
    pictures.decode(image("train-3")).save(buffer, format="WEBP", lossless=True)
    leak = example("leak", images=[buffer.getvalue()])
    assert overlap(tmp_path, TRAIN, [leak]) == {"content": 1, "normalised": 1, "picture": 1}


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
    schema = examples.SCHEMA.append(examples.PART)
    train = [example("digits/test-1", images=[image("another")], group=None) | {"part": "digits"}]
    assert overlap(tmp_path, train, TEST, schema) == {"id": 1}


def test_the_report_names_pairs_counts_and_ids(tmp_path):
    train = keys(tmp_path, "train", [*TRAIN, example("again", images=[image("train-1")], completion="B")])
    validation = keys(tmp_path, "validation", [example("v", images=[image("test-2")])])
    test = keys(tmp_path, "test-0", [*TEST, example("leak", images=[image("train-3")])])
    made = audit.report(train, validation, [test], maximum=0)
    assert not made["passed"]
    text = audit.complaint(made)
    assert "test-0 in train by content: 1 of 11 rows (leak = train-3)" in text
    assert "test-0 in validation by picture: 1 of 11 rows (test-2 = v)" in text
    assert "validation in train" not in text
    assert made["splits"]["train"]["repeated_rows"] == 1
    assert made["splits"]["train"]["contradictory_contents"] == 1
    assert audit.report(train, validation, [test], maximum=1)["passed"]
    page = audit_page.page(made, "Overlap: <x>", {"train": "results/splits/a&b"})
    assert "Overlap: &lt;x&gt;" in page
    assert "a&amp;b" in page
    assert "train-3" in page
    assert "Training is stopped" in page


def test_a_picture_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(StageError, match=r"train\.parquet, id broken: .*no readable picture"):
        keys(tmp_path, "train", [example("broken", images=[image("x")[:40]])])
