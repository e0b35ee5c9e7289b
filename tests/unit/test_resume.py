"""Where a run starts again, and when it refuses to."""

from pathlib import Path
from typing import Any

import pytest

from sft.runtime.stage import StageError
from sft.training.checkpoint import Checkpoints
from sft.training.resume import find_start

OURS = {
    "identity": "i",
    "tokens": "t",
    "model": "m",
    "processor": "p",
    "code": "c",
    "versions": {"torch": "2.13.0"},
}
KEPT, TOTAL = [4, 8, 12], 12


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def checkpoints(tmp_path: Path, said: list[str]) -> Checkpoints:
    return Checkpoints(tmp_path / "checkpoints", said.append)


def save(checkpoints: Checkpoints, step: int, **changes: Any) -> Path:
    with checkpoints.writing(step, lambda: {"weights_digest": "w", "provenance": OURS | changes}) as staging:
        for name in ("model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth"):
            (staging / name).write_text(name)
    return checkpoints.directory / f"checkpoint-{step}"


def start_step(checkpoints: Checkpoints, policy: str = "rerun") -> int:
    return find_start(checkpoints, OURS, policy, KEPT, TOTAL).step


def names(checkpoints: Checkpoints) -> set[str]:
    return {path.name for path in checkpoints.directory.iterdir() if path.is_dir()}


def test_fresh_run_starts_at_the_base(checkpoints: Checkpoints) -> None:
    assert find_start(checkpoints, OURS, "rerun", KEPT, TOTAL).checkpoint is None


def test_newest_complete_one_is_taken(checkpoints: Checkpoints) -> None:
    for step in (4, 6):
        save(checkpoints, step)
    (checkpoints.directory / ".writing-8").mkdir()
    assert start_step(checkpoints) == 6
    assert names(checkpoints) == {"checkpoint-4", "checkpoint-6"}


def test_broken_one_is_set_aside_and_the_one_before_taken(checkpoints: Checkpoints, said: list[str]) -> None:
    save(checkpoints, 4)
    (save(checkpoints, 6) / "optimizer.pt").write_text("")
    assert start_step(checkpoints) == 4
    assert names(checkpoints) == {"checkpoint-4", "set-aside-6-broken"}
    assert "optimizer.pt has 0 bytes" in said[-1]


def test_nothing_usable_left_is_an_error_that_says_how_to_start_over(checkpoints: Checkpoints) -> None:
    (save(checkpoints, 4) / "model.safetensors").write_text("another")
    with pytest.raises(StageError, match=r"reached step 4.*Delete .*checkpoints to start over"):
        start_step(checkpoints)


def test_vanished_checkpoints_are_an_error(checkpoints: Checkpoints) -> None:
    save(checkpoints, 4).rename(checkpoints.directory.parent / "elsewhere")
    with pytest.raises(StageError, match="no complete checkpoint is left"):
        start_step(checkpoints)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"tokens": "x"}, "other-tokens"),
        ({"model": "x"}, "other-model"),
        ({"processor": "x"}, "other-processor"),
        ({"identity": "x"}, "other-config"),
    ],
)
@pytest.mark.parametrize("policy", ["rerun", "warn", "accept"])
def test_foreign_checkpoint_is_never_continued(checkpoints: Checkpoints, changes, reason: str, policy: str) -> None:
    save(checkpoints, 4, **changes)
    assert start_step(checkpoints, policy) == 0
    assert names(checkpoints) == {f"set-aside-4-{reason}"}
    assert start_step(checkpoints, policy) == 0  # and the run may be started again from there


def test_other_packages_stop_the_run_unless_it_may_mix_them(checkpoints: Checkpoints, said: list[str]) -> None:
    save(checkpoints, 4, versions={"torch": "2.12.0"})
    with pytest.raises(StageError, match=r"was made with torch 2.12.0; here are torch 2.13.0.*environment=record"):
        start_step(checkpoints, "accept")
    assert names(checkpoints) == {"checkpoint-4"}  # nothing is lost by the refusal
    assert find_start(checkpoints, OURS, "rerun", KEPT, TOTAL, environment="record").step == 4
    assert said == ["checkpoint-4 was made with torch 2.12.0; continuing with torch 2.13.0"]


def test_other_code_follows_the_policy(checkpoints: Checkpoints, said: list[str]) -> None:
    save(checkpoints, 4, code="older")
    assert start_step(checkpoints, "accept") == 4
    assert not said
    assert start_step(checkpoints, "warn") == 4
    assert "warning" in said[-1]
    assert start_step(checkpoints, "rerun") == 0
    assert names(checkpoints) == {"set-aside-4-other-code"}


def test_finished_run_has_nothing_left_to_train(checkpoints: Checkpoints) -> None:
    for step in KEPT:
        save(checkpoints, step)
    checkpoints.rotate(KEPT, keep_state=False, newest=0)
    assert start_step(checkpoints) == TOTAL


def test_stripped_checkpoint_before_the_end_cannot_be_continued(checkpoints: Checkpoints) -> None:
    for step in KEPT:
        save(checkpoints, step)
    checkpoints.rotate(KEPT, keep_state=False, newest=0)
    (checkpoints.directory / "checkpoint-12" / "model.safetensors").unlink()
    with pytest.raises(StageError, match="start over"):
        start_step(checkpoints)


def test_damaged_kept_checkpoint_is_found_before_training_goes_on(checkpoints: Checkpoints) -> None:
    (save(checkpoints, 4) / "model.safetensors").write_text("other")
    save(checkpoints, 6)
    with pytest.raises(StageError, match="checkpoint-4, which is to be evaluated, is damaged"):
        start_step(checkpoints)
