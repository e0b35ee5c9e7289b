"""Which row belongs to which split: by name, by the hash of its group or id, never by its place.

Tests: sft.config.split_settings, sft.data.split.row_keys, sft.data.split.splitting
"""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from sft.config.dataset import Mix
from sft.config.split_settings import Split, Validation
from sft.data.read import examples
from sft.data.split.division import Division
from sft.data.split.splitting import (
    SPLITS,
    draw_rows,
    draw_slice,
    hash64,
    published_split,
    rows_by_weight,
    split_of_names,
)
from sft.runtime.stage import StageError

FILES = ["data/test-0.parquet", "data/train-0.parquet", "data/train-1.parquet"]
IDS = [f"row-{i}" for i in range(1000)]
BY_FILE = {"by": "file_name", "train": "train*", "test": "test*", "validation": {"fraction": 0.2}}
SLICED = BY_FILE | {"test": {"fraction": 0.2}}


def hashes(units: list[str], purpose: str = "validation") -> np.ndarray:
    return np.array([hash64(purpose, unit) for unit in units], np.uint64)


def by_name(**patterns: Any) -> Split:
    return Split.read_back({"by": "file_name", "validation": {}} | patterns)


def drawn(units: list[str], rule: dict) -> set[str]:
    return {
        unit
        for unit, taken in zip(units, draw_slice(hashes(units), Validation.read_back(rule), "validation"), strict=True)
        if taken
    }


def mixed(ids: list[str], amount: str | float, seed: int = 0) -> set[str]:
    return {name for name, taken in zip(ids, draw_rows(hashes(ids, f"mix-{seed}"), amount), strict=True) if taken}


def example(identifier: str, **changes) -> dict:
    row = dict.fromkeys(examples.SCHEMA.names) | {
        "id": identifier,
        "source_file": "train.jsonl",
        "prompt": f"What is {identifier}?",
        "completion": "It is a row.",
        "choices": [],
        "answer": "",
        "images": [],
    }
    return row | changes


def divided(tmp_path: Path, rows: list[dict], rule: dict, values=None) -> dict[str, str]:
    """`{id: split, or why it is left out}`."""
    examples.write(tmp_path / "examples.parquet", rows)
    sides = Division(tmp_path / "examples.parquet", Split.read_back(rule), values and iter(values)).sides.tolist()
    names = (*SPLITS, "duplicate", "too_long", "too_short", "unused")
    return {row["id"]: names[side] for row, side in zip(rows, sides, strict=True)}


def test_patterns_match_the_name_or_the_whole_path():
    assert list(split_of_names(FILES, by_name(train="train-*", test="test-*")).values()) == [
        "test",
        "train",
        "train",
    ]
    assert split_of_names(FILES, by_name(train="data/train-0*", test="data/test-*"))["data/train-1.parquet"] is None


def test_a_file_in_two_splits_is_refused():
    with pytest.raises(StageError, match=r"train-0\.parquet is in train \(train-\*\) and test \(\*-0\*\)"):
        split_of_names(["train-0.parquet"], by_name(train="train-*", test="*-0*"))


def test_a_pattern_without_files_is_refused():
    with pytest.raises(StageError, match="validation: no file matches 'val-"):
        split_of_names(FILES, by_name(train="train-*", test="test-*", validation={"pattern": "val-*"}))


@pytest.mark.parametrize(
    ("file", "split"),
    [
        ("data/train-00000-of-00005.parquet", "train"),
        ("data/test_sft-00000-of-00001.parquet", "test_sft"),
        ("train.jsonl", "train"),
        ("my_dev_file.csv", "validation"),
        ("validation/part-1.parquet", "validation"),
        ("eval/0.json", "test"),
        ("contest.jsonl", None),  # the word itself, not letters inside another one
        ("notes.jsonl", None),
    ],
)
def test_names_of_files_publish_splits_as_on_the_hub(file, split):
    assert published_split(file) == split


def test_a_file_that_names_two_splits_is_refused():
    with pytest.raises(StageError, match=r"train_test\.csv names train and test; write by: file_name"):
        published_split("train_test.csv")


def test_a_number_of_rows_is_exact():
    assert len(drawn(IDS, {"rows": 200})) == 200


