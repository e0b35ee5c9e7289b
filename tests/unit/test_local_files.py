"""Files of a user that a result was made from: how they are recorded, and what counts as a change."""

import os
from pathlib import Path

import pytest

from sft.sources import local_files


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "work/data").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "work")
    for name in ("b", "a"):
        Path(f"data/{name}").write_text(name)
    return tmp_path


def test_names_inside_are_relative_and_others_absolute(here: Path):
    (here / "elsewhere").write_text("x")
    described = local_files.describe([here / "elsewhere", Path("data/b").absolute(), Path("data/a")])
    assert list(described) == sorted([(here / "elsewhere").as_posix(), "data/a", "data/b"])
    assert described["data/a"]["bytes"] == 1
    assert described["data/a"]["sha256"] == "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"


def test_a_directory_is_its_files_and_not_those_below():
    Path("data/below").mkdir()
    Path("data/below/c").write_text("c")
    assert list(local_files.describe_directory(Path("data"))) == ["data/a", "data/b"]


def test_what_is_a_change_and_what_is_none():
    expected = local_files.describe([Path("data/a")])["data/a"]
    assert local_files.change("data/a", expected) == ""
    os.utime("data/a", (1, 1))
    assert local_files.change("data/a", expected) == "", "a touch"
    Path("data/a").write_text("b")
    assert local_files.change("data/a", expected) == "its source data/a has other bytes now", "of the same size"
    Path("data/a").write_text("aa")
    assert local_files.change("data/a", expected) == "its source data/a has other bytes now"
    Path("data/a").unlink()
    assert local_files.change("data/a", expected) == "its source data/a is gone"


def test_a_file_with_the_size_and_time_that_were_recorded_is_not_read_again():
    """What the time is for: a source of hundreds of GB is not read at each dry run."""
    expected = local_files.describe([Path("data/a")])["data/a"]
    Path("data/a").write_text("b")
    os.utime("data/a", ns=(expected["mtime_ns"], expected["mtime_ns"]))
    assert local_files.change("data/a", expected) == ""


def test_a_file_is_shown_without_a_copy():
    local_files.place(Path("data/a"), Path("shown"))
    assert Path("shown").samefile("data/a")
    assert not Path("shown").is_symlink()


def test_a_link_is_followed_to_the_file_that_it_means():
    Path("link").symlink_to("data/a")
    local_files.place(Path("link"), Path("shown"))
    assert not Path("shown").is_symlink()
    assert Path("shown").samefile("data/a")


def test_across_file_systems_it_is_a_symbolic_link(small_disk: Path):
    local_files.place(Path("data/a"), small_disk / "shown")
    assert (small_disk / "shown").is_symlink()
    assert (small_disk / "shown").read_text() == "a"
