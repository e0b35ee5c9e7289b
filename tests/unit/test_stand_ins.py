"""Stand-ins have the files, columns and oddities of what they stand in for, and every row of them can be read."""

from pathlib import Path

import pyarrow.parquet
import pytest

from sft.config.source import PACKAGES
from sft.embedded import stand_ins
from sft.sources.source_files import tables

COLUMNS = {
    "robo2vlm": ["id", "question", "choices", "correct_answer", "image"],
    "radiology_mini": ["image", "image_id", "caption", "cui"],
    "mixture_of_thoughts": ["messages", "num_tokens", "source"],
    "capybara": ["source", "messages", "num_turns"],
}


@pytest.mark.parametrize("name", COLUMNS)
def test_tables_have_the_published_columns(tmp_path: Path, name: str) -> None:
    made = stand_ins.publish(name, tmp_path / "files")
    assert sorted(made["rows"]) == tables(tmp_path / "files")
    for file, rows in made["rows"].items():
        table = pyarrow.parquet.read_table(tmp_path / "files" / file)
        assert table.column_names == COLUMNS[name]
        assert table.num_rows == rows


def test_stand_ins_are_the_same_every_time_and_all_can_be_named(tmp_path: Path) -> None:
    assert PACKAGES["snakemake-sft"] == stand_ins.NAMES
    for name in stand_ins.NAMES:
        files = [stand_ins.publish(name, tmp_path / f"{name}{n}")["rows"] for n in range(2)]
        for file in files[0]:
            assert (tmp_path / f"{name}0" / file).read_bytes() == (tmp_path / f"{name}1" / file).read_bytes()