@pytest.mark.parametrize("seed", range(5))
def test_added_rows_move_no_old_ones_under_a_fraction(tmp_path, seed):
    """A property: whatever rows and groups join, and wherever they stand, every old row keeps its split."""
    draw = random.Random(seed)
    old = [example(f"row-{i}", group=draw.choice([None, f"group-{draw.randrange(80)}"])) for i in range(400)]
    new = [example(f"new-{i}", group=draw.choice([None, f"group-{draw.randrange(200)}"])) for i in range(900)]
    rule = SLICED | {"seed": seed}
    before = divided(tmp_path, old, rule)
    together = [*old, *new]
    draw.shuffle(together)
    after = divided(tmp_path, together, rule)
    assert before == {identifier: after[identifier] for identifier in before}
    assert set(before.values()) == set(SPLITS)
    of_group = {}
    for row in together:
        of_group.setdefault(row["group"] or row["id"], set()).add(after[row["id"]])
    assert all(len(splits) == 1 for splits in of_group.values()), "a group is in two splits"


def test_added_rows_only_push_out_the_last_under_a_number():
    before, after = (drawn(ids, {"rows": 100}) for ids in (IDS, [*IDS, "new"]))
    assert len(before - after) <= 1
    assert after - before <= {"new"}


def test_groups_stay_together():
    groups = [f"group-{i // 10}" for i in range(1000)]
    taken = drawn(groups, {"rows": 95})
    assert sum(group in taken for group in groups) == 100


def test_slices_of_a_seed_are_others_and_disjoint(tmp_path):
    rows = [example(identifier) for identifier in IDS]
    first, second = (divided(tmp_path, rows, SLICED | {"seed": seed}) for seed in (0, 1))
    assert first != second
    for made in (first, second):
        counts = {split: list(made.values()).count(split) for split in SPLITS}
        assert sum(counts.values()) == 1000
        assert 150 < counts["test"] < 250
        # A fifth of the four fifths that are left to train on.
        assert 110 < counts["validation"] < 210


def test_strata_keep_their_shares(tmp_path):
    rows = [example(identifier, answer="A" if i % 10 else "B") for i, identifier in enumerate(IDS)]
    rule = BY_FILE | {"test": {"rows": 200}, "validation": {"fraction": 0.1}, "stratify_by": "answer"}
    made = divided(tmp_path, rows, rule)
    shares = {
        split: sum(made[row["id"]] == split and row["answer"] == "B" for row in rows) / list(made.values()).count(split)
        for split in SPLITS
    }
    assert shares == {"train": 0.1, "validation": 0.1, "test": 0.1}
    by_column = divided(
        tmp_path, rows, rule | {"stratify_by": "kind"}, [{"kind": "ab"[row["answer"] == "A"]} for row in rows]
    )
    assert by_column == made


def test_a_group_of_two_strata_is_refused(tmp_path):
    rows = [example(f"row-{i}", answer="AB"[i % 2], group=f"group-{i // 2}") for i in range(100)]
    with pytest.raises(StageError, match=r"rows of group group-0 differ in answer.*Remove stratify_by"):
        divided(tmp_path, rows, SLICED | {"stratify_by": "answer"})
    with pytest.raises(StageError, match="row row-0 has no choices; name a published column"):
        divided(tmp_path, [row | {"answer": ""} for row in rows], SLICED | {"stratify_by": "answer"})


def test_a_column_names_splits(tmp_path):
    rows = [example(identifier) for identifier in IDS[:40]]
    values = [{"fold": "held_out" if i % 4 == 0 else "learn"} for i in range(40)]
    rule = {"by": "column", "column": "fold", "train": "learn", "test": "held_out", "validation": {"rows": 5}}
    made = divided(tmp_path, rows, rule, values)
    assert {split: list(made.values()).count(split) for split in SPLITS} == {"train": 25, "validation": 5, "test": 10}
    with pytest.raises(StageError, match=r"split\.test: no value of fold matches 'eval'; the value of folds are held"):
        divided(tmp_path, rows, rule | {"test": "eval"}, values)


def test_duplicates_and_lengths_are_left_out_before_slices_are_taken(tmp_path):
    rows = [example(identifier) for identifier in IDS]
    copies = [row | {"id": f"copy-{row['id']}", "source_file": "train-2.jsonl"} for row in rows[:50]]
    shouted = [row | {"id": f"loud-{row['id']}", "prompt": row["prompt"].upper()} for row in rows[:30]]
    short, long = example("short", prompt="x", completion="y"), example("long", prompt="x" * 500)
    everything = [*rows, *copies, *shouted, short, long]
    limits = {"minimum_characters": 10, "maximum_characters": 400}
    exact = divided(tmp_path, everything, SLICED | {"deduplicate": "exact"} | limits)
    assert [name for name, side in exact.items() if side == "duplicate"] == [row["id"] for row in copies]
    assert (exact["short"], exact["long"]) == ("too_short", "too_long")
    normalised = divided(tmp_path, everything, SLICED | {"deduplicate": "normalised"})
    assert [name for name, side in normalised.items() if side == "duplicate"] == [r["id"] for r in (*copies, *shouted)]
    made = Division(tmp_path / "examples.parquet", Split.read_back(SLICED | {"deduplicate": "normalised"})).counts()
    assert made["duplicate"] == {"train-2.jsonl": 50, "train.jsonl": 30}
    # What is left out changes no other row's side.
    plain = divided(tmp_path, rows, SLICED)
    assert plain == {row["id"]: exact[row["id"]] for row in rows}


