"""Training rows are mapped from one whole copy, however many processes ask for it and whatever became of others.

Tests: sft.data.read.examples
"""

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from sft.runtime.code import describe
from sft.runtime.manifest import file_digest
from sft.runtime.stage import StageError
from sft.training import token_rows
from sft.training.token_rows import ROWS, load_rows, prepare_rows
from whole_manifest import output, whole

# The form of copies and the digest of what writes them. Where the digest changes, and with it what is in a copy, raise
# FORM, so that no run reads a copy that the code before left; either way write both down here.
WRITTEN = (1, "a72ddd3797d7c1a39a8cfb5b2bbd28df0c1fc14adc37385e4ee60ed52afff17a")
SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
IMAGE_BYTES = 200_000
FIELDS = {
    "id": pyarrow.string(),
    "input_ids": pyarrow.list_(pyarrow.int32()),
    "labels": pyarrow.list_(pyarrow.int32()),
    "images": pyarrow.list_(pyarrow.binary()),
}
# What a process does that trains: make or wait for the copy, map it, look at rows all over it.
READER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from sft.training.token_rows import load_rows, prepare_rows
tokens = Path(sys.argv[2])
prepare_rows(tokens, "train", lambda text: print(text, file=sys.stderr))
rows = load_rows(tokens, "train")
before = dict(line.split(":") for line in open("/proc/self/status") if ":" in line)["RssAnon"]
sizes = [len(rows[i]["images"][0]) for i in range(0, len(rows), 7)]
after = dict(line.split(":") for line in open("/proc/self/status") if ":" in line)["RssAnon"]
print(len(rows), sum(sizes), int(after.split()[0]) - int(before.split()[0]))
"""


def make_tokens(folder: Path, rows: int, seed: int = 0, image_bytes: int = IMAGE_BYTES) -> Path:
    """What tokenising leaves, with pictures that no compression makes smaller."""
    draw = random.Random(seed)
    made = [
        {"id": f"r{i}", "input_ids": [i, 1, 2], "labels": [-100, 1, 2], "images": [draw.randbytes(image_bytes)]}
        for i in range(rows)
    ]
    folder.mkdir(exist_ok=True)
    for split, part in (("train", made), ("validation", made[:0])):
        table = pyarrow.Table.from_pylist(part, schema=pyarrow.schema(FIELDS))
        pyarrow.parquet.write_table(table, folder / f"{split}.parquet", row_group_size=100)
    splits = {"train": {"rows_kept": rows}, "validation": {"rows_kept": 0}}
    (folder / "labels.json").write_text(json.dumps({"splits": splits, "packed": None}))
    outputs = {f"{split}.parquet": output(sha256=file_digest(folder / f"{split}.parquet")) for split in splits}
    (folder / "manifest.json").write_text(json.dumps(whole(outputs=outputs)))
    return folder


def copies(tokens: Path) -> list[Path]:
    return sorted((tokens / ROWS).glob("train-*"))


def reader(tokens: Path, **options: Any) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", READER, SCRIPTS, tokens],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def test_the_rows_are_those_of_the_parquet_file(tmp_path: Path) -> None:
    tokens = make_tokens(tmp_path, 30, image_bytes=1000)
    rows = load_rows(tokens, "train")
    assert list(rows) == pyarrow.parquet.read_table(tokens / "train.parquet").to_pylist()
    assert rows[17]["id"] == "r17"
    assert rows.features["input_ids"].feature.dtype == "int32"
    assert len(load_rows(tokens, "validation")) == 0
    assert rows.cache_files == [{"filename": str(copies(tokens)[0])}]


def test_many_processes_make_one_copy_and_hold_no_pictures(tmp_path: Path) -> None:
    tokens = make_tokens(tmp_path, 700)  # 140 MB
    processes = [reader(tokens) for _ in range(3)]
    told = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], told
    assert len(copies(tokens)) == 1
    for out, _ in told:
        count, seen, grown = map(int, out.split())
        assert (count, seen) == (700, 100 * IMAGE_BYTES)
        assert grown < 10_000, f"{grown} KiB of their own, and the pictures that were looked at are 20 MB"
    # Opened again, by this process too, it is the same file.
    before = copies(tokens)[0].stat().st_ino
    prepare_rows(tokens, "train", pytest.fail)
    assert copies(tokens)[0].stat().st_ino == before


def test_a_killed_maker_leaves_nothing_under_a_final_name(tmp_path: Path) -> None:
    tokens = make_tokens(tmp_path, 700)
    with reader(tokens) as process:
        while not (parts := list((tokens / ROWS).glob("*.part"))) or parts[0].stat().st_size < 10_000_000:
            assert process.poll() is None, process.communicate()
            time.sleep(0.001)
        process.send_signal(signal.SIGSTOP)
        assert not list((tokens / ROWS).glob("*.arrow"))
        process.kill()
    assert list((tokens / ROWS).glob("*.part"))
    said: list[str] = []
    prepare_rows(tokens, "train", said.append)
    assert "taking over from process" in said[0]
    assert [path.suffix for path in copies(tokens)] == [".arrow"]
    assert len(load_rows(tokens, "train")) == 700


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    tokens = make_tokens(tmp_path, 100)

    def no_room() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (5_000_000, 5_000_000))

    out, error = reader(tokens, preexec_fn=no_room).communicate(timeout=60)
    assert "OSError" in error.splitlines()[-1]
    assert not out
    assert copies(tokens) == []


def test_a_damaged_copy_and_one_of_earlier_tokens_are_made_again(tmp_path: Path) -> None:
    tokens = make_tokens(tmp_path, 20, image_bytes=1000)
    said: list[str] = []
    prepare_rows(tokens, "train", said.append)
    [first] = copies(tokens)
    whole = first.read_bytes()
    first.write_bytes(whole[:-900] + bytes([whole[-900] ^ 1]) + whole[-899:])
    prepare_rows(tokens, "train", said.append)
    assert said == [f"{first} is not what was written; making it again"]
    assert first.read_bytes() == whole
    make_tokens(tokens, 20, seed=1, image_bytes=1000)
    other = load_rows(tokens, "train")
    assert copies(tokens) != [first]
    assert len(copies(tokens)) == 1
    assert other[3]["images"] == pyarrow.parquet.read_table(tokens / "train.parquet")["images"][3].as_py()


def test_rows_that_were_not_counted_stop_the_run(tmp_path: Path) -> None:
    tokens = make_tokens(tmp_path, 5, image_bytes=10)
    (tokens / "labels.json").write_text(json.dumps({"splits": {"train": {"rows_kept": 6}}}))
    with pytest.raises(StageError, match=r"5 rows, but 6 were prepared"):
        load_rows(tokens, "train")
    assert os.listdir(tokens / ROWS)  # noqa: PTH208


def test_rows_of_large_pictures_are_read_and_written_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows are the same; what is in memory at once goes by bytes, not only by rows."""
    from sft.data.read import examples

    monkeypatch.setattr(examples, "BYTES_PER_GROUP", 10_000)
    monkeypatch.setattr(examples, "BYTES_PER_BATCH", 5_000)
    rows = [{"id": str(i), "images": [bytes([i]) * 1000]} for i in range(40)]
    schema = pyarrow.schema({"id": pyarrow.string(), "images": FIELDS["images"]})
    assert examples.write(tmp_path / "a.parquet", rows, schema) == 40
    assert pyarrow.parquet.ParquetFile(tmp_path / "a.parquet").num_row_groups == 4
    assert list(examples.rows(tmp_path / "a.parquet")) == rows
    assert max(batch.num_rows for batch in examples.batches(tmp_path / "a.parquet")) < 10
    with examples.Writer(tmp_path / "b.parquet", schema) as writer:
        for batch in examples.batches(tmp_path / "a.parquet"):
            writer.add_batch(batch)
    assert list(examples.rows(tmp_path / "b.parquet")) == rows


def test_a_copy_of_another_form_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = describe("train_model")["sft/training/token_rows.py"]["_write"]
    assert (token_rows.FORM, written) == WRITTEN
    tokens = make_tokens(tmp_path / "tokens", 1)
    prepare_rows(tokens, "train", lambda text: None)
    before = copies(tokens)
    monkeypatch.setattr(token_rows, "FORM", token_rows.FORM + 1)
    prepare_rows(tokens, "train", lambda text: None)
    assert len(copies(tokens)) == 1
    assert copies(tokens) != before
