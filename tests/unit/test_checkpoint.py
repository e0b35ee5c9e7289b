"""A checkpoint is whole or it is not read."""

import json
from pathlib import Path

import pytest

from sft.training.checkpoint import MARKER, Checkpoint, Checkpoints

STATE = ("optimizer.pt", "scheduler.pt", "rng_state.pth")


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def checkpoints(tmp_path: Path, said: list[str]) -> Checkpoints:
    return Checkpoints(tmp_path / "checkpoints", said.append)


def save(checkpoints: Checkpoints, step: int) -> Checkpoint:
    with checkpoints.writing(step, lambda: {"weights_digest": f"w{step}", "provenance": {}}) as staging:
        for name in ("model.safetensors", *STATE):
            (staging / name).write_text(f"{name} of step {step}")
    return checkpoints.all()[-1]


def test_saved_checkpoint_is_complete(checkpoints: Checkpoints) -> None:
    saved = save(checkpoints, 3)
    assert (saved.path.name, saved.step, saved.resumable, saved.fault()) == ("checkpoint-3", 3, True, None)
    assert saved.marker["weights_digest"] == "w3"
    assert checkpoints.reached() == 3


def test_failure_while_writing_leaves_no_checkpoint(checkpoints: Checkpoints) -> None:
    save(checkpoints, 3)

    def fail() -> dict:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"), checkpoints.writing(6, fail) as staging:
        (staging / "model.safetensors").write_text("half")
    assert [one.step for one in checkpoints.all()] == [3]
    assert checkpoints.reached() == 3


def test_leftovers_of_a_killed_attempt_are_removed(checkpoints: Checkpoints, said: list[str]) -> None:
    save(checkpoints, 3)
    (checkpoints.directory / ".writing-6").mkdir()
    (checkpoints.directory / ".deleting-1").mkdir()
    checkpoints.clean()
    assert sorted(path.name for path in checkpoints.directory.iterdir()) == ["checkpoint-3", "reached.json"]
    assert len(said) == 2


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (lambda file: file.unlink(), "optimizer.pt is missing"),
        (lambda file: file.write_text(file.read_text()[:-1]), "optimizer.pt has 21 bytes instead of 22"),
        (lambda file: file.write_text(file.read_text()[:-1] + "4"), "sha256 differs"),
    ],
)
def test_damage_is_found(checkpoints: Checkpoints, damage, fault: str) -> None:
    saved = save(checkpoints, 3)
    damage(saved.path / "optimizer.pt")
    assert fault in (saved.fault() or "")


def test_checkpoint_without_marker_is_set_aside(checkpoints: Checkpoints, said: list[str]) -> None:
    save(checkpoints, 3)
    (checkpoints.directory / "checkpoint-3" / MARKER).write_text("{")
    assert checkpoints.all() == []
    assert (checkpoints.directory / "set-aside-3-incomplete").is_dir()
    assert "set-aside-3-incomplete" in said[0]


def test_two_of_the_same_step_can_be_set_aside(checkpoints: Checkpoints) -> None:
    for _ in range(2):
        checkpoints.set_aside(save(checkpoints, 3).path, "broken", "a reason")
    assert {path.name for path in checkpoints.directory.glob("set-aside-*")} == {
        "set-aside-3-broken",
        "set-aside-3-broken-2",
    }


def test_rotation_keeps_what_is_evaluated_and_the_two_newest(checkpoints: Checkpoints) -> None:
    for step in (2, 4, 5, 6, 7):
        save(checkpoints, step)
    checkpoints.rotate(kept=[4, 8], keep_state=False)
    assert {one.step: one.resumable for one in checkpoints.all()} == {4: False, 6: True, 7: True}
    assert all(one.fault() is None for one in checkpoints.all())


def test_rotation_can_keep_the_optimizer(checkpoints: Checkpoints) -> None:
    for step in (4, 6, 7):
        save(checkpoints, step)
    checkpoints.rotate(kept=[4], keep_state=True, newest=0)
    assert {one.step: one.resumable for one in checkpoints.all()} == {4: True}


def test_stripping_changes_the_marker_before_the_files(checkpoints: Checkpoints) -> None:
    saved = save(checkpoints, 3)
    saved.strip()
    assert set(json.loads((saved.path / MARKER).read_text())["files"]) == {"model.safetensors"}
    assert sorted(path.name for path in saved.path.iterdir()) == [MARKER, "model.safetensors"]
    saved.strip()  # again: nothing to do
    assert saved.fault() is None
