"""Splits by what the publisher says of a row: a column or a split; and published columns, found again for each row."""

import json
from pathlib import Path

import pytest

from sft.config.split_settings import Split
from sft.data.read import examples
from sft.data.split.division import Division, published_values
from sft.data.split.splitting import SPLITS
from sft.runtime.stage import StageError


def rows(folder: Path, *named: tuple[str, str], **more) -> Path:
    """examples.parquet of (id, source file)."""
    empty = dict.fromkeys(examples.SCHEMA.names) | {"choices": [], "answer": "", "images": [], "prompt": "?"}
    path = folder / "examples.parquet"
    examples.write(path, [empty | {"id": name, "source_file": file} | more for name, file in named])
    return path


def sides(division: Division) -> list[str]:
    return [SPLITS[side] if side >= 0 else "unused" for side in division.sides]


def source(folder: Path, *published: dict) -> Path:
    """A published table in which preparation finds its rows."""
    directory = folder / "source"
    directory.mkdir()
    (directory / "all.jsonl").write_text("\n".join(map(json.dumps, published)) + "\n")
    return directory


def test_by_a_column(tmp_path: Path):
    examples_file = rows(tmp_path, ("a", "all.jsonl"), ("b", "all.jsonl"), ("c", "all.jsonl"), ("d", "all.jsonl"))
    rule = {"by": "column", "column": "fold", "train": "[0-1]", "test": "9", "validation": {}}
    values = iter([{"fold": 0}, {"fold": 9}, {"fold": 1}, {"fold": 5}])
    division = Division(examples_file, Split.read_back(rule), values)
    assert sides(division) == ["train", "test", "train", "unused"]
    assert division.names() == {"0": "train", "1": "train", "5": None, "9": "test"}
    assert division.counts()["train"] == {"all.jsonl": 2}
    assert division.counts()["unused"] == {"all.jsonl": 1}


def test_by_the_published_split(tmp_path: Path):
    examples_file = rows(
        tmp_path, ("a", "data/train-00000-of-00001.parquet"), ("b", "data/test-00000-of-00001.parquet")
    )
    rule = {"by": "published", "train": "train", "test": "test", "validation": {}}
    assert sides(Division(examples_file, Split.read_back(rule))) == ["train", "test"]


def test_nothing_is_left_to_take_a_slice_from(tmp_path: Path):
    examples_file = rows(tmp_path, ("a", "test.jsonl"))
    rule = {"by": "file_name", "train": "none*", "test": "test*", "validation": {"rows": 1}}
    with pytest.raises(StageError):
        Division(examples_file, Split.read_back(rule))


def test_the_columns_that_a_rule_reads():
    def named(**rule):
        return Division.named_columns(Split.read_back({"train": "train", "test": "test", "validation": {}} | rule))

    assert named(**{"by": "column", "column": "fold", "stratify_by": "answer"}) == ["fold"]
    assert named(**{"by": "column", "column": "fold", "stratify_by": "fold"}) == ["fold"]
    assert named(**{"by": "file_name", "stratify_by": "language"}) == ["language"]
    assert named(**{"by": "file_name"}) == []


def test_published_values_pass_over_rows_that_were_dropped(tmp_path: Path):
    directory = source(tmp_path, *({"name": name, "fold": n} for n, name in enumerate("abcd")))
    examples_file = rows(tmp_path, ("b", "all.jsonl"), ("d", "all.jsonl"))
    found = list(published_values(directory, examples_file, "name", ["fold"], {}))
    assert [cells["fold"] for cells in found] == [1, 3]


def test_rows_without_an_id_are_found_by_file_and_number(tmp_path: Path):
    directory = source(tmp_path, {"fold": 7}, {"fold": 8})
    examples_file = rows(tmp_path, ("all-0000001", "all.jsonl"))
    assert [cells["fold"] for cells in published_values(directory, examples_file, None, ["fold"], {})] == [8]


def test_a_row_that_is_not_published_and_a_cell_that_is_empty(tmp_path: Path):
    directory = source(tmp_path, {"name": "a", "fold": None})
    with pytest.raises(StageError, match=r"row z is not found again in the source, so that fold of it is not known"):
        list(published_values(directory, rows(tmp_path, ("z", "all.jsonl")), "name", ["fold"], {}))
    with pytest.raises(StageError, match=r"column 'fold' of row a is empty \(null\)"):
        list(published_values(directory, rows(tmp_path, ("a", "all.jsonl")), "name", ["fold"], {}))
