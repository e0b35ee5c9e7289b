"""Files on this machine as people have them: Arrow, image folders, tables of several kinds side by side, empty ones.

Tests: sft.data.read.picture_folders, sft.data.read.seen_ids
"""

import argparse
import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

import download_dataset
from sft.config.nodes import PrepareSettings
from sft.data.read.preparation import Preparation
from sft.data.read.rows import count_rows, read_rows
from sft.planning.freshness import _unseen_file
from sft.planning.node import Node
from sft.runtime.stage import Stage, StageError

ROWS = [{"id": str(i), "prompt": f"say {i}", "completion": str(i)} for i in range(2500)]


def download(folder: Path, source: dict[str, Any]) -> Stage:
    """What download_dataset makes of `source`, in the attempt of a stage."""
    directory = folder / "result"
    directory.mkdir()
    node = {"rule": "download_dataset", "id": "x", "config": {"source": source}, "identity": {}, "inputs": {}}
    (directory / "config.json").write_text(json.dumps(node))
    stage = Stage(directory, argparse.Namespace(threads=1))
    stage.attempt.mkdir()
    download_dataset.make(stage)
    return stage


def prepared(stage: Stage, **columns: Any) -> list[dict[str, Any]]:
    columns = {"id_key": "id", "image_keys": []} | columns
    template = columns.pop("prompt_template", None)
    kind = "multiple_choice" if "choice_key" in columns else "prompt_completion"
    config = {
        "format": kind,
        "columns": columns,
        "choices_layout": "lines",
        "target": "text",
        "image_transform": "none",
    }
    config |= {"prompt_template": template} if template else {}
    return list(Preparation(PrepareSettings.read_back(config), stage.attempt / "files").examples())


def picture(path: Path, colour: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (2, 2), colour).save(path)