def test_a_row_that_answers_otherwise_is_no_duplicate(tmp_path):
    rows = [example("a", prompt="Is it?", completion="Yes."), example("b", prompt="Is it?", completion="No.")]
    many = [*rows, *map(example, IDS)]
    assert "duplicate" not in divided(tmp_path, many, SLICED | {"deduplicate": "exact"}).values()


@pytest.mark.parametrize("rule", [{"rows": 1000}, {"rows": 2000}, {"fraction": 1e-9}])
def test_a_validation_split_that_leaves_nothing_is_refused(rule):
    with pytest.raises(StageError, match="validation"):
        drawn(IDS, rule)


def test_the_draw_is_the_same_on_every_machine():
    # Made by this code, schema 1: a change of these moves rows in everybody's experiments.
    assert sorted(drawn(IDS[:20], {"rows": 3})) == ["row-0", "row-13", "row-17"]
    assert sorted(mixed(IDS[:20], 3)) == ["row-12", "row-14", "row-6"]


def test_a_larger_mix_contains_the_smaller():
    assert mixed(IDS, 100, seed=1) < mixed(IDS, 300, seed=1)
    assert mixed(IDS, 0.1, seed=1) < mixed(IDS, 0.3, seed=1) < mixed(IDS, "all")
    assert mixed(IDS, 100, seed=1) != mixed(IDS, 100, seed=2)
    assert 250 < len(mixed(IDS, 0.3)) < 350


def test_a_mix_larger_than_its_part_is_refused():
    with pytest.raises(StageError, match="1001 rows wanted, 1000 training rows there"):
        mixed(IDS, 1001)


def test_weights_make_the_rows_that_were_asked_for():
    assert rows_by_weight([3, 1], 100) == [75, 25]
    assert rows_by_weight([1, 1, 1], 100) == [34, 33, 33]
    assert rows_by_weight([0.7, 0.2, 0.1], 1000) == [700, 200, 100]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"mix": {"a": 1.5}}, "1.5 is no share"),
        ({"mix": {"a": 0}}, "0 is not positive"),
        ({"mix": {"a": "all"}, "rows": 10}, "all is no weight"),
    ],
)
def test_amounts_of_a_mix_are_checked(wrong, words):
    with pytest.raises(ValidationError, match=words):
        Mix(**wrong)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"by": "column"}, "Name the column"),
        ({"column": "fold"}, "Write by: column"),
        ({"test": {"rows": 3, "fraction": 0.1}}, "rows and fraction given"),
        ({"minimum_characters": 9, "maximum_characters": 3}, "Swap them"),
    ],
)
def test_a_split_is_checked(wrong, words):
    with pytest.raises(ValidationError) as error:
        Split(**{"validation": {"rows": 3}} | wrong)
    assert words in str(error.value) or words in error.value.errors()[0]["ctx"]["error"].fix


def test_published_splits_have_their_own_default_names():
    assert (Split(validation={"rows": 3}).train, Split(by="published", validation={"rows": 3}).train) == (
        "train-*",
        "train",
    )


def test_validation_rows_may_come_out_of_test_and_leave_train_as_it_is(tmp_path):
    rows = [example(f"r{n}", source_file="test.parquet" if n < 10 else "train.parquet") for n in range(40)]
    rule = {"by": "file_name", "train": "train*", "test": "test*", "validation": {"rows": 4, "of": "test"}}
    sides = divided(tmp_path, rows, rule)
    assert {name for name, side in sides.items() if side == "train"} == {f"r{n}" for n in range(10, 40)}
    assert sorted(sides.values()).count("validation") == 4
    assert sorted(sides.values()).count("test") == 6
    with pytest.raises(StageError, match="10 of 10 test rows leave none"):
        divided(tmp_path, rows, rule | {"validation": {"rows": 10, "of": "test"}})
    with pytest.raises(ValueError, match="has no effect with pattern"):
        Split(validation={"pattern": "dev*", "of": "test"})
