"""What the process that holds a run and its ranks tell each other through files."""

import argparse
import os
from pathlib import Path

import pytest

from sft.runtime.stage import StageError
from sft.training.ranks_plan import RanksPlan


@pytest.fixture
def plan(tmp_path: Path) -> RanksPlan:
    made = RanksPlan(tmp_path / "ranks")
    options = argparse.Namespace(directory=Path("results/runs/a"), threads=2, strategy="ddp")
    path = made.write(Path("results/runs/a"), options, {"total_steps": 9, "start": None})
    assert path == tmp_path / "ranks/plan.json"
    return made


def test_a_rank_reads_what_was_written(plan: RanksPlan):
    told = RanksPlan(plan.folder).read()
    assert (told["run"], told["total_steps"], told["start"]) == ("results/runs/a", 9, None)
    assert told["options"].directory == Path("results/runs/a")
    assert (told["options"].threads, told["options"].strategy) == (2, "ddp")


def test_a_folder_is_of_one_launch(plan: RanksPlan):
    with pytest.raises(FileExistsError):
        plan.write(Path("a"), argparse.Namespace(directory=Path("a")), {})


def test_notes_are_seen_by_the_others(plan: RanksPlan):
    other = RanksPlan(plan.folder)
    assert (other.stop_is_asked, other.is_training, other.outcome(), other.errors()) == (False, False, None, [])
    plan.ask_to_stop()
    plan.note_training()
    plan.finish({"step": 9})
    assert (other.stop_is_asked, other.is_training, other.outcome()) == (True, True, {"step": 9})


def fail(plan: RanksPlan, *errors: tuple[str, str]) -> str:
    """The message when ranks failed one after the other, the last one first by its number."""
    for age, (message, kind) in enumerate(errors):
        rank = len(errors) - age
        plan.fail(rank, message, kind)
        os.utime(plan.folder / f"error-{rank}.json", (age, age))
    with pytest.raises(StageError) as caught:
        plan.raise_error(1)
    return str(caught.value)


def test_the_first_failure_counts_since_it_made_the_others(plan: RanksPlan):
    assert fail(plan, ("the disk is full", "stage"), ("process 1: connection closed", "fault")) == "the disk is full"


def test_ranks_that_fail_for_reasons_of_their_own_are_all_told_once(plan: RanksPlan):
    said = fail(plan, ("row 1 is too long", "stage"), ("row 2 is too long", "stage"), ("row 1 is too long", "stage"))
    assert said == "row 1 is too long\nrow 2 is too long"


def test_of_faults_only_the_first_is_told(plan: RanksPlan):
    assert fail(plan, ("process 2: KeyError", "fault"), ("process 1: RuntimeError", "fault")) == "process 2: KeyError"


def test_ranks_that_say_nothing_were_killed(plan: RanksPlan):
    assert "(exit code 1) and gave no reason" in fail(plan)
