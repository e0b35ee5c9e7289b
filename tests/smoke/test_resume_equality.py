"""A run that was stopped, however often and wherever, is the run that was not, bit for bit.

Tests: sft.training.random_state, sft.training.saving, sft.training.trainer
"""

import json
import shutil
import signal
import time
from pathlib import Path

import pytest
import training_nodes as runs

from sft.runtime import attempts

pytestmark = pytest.mark.slow
KEEP = "--keep-optimizer"


@pytest.mark.parametrize(
    ("kind", "method", "options"),
    [
        ("text", "full", ()),
        ("text", "lora", ("--micro-batch-size", "2")),
        ("vision", "full", ("--micro-batch-size", "2")),
        ("vision", "lora", ()),
    ],
)
def test_killed_three_times_equals_uninterrupted(
    nodes, tmp_path: Path, kind: str, method: str, options: tuple[str, ...]
) -> None:
    whole = runs.write_run(tmp_path / "whole", nodes[kind], method, logging_steps=3)
    parts = runs.write_run(tmp_path / "parts", nodes[kind], method, logging_steps=3)
    runs.train_well(whole, KEEP, *options)
    for saved, step in ((4, 3), (4, 6), (8, 9)):
        # Killed in a step that the next attempt has to repeat. With micro batches of 2 rows a step is four of them,
        # so most moments lie inside an accumulation window; rows are logged every 3 steps, so kills cut logging
        # windows too.
        child = runs.Child(parts, KEEP, *options)
        child.wait_for(saved, step)
        time.sleep(0.03)
        assert child.kill() == -signal.SIGKILL, runs.log(parts)
    runs.train_well(parts, KEEP, *options)
    runs.assert_same(whole, parts)
    told = runs.attempts(parts)
    assert [attempt["from_step"] for attempt in told] == [None, 4, 4, 8]
    assert told[-1]["replayed"] == told[-1]["replayed_equal"]


def test_stopped_by_sigterm_saves_and_continues(text_nodes, tmp_path: Path) -> None:
    # An evaluation is due after every step: the one of the last step before the stop is made up for on resume.
    settings = {"save_steps": None, "eval_steps": 1}
    whole = runs.train_well(runs.write_run(tmp_path / "whole", text_nodes, **settings), KEEP)
    run = runs.write_run(tmp_path / "run", text_nodes, **settings)
    child = runs.Child(run, KEEP)
    child.wait_for(step=4)
    child.signal(signal.SIGTERM)
    assert child.wait() == 75, runs.log(run)
    stopped = runs.last_step(run)
    assert runs.saved_steps(run) == [stopped]
    assert stopped < 12
    assert [row["step"] for row in runs.rows(run) if row["split"] == "validation"][-1] == stopped - 1
    assert not (run / "manifest.json").exists()
    assert not list(run.glob(".attempt-*"))
    runs.train_well(run, KEEP)
    assert json.loads((run / "manifest.json").read_text())["facts"]["resumed"] == [stopped]
    runs.assert_same(whole, run)


def test_second_sigterm_while_saving_does_not_break_the_checkpoint(text_nodes, tmp_path: Path) -> None:
    run = runs.write_run(tmp_path / "run", text_nodes, save_steps=None)
    child = runs.Child(run)
    child.wait_for(step=2)
    child.signal(signal.SIGTERM)
    deadline = time.monotonic() + 60
    while child.poll() is None and time.monotonic() < deadline:
        if list(run.glob("checkpoints/.writing-*")):
            child.signal(signal.SIGTERM)
    assert child.wait() == 75, runs.log(run)
    assert len(runs.saved_steps(run)) == 1
    runs.train_well(run)


def test_sigterm_before_training_leaves_at_once(text_nodes, tmp_path: Path) -> None:
    run = runs.write_run(tmp_path / "run", text_nodes)
    child = runs.Child(run)
    child.wait_until(lambda: (run / "attempts.jsonl").exists())
    child.signal(signal.SIGTERM)
    assert child.wait() == 75, runs.log(run)
    assert runs.saved_steps(run) == []
    assert not list(run.glob(".attempt-*"))
    told = attempts.read(run)
    assert [(attempt["stopped"], attempt["step"]) for attempt in told] == [("SIGTERM", 0)]
    assert "stopped on request (SIGTERM) after step 0 of 12" in runs.log(run)


