"""Published tables: found, read and refused with the place, the reason and the nearest name.

Tests: sft.data.read.rows, sft.data.read.tables
"""

import json

import pyarrow
import pyarrow.parquet
import pytest

from sft.config.nodes import PrepareSettings
from sft.data.read.preparation import Preparation
from sft.data.read.rows import count_rows
from sft.runtime.stage import StageError
from sft.sources import source_files

COLUMNS = {"prompt_key": "question", "completion_key": "reply", "id_key": None, "image_keys": []}
CONFIG = {
    "format": "prompt_completion",
    "columns": COLUMNS,
    "choices_layout": "lines",
    "target": "letter",
    "image_transform": "none",
}
ROWS = [{"question": "1, 2?", "reply": "007"}, {"question": 'a "b"\nc', "reply": "ü"}]


def write(path, rows) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif path.suffix == ".arrow":
        table = pyarrow.Table.from_pylist(rows)
        with pyarrow.ipc.new_stream(path, table.schema) as stream:
            stream.write_table(table)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows), encoding="utf-8")
    else:
        import csv

        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


def prepared(directory, **changes) -> list[dict]:
    config = CONFIG | {key: value for key, value in changes.items() if key in CONFIG}
    config["columns"] = COLUMNS | {key: value for key, value in changes.items() if key not in CONFIG}
    return list(Preparation(PrepareSettings.read_back(config), directory).examples())


@pytest.mark.parametrize("suffix", ["parquet", "arrow", "jsonl", "json", "csv"])
def test_every_format_gives_the_same_examples(tmp_path, suffix):
    write(tmp_path / f"train.{suffix}", ROWS)
    rows = prepared(tmp_path)
    assert [(row["prompt"], row["completion"]) for row in rows] == [tuple(row.values()) for row in ROWS]
    assert [row["id"] for row in rows] == ["train-0000000", "train-0000001"]
    assert count_rows(tmp_path / f"train.{suffix}") == 2


@pytest.mark.parametrize("suffix", ["parquet", "arrow", "jsonl", "json", "csv"])
def test_a_missing_column_names_the_nearest(tmp_path, suffix):
    write(tmp_path / f"train.{suffix}", ROWS)
    with pytest.raises(StageError, match=rf"train\.{suffix}.*no column 'questions'; did you mean 'question'\?.*reply"):
        prepared(tmp_path, prompt_key="questions")


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("a.jsonl", '{"question": "x", "reply": "y"}\n{"question": \n', r"a\.jsonl, row 1: line 2 is not JSON"),
        ("a.jsonl", "[1]\n", "line 1 is a list, not an object"),
        ("a.jsonl", '{"question": "x"}\n', "a.jsonl, row 0: no column 'reply'"),
        (
            "a.json",
            '{"question":\n"x"}',
            r"a\.json: line 1 is not JSON .*not an array of objects, one per row, and not one",
        ),
        ("a.json", '"text"', "not an array of objects"),
        ("a.json", '[{"question": "x", "reply": "y"},\n {"question" "x"}]', "line 2: not JSON .Expecting ':'"),
        ("a.json", '[{"question": "x", "reply": "y"},\n {"question": "x', "line 2: not JSON .Unterminated string"),
        ("a.json", '[{"question": "x", "reply": "y"}', "line 1: not JSON .the array is not closed"),
        ("a.json", '[{"question": "x", "reply": "y"} {', "line 1: not JSON .a comma or ] expected"),
        ("a.json", '[{"question": "x", "reply": "y"}]\n[', "line 2: not JSON .something follows the array"),
        ("a.json", '[{"question": "x", "reply": "y"}, 3]', "not an array of objects"),
        ("a.jsonl", b'{"question": "x", "reply": "y"}\n\xff', "line 2: not UTF-8"),
        ("a.arrow", "nothing", "not an Arrow file or stream"),
        ("a.csv", "question,reply\nx\n", "line 2 has not 2 cells"),
        ("a.csv", "question,reply\nx,y,z\n", "line 2 has not 2 cells"),
        ("a.parquet", "nothing", "not a parquet file"),
    ],
)
def test_a_broken_file_is_named_with_the_line(tmp_path, name, text, reason):
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(StageError, match=reason):
        prepared(tmp_path)


def test_broken_rows_are_named_together(tmp_path):
    rows = [
        {"question": text, "reply": "y", "key": key} for text, key in (("a", "1"), ("", "2"), (None, "3"), ("d", "1"))
    ]
    write(tmp_path / "train.jsonl", rows)
    with pytest.raises(StageError) as caught:
        prepared(tmp_path, id_key="key")
    assert str(caught.value).splitlines() == [
        "3 rows cannot be read with certainty:",
        "  train.jsonl, row 1 (id 2): column 'question' is empty",
        "  train.jsonl, row 2 (id 3): column 'question' is empty (null)",
        "  train.jsonl, row 3 (id 1): id '1' is also the id of train.jsonl, row 0; ids must be unique",
    ]


def test_an_unknown_answer_is_never_the_first_choice(tmp_path):
    row = {"question": "Which?", "options": "['cat', 'dog']", "answer": "E", "key": "q-17"}
    write(tmp_path / "train.jsonl", [row])
    columns = {"choice_key": "options", "answer_key": "answer", "id_key": "key"}
    with pytest.raises(StageError, match=r"train\.jsonl, row 0 \(id q-17\): answer 'E' is no letter A to B"):
        prepared(tmp_path, format="multiple_choice", **columns)


def test_pictures_by_path_lie_in_the_source(tmp_path):
    from PIL import Image

    (tmp_path / "sub/img").mkdir(parents=True)
    Image.new("RGB", (2, 3)).save(tmp_path / "sub/img/a.png")
    row = {"question": "x", "reply": "y"}
    write(tmp_path / "sub/train.jsonl", [row | {"image": "img/a.png"}])
    assert prepared(tmp_path, image_keys=["image"])[0]["images"] == [(tmp_path / "sub/img/a.png").read_bytes()]
    for path, reason in (
        ("img/b.png", "is not in the source"),
        ("../../x.png", "not inside"),
        ("/x.png", "not inside"),
    ):
        write(tmp_path / "sub/train.jsonl", [row | {"image": path}])
        with pytest.raises(StageError, match=reason):
            prepared(tmp_path, image_keys=["image"])


def test_files_of_a_directory_a_file_and_a_pattern(tmp_path):
    for name in ("data/b.parquet", "data/a.jsonl", "data/img/1.png", "data/notes.txt", "data/.cache/c.jsonl"):
        write(tmp_path / name, ROWS) if name.endswith((".parquet", ".jsonl")) else write_text(tmp_path / name)
    found = source_files.find_files(str(tmp_path / "data"))
    assert list(found) == ["a.jsonl", "b.parquet", "img/1.png"]
    assert list(source_files.find_files(str(tmp_path / "data/a.jsonl"))) == ["a.jsonl"]
    assert list(source_files.find_files(str(tmp_path / "*/b.*"))) == ["data/b.parquet"]


@pytest.mark.parametrize(
    ("source", "reason"), [("none", "no such directory"), ("x/*.csv", "no file matches"), ("e", "no table")]
)
def test_a_source_without_tables_is_refused(tmp_path, source, reason):
    write_text(tmp_path / "e/notes.txt")
    with pytest.raises(StageError, match=reason):
        source_files.find_files(str(tmp_path / source))


def write_text(path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("text")
