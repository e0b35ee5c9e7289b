"""Which attempts a result took: what its manifest tells of memory, restarts and costs."""

from argparse import Namespace
from pathlib import Path

from sft.runtime import attempts

OPTIONS = Namespace(threads=1, micro_batch_size=0, strategy="none", processes=1, nodes=1)


def row(attempt: int, step: int) -> dict:
    return {"attempt": attempt, "step": step, "split": "train", "time": 2e9}


def test_an_attempt_that_failed_before_its_first_checkpoint_counts(tmp_path: Path) -> None:
    """It is the one that tells what memory was too little; its rows were deleted by the attempt that started over."""
    attempts.begin(tmp_path, None, 12, OPTIONS)
    attempts.begin(tmp_path, None, 12, OPTIONS)
    attempts.note(tmp_path, 2, {"stopped": "SIGTERM", "step": 4})
    attempts.begin(tmp_path, 4, 12, OPTIONS)
    told = attempts.counted(tmp_path, [row(2, 4), row(3, 5), row(3, 6)])
    assert [(one["from_step"], one["steps_trained"]) for one in told] == [(None, 0), (None, 1), (4, 2)]
    assert told[0]["wall_seconds"] == 0 < told[1]["wall_seconds"]


def test_a_finished_result_that_is_made_again_starts_to_count_anew(tmp_path: Path) -> None:
    attempts.begin(tmp_path, None, 12, OPTIONS)
    attempts.note(tmp_path, 1, {"finished": True})
    attempts.begin(tmp_path, 12, 12, OPTIONS)  # the manifest of the first was lost
    attempts.note(tmp_path, 2, {"finished": True})
    attempts.begin(tmp_path, None, 12, OPTIONS)
    attempts.begin(tmp_path, 4, 12, OPTIONS)
    assert [one["attempt"] for one in attempts.counted(tmp_path, [])] == [3, 4]