def test_checkpoints_by_time_change_nothing(text_nodes, tmp_path: Path) -> None:
    whole = runs.train_well(runs.write_run(tmp_path / "whole", text_nodes, "lora"), KEEP)
    often = runs.train_well(runs.write_run(tmp_path / "often", text_nodes, "lora"), KEEP, "--checkpoint-minutes", "0")
    runs.assert_same(whole, often)
    assert runs.saved_steps(often) == [4, 8, 12]


def test_finished_run_is_written_again_without_training(text_nodes, tmp_path: Path) -> None:
    run = runs.train_well(runs.write_run(tmp_path / "run", text_nodes))
    made = {path.name: path.read_bytes() for path in run.iterdir() if path.suffix in (".parquet", ".safetensors")}
    (run / "manifest.json").unlink()
    runs.train_well(run)
    assert "all 12 steps are trained" in runs.log(run)
    assert made == {name: (run / name).read_bytes() for name in made}


def test_random_states_of_other_ranks_give_way_to_ones_of_seed_and_step(text_nodes, tmp_path: Path) -> None:
    """Dropout draws in every step, so what it drew is seen in the losses after the checkpoint, not before."""
    saved = runs.write_run(tmp_path / "saved", text_nodes, "lora")
    assert runs.train(saved, patch=runs.killed_after(4)) == -signal.SIGKILL, runs.log(saved)
    losses = {}
    for name, ranks in (("same", 1), ("other", 2), ("again", 2)):
        run = shutil.copytree(saved, tmp_path / name)
        marker = run / "checkpoints/checkpoint-4/complete.json"
        marker.write_text(json.dumps(json.loads(marker.read_text()) | {"world_size": ranks}))
        losses[name] = [row["loss"] for row in runs.rows(runs.train_well(run)) if row["split"] == "train"]
    assert losses["same"][:4] == losses["other"][:4]
    assert losses["same"][4:] != losses["other"][4:] == losses["again"][4:]


# The faults that must not pass


def _load_the_base_instead() -> None:
    from sft.models.loading import load_model
    from sft.models.model_directory import model_directory
    from sft.training import run_setup

    run_setup.load_start = lambda run, *_: (load_model(model_directory(run.stage.input("model"))), {})


def _let_transformers_load() -> None:
    from transformers import Trainer

    from sft.training.trainer import RunTrainer

    _load_the_base_instead()
    RunTrainer._load_from_checkpoint = Trainer._load_from_checkpoint


@pytest.mark.parametrize("fault", [_load_the_base_instead, _let_transformers_load])
def test_resume_with_other_weights_is_stopped(vision_nodes, tmp_path: Path, fault) -> None:
    """Without our loading, transformers 5.23 goes on from the base weights of a fully trained Qwen2.5-VL."""
    run = runs.write_run(tmp_path / "run", vision_nodes)
    child = runs.Child(run)
    child.wait_for(saved=4)
    child.kill()
    assert runs.train(run, patch=fault) == 1
    assert "the weights in memory" in runs.log(run)
    assert "are not those that were saved" in runs.log(run)
    assert not (run / "manifest.json").exists()


def test_broken_checkpoint_is_passed_over_and_the_result_the_same(text_nodes, tmp_path: Path) -> None:
    whole = runs.train_well(runs.write_run(tmp_path / "whole", text_nodes), KEEP)
    run = runs.write_run(tmp_path / "run", text_nodes)
    child = runs.Child(run, KEEP)
    child.wait_for(saved=8)
    child.kill()
    with (run / "checkpoints" / "checkpoint-8" / "optimizer.pt").open("rb+") as file:
        file.truncate(1000)
    runs.train_well(run, KEEP)
    assert "set aside checkpoint-8 as set-aside-8-broken: optimizer.pt has 1000 bytes" in runs.log(run)
    runs.assert_same(whole, run)


def _other_code() -> None:
    from sft.training import resume

    resume.code_digest = lambda rule: "0" * 64


@pytest.mark.parametrize("policy", ["rerun", "accept"])
def test_checkpoint_of_other_code(text_nodes, tmp_path: Path, policy: str) -> None:
    run = runs.write_run(tmp_path / "run", text_nodes)
    child = runs.Child(run, patch=_other_code)
    child.wait_for(saved=4)
    child.kill()
    runs.train_well(run, "--code-policy", policy)
    facts = json.loads((run / "manifest.json").read_text())["facts"]
    if policy == "rerun":
        assert "was made by another version of our code" in runs.log(run)
        assert facts["mixed"] is None
        assert facts["resumed"] == []
    else:
        assert [(part["from_step"], part["code"] == "0" * 64) for part in facts["mixed"]] == [
            (0, True),
            (facts["resumed"][0], False),
        ]