def table(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def test_what_save_to_disk_writes_is_read(tmp_path):
    whole = datasets.DatasetDict(
        {"train": datasets.Dataset.from_list(ROWS), "test": datasets.Dataset.from_list(ROWS[:3])}
    )
    whole.save_to_disk(tmp_path / "saved")
    stage = download(tmp_path, {"path": str(tmp_path / "saved")})
    train = "train/data-00000-of-00001.arrow"
    assert stage.facts["rows"] == {"test/data-00000-of-00001.arrow": 3, train: 2500}
    assert [row for _, row in read_rows(tmp_path / "saved" / train, ["id", "completion"])] == [
        {"id": row["id"], "completion": row["completion"]} for row in ROWS
    ]


def test_arrows_file_format_is_read_too(tmp_path):
    whole = pyarrow.Table.from_pylist(ROWS)
    with pyarrow.ipc.new_file(tmp_path / "a.arrow", whole.schema) as file:
        file.write_table(whole, max_chunksize=999)
    assert count_rows(tmp_path / "a.arrow") == 2500
    assert [row for _, row in read_rows(tmp_path / "a.arrow")] == ROWS
    with pytest.raises(StageError, match=r"a\.arrow: no column 'promt'; did you mean 'prompt'"):
        list(read_rows(tmp_path / "a.arrow", ["promt"]))


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_an_image_folder_with_a_metadata_table(tmp_path, suffix):
    for split, name in (("train", "a/1.png"), ("test", "2.png")):
        picture(tmp_path / "data" / split / name, "red")
        row = {"file_name": name, "text": f"what is on {name}", "id": name}
        with (tmp_path / f"data/{split}/metadata.{suffix}").open("w") as file:
            if suffix == "csv":
                writer = csv.DictWriter(file, list(row))
                writer.writeheader()
                writer.writerow(row)
            else:
                json.dump(row, file)
    stage = download(tmp_path, {"path": str(tmp_path / "data")})
    assert "2 rows in 2 files and 2 pictures" in stage.facts["summary"]
    rows = prepared(stage, prompt_key="text", completion_key="text", image_keys=["file_name"])
    assert [row["images"] for row in rows] == [
        [(tmp_path / f"data/{name}").read_bytes()] for name in ("test/2.png", "train/a/1.png")
    ]


def test_an_image_folder_whose_classes_are_folders(tmp_path):
    for name in ("train/cat/1.png", "train/dog/2.png", "test/dog/3.png"):
        picture(tmp_path / "data" / name, "red" if "cat" in name else "blue")
    with pytest.raises(StageError, match=r"has no table .* add labels: folder_name"):
        download(tmp_path, {"path": str(tmp_path / "data")})
    (tmp_path / "second").mkdir()
    stage = download(tmp_path / "second", {"path": str(tmp_path / "data"), "labels": "folder_name"})
    assert stage.facts["rows"] == {"test/pictures.parquet": 1, "train/pictures.parquet": 2}
    columns = {"choice_key": "labels", "answer_key": "label", "image_keys": ["file_name"]}
    rows = prepared(stage, prompt_template="What is in the picture?", **columns)
    assert rows[0]["prompt"] == "What is in the picture?\nChoices:\nA. cat\nB. dog\n"
    assert [(row["id"], row["completion"], row["choices"]) for row in rows] == [
        ("test/dog/3", "dog", ["cat", "dog"]),
        ("train/cat/1", "cat", ["cat", "dog"]),
        ("train/dog/2", "dog", ["cat", "dog"]),
    ]
    assert rows[1]["images"] == [(tmp_path / "data/train/cat/1.png").read_bytes()]


def test_a_picture_in_no_folder_has_no_class(tmp_path):
    picture(tmp_path / "data/1.png", "red")
    with pytest.raises(StageError, match=r"1\.png lies in no folder that would name its class"):
        download(tmp_path, {"path": str(tmp_path / "data"), "labels": "folder_name"})


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """As a documentation corpus is published: index, chunks and manifest side by side."""
    table(tmp_path / "corpus/chunks-0.parquet", [{"chunk_id": i, "text": "a", "url": "u"} for i in range(9)])
    table(tmp_path / "corpus/chunks-1.parquet", [{"chunk_id": i, "text": "b", "url": None} for i in range(9)])
    table(tmp_path / "corpus/index.parquet", [{"chunk_id": "1", "vector": [0.5]}])
    (tmp_path / "corpus/manifest.json").write_text('[{"files": 3, "made": "today"}]')
    return tmp_path / "corpus"


def test_tables_that_do_not_belong_together_are_named_with_the_line_to_add(tmp_path, corpus):
    with pytest.raises(StageError) as caught:
        download(tmp_path, {"path": str(corpus)})
    assert str(caught.value) == (
        f"source {corpus}: chunks-0.parquet and index.parquet do not have the same columns (text, url only in "
        "chunks-0.parquet; vector only in index.parquet; chunk_id is whole number in chunks-0.parquet, text in "
        'index.parquet). If they do not belong together, name those that do: files: ["chunks-*.parquet"]'
    )
    (tmp_path / "second").mkdir()
    stage = download(tmp_path / "second", {"path": str(corpus), "files": ["chunks-*.parquet"]})
    assert stage.facts["rows"] == {"chunks-0.parquet": 9, "chunks-1.parquet": 9}


def test_a_file_that_joins_counts_only_where_its_name_is_asked_for(tmp_path, corpus):
    source = {"path": str(corpus), "files": ["chunks-*.parquet"]}
    stage = download(tmp_path, source)
    node = Node("download_dataset", "corpus", {"source": source}, {})
    assert _unseen_file(node, {"facts": stage.facts}) == ""
    (corpus / "notes.json").write_text("[]")
    assert _unseen_file(node, {"facts": stage.facts}) == ""
    table(corpus / "chunks-2.parquet", [{"chunk_id": 1, "text": "c", "url": "u"}])
    assert _unseen_file(node, {"facts": stage.facts}).endswith("chunks-2.parquet")


def test_tables_whose_types_differ_only_in_width_belong_together(tmp_path):
    for name, kind in (("a", pyarrow.int32()), ("b", pyarrow.int64())):
        text = pyarrow.string() if name == "a" else pyarrow.large_string()
        (tmp_path / "data").mkdir(exist_ok=True)
        schema = pyarrow.schema({"id": kind, "text": text})
        pyarrow.parquet.write_table(
            pyarrow.Table.from_pylist([{"id": 1, "text": "x"}], schema), tmp_path / f"data/{name}.parquet"
        )
    (tmp_path / "data/c.jsonl").write_text('{"id": 3, "text": "x", "more": 1}\n{"id": 4}\n')
    assert sum(download(tmp_path, {"path": str(tmp_path / "data")}).facts["rows"].values()) == 4


@pytest.mark.parametrize(
    ("files", "source", "message"),
    [
        ({"a.jsonl": ""}, {}, r"a\.jsonl: the file is empty \(0 bytes\)"),
        ({"a.csv": "id,text\n"}, {}, r"the tables hold no row \(a\.csv\)"),
        ({}, {}, r"the directory .*data has no table \(\.parquet, \.arrow, \.jsonl, \.json, \.csv\)$"),
        ({"train.csv": "a\n1\n"}, {"files": ["trian.csv"]}, r"no file matches trian\.csv\. Did you mean train\.csv\?"),
        ({"a.txt": "x"}, {"files": ["*.csv"]}, r"no file matches \*\.csv\. It has no table and no picture"),
        ({"a.csv": "a\n1\n"}, {"labels": "folder_name"}, "has no picture"),
    ],
)
def test_what_is_no_source_is_told(tmp_path, files, source, message):
    (tmp_path / "data").mkdir()
    for name, text in files.items():
        (tmp_path / "data" / name).write_text(text)
    with pytest.raises(StageError, match=message):
        download(tmp_path, {"path": str(tmp_path / "data")} | source)


def test_a_column_of_another_type_names_row_column_and_type(tmp_path):
    table(tmp_path / "data/train.parquet", [{"id": "a", "prompt": 7, "completion": "x"}])
    stage = download(tmp_path, {"path": str(tmp_path / "data")})
    with pytest.raises(StageError, match=r"train\.parquet, row 0 \(id a\): column 'prompt' holds a int, not text"):
        prepared(stage, prompt_key="prompt", completion_key="completion")


def test_an_image_folder_on_the_hub(tmp_path):
    from hub_bench import Bench
    from hub_stand_in import HubStandIn

    picture(tmp_path / "1.png", "red")
    hub = HubStandIn()
    hub.publish("dataset", "a/pictures", {f"train/{label}/1.png": tmp_path / "1.png" for label in ("cat", "dog")})
    try:
        made = Bench(tmp_path, hub).make("got", {"hub": "a/pictures", "labels": "folder_name"})
    finally:
        hub.close()
    assert made["facts"]["rows"] == {"train/pictures.parquet": 2}


# ru_maxrss would count the process that this one was forked from.
PEAK = """
import re, sys
from pathlib import Path
from sft.data.read.rows import read_rows

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) // 1024

import pyarrow.parquet
before = peak()
rows = sum(1 for _ in read_rows(Path(sys.argv[1])))
print(rows, peak() - before)
"""


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["parquet", "arrow", "json", "jsonl", "csv"])
def test_reading_is_bounded_in_memory(tmp_path, suffix):
    """300 MB: one row group, record batch or line where the format allows it, rows of 1 MB; the bound is 200 MiB."""
    path, cell = tmp_path / f"a.{suffix}", "x" * 1_000_000
    if suffix in ("parquet", "arrow"):
        chunk = pyarrow.table({"text": [cell.encode()] * 300})
        if suffix == "parquet":
            pyarrow.parquet.write_table(chunk, path, use_dictionary=False, compression="none", write_batch_size=8)
        else:
            with pyarrow.ipc.new_stream(path, chunk.schema) as stream:
                stream.write_table(chunk)
        del chunk
    else:
        head, row, between, foot = {
            "json": ("[", json.dumps({"text": cell}), ", ", "]"),
            "jsonl": ("", json.dumps({"text": cell}), "\n", "\n"),
            "csv": ("text\n", cell, "\n", "\n"),
        }[suffix]
        with path.open("w") as file:
            file.write(head)
            for i in range(300):
                file.write((between if i else "") + row)
            file.write(foot)
    environment = os.environ | {"PYTHONPATH": str(Path(download_dataset.__file__).parent)}
    done = subprocess.run(
        [sys.executable, "-c", PEAK, path], env=environment, capture_output=True, text=True, check=True
    )
    rows, mebibytes = map(int, done.stdout.split())
    print(suffix, mebibytes)
    path.unlink()
    assert rows == 300
    # Pages of a mapped file count as memory of the process, though the system may drop them at any time.
    assert mebibytes < (200 if suffix != "arrow" else 500)
