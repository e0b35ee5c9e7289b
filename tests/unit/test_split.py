"""Which row belongs to which split: by file, by the hash of its group or id, never by its place."""

import pytest

from sft.data.splitting import draw_rows, draw_validation, split_of_files
from sft.stage import StageError

FILES = ["data/test-0.parquet", "data/train-0.parquet", "data/train-1.parquet"]
IDS = [f"row-{i}" for i in range(1000)]


def test_patterns_match_the_name_or_the_whole_path():
    assert list(split_of_files(FILES, {"train": "train-*", "test": "test-*"}).values()) == ["test", "train", "train"]
    assert split_of_files(FILES, {"train": "data/train-0*", "test": "data/test-*"})["data/train-1.parquet"] is None


def test_a_file_in_two_splits_is_refused():
    with pytest.raises(StageError, match=r"train-0\.parquet is in train \(train-\*\) and test \(\*-0\*\)"):
        split_of_files(["train-0.parquet"], {"train": "train-*", "test": "*-0*"})


def test_a_pattern_without_files_is_refused():
    with pytest.raises(StageError, match="validation: no file matches 'val-"):
        split_of_files(FILES, {"train": "train-*", "test": "test-*", "validation": {"pattern": "val-*"}})


def test_a_number_of_rows_is_exact():
    assert len(draw_validation(IDS, {"rows": 200})) == 200


def test_added_rows_move_no_old_ones_under_a_fraction():
    before = draw_validation(IDS, {"fraction": 0.1})
    after = draw_validation([*(f"new-{i}" for i in range(5000)), *reversed(IDS)], {"fraction": 0.1})
    assert before == {identifier for identifier in after if identifier.startswith("row-")}
    assert 60 < len(before) < 140


def test_added_rows_only_push_out_the_last_under_a_number():
    before, after = (draw_validation(ids, {"rows": 100}) for ids in (IDS, [*IDS, "new"]))
    assert len(before - after) <= 1
    assert after - before <= {"new"}


def test_groups_stay_together():
    groups = [f"group-{i // 10}" for i in range(1000)]
    drawn = draw_validation(groups, {"rows": 95})
    assert sum(group in drawn for group in groups) == 100


@pytest.mark.parametrize("rule", [{"rows": 1000}, {"rows": 2000}, {"fraction": 0.0}, {"fraction": 1.0}])
def test_a_validation_split_that_leaves_nothing_is_refused(rule):
    with pytest.raises(StageError, match="validation"):
        draw_validation(IDS, rule)


def test_the_draw_is_the_same_on_every_machine():
    # Made by this code, schema 1: a change of these moves rows in everybody's experiments.
    assert sorted(draw_validation(IDS[:20], {"rows": 3})) == ["row-0", "row-13", "row-17"]
    assert sorted(draw_rows(IDS[:20], 3, seed=0)) == ["row-12", "row-14", "row-6"]


def test_a_larger_mix_contains_the_smaller():
    assert draw_rows(IDS, 100, seed=1) < draw_rows(IDS, 300, seed=1)
    assert draw_rows(IDS, 100, seed=1) != draw_rows(IDS, 100, seed=2)


def test_a_mix_larger_than_its_part_is_refused():
    with pytest.raises(StageError, match="1001 rows wanted, 1000 training rows there"):
        draw_rows(IDS, 1001, seed=0)
