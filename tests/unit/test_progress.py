"""`sft status`: what a reader is told of a run in each of its states, with and without SLURM.

Tests: sft.cli.status
"""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sft.cli import progress
from sft.runtime import job_queue as queue
from sft.runtime.claim import Claim
from sft_command import ROOT, sft
from whole_manifest import whole

RUN = "tiny-words-full-s0-0a1b2c3d"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    run = Path("results/runs", RUN)
    run.mkdir(parents=True)
    inputs = {"tokens": "results/tokens/words-1", "model": "results/models/tiny-2"}
    (run / "config.json").write_text(json.dumps({"rule": "train_model", "inputs": inputs}))
    return run


def attempt(run: Path, *notes: dict) -> None:
    with (run / "attempts.jsonl").open("a") as file:
        for note in notes:
            file.write(
                json.dumps({"attempt": 1, "started": "2026-01-01T00:00:00+00:00", "from_step": None} | note) + "\n"
            )


def train(run: Path, steps: int, seconds: float = 2.0) -> None:
    with (run / "metrics.jsonl").open("a") as file:
        for step in range(1, steps + 1):
            row = {"step": step, "split": "train", "loss": 3.0 / step, "tokens_per_second": 100.0, "attempt": 1}
            file.write(json.dumps(row | {"time": time.time() - seconds * (steps - step)}) + "\n")
        file.write('{"step": 999, "spl')  # the writer is in the middle of a line


def job(state: str, comment: str = f"rule_train_model_wildcards_{RUN}", reason: str = "Priority") -> queue.QueuedJob:
    return queue.QueuedJob(
        "7", state, reason, "n1" if state == "RUNNING" else "", "sft_x", ".", comment, "0:10", "50:00"
    )


def test_waiting_for_what(run: Path) -> None:
    Path("results/models/tiny-2").mkdir(parents=True)
    Path("results/models/tiny-2/manifest.json").write_text(json.dumps(whole()))
    shown = progress.of_run(run, [])
    assert (shown.state, shown.detail, shown.step, shown.total) == ("waiting", "for its tokens", 0, None)


def test_queued_with_the_reason(run: Path) -> None:
    shown = progress.of_run(run, [job("PENDING")])
    assert (shown.state, shown.detail) == ("queued", "job 7 waits for Priority")
    attempt(run, {"total_steps": 12, "stopped": "SIGTERM", "step": 5})
    assert progress.of_run(run, [job("PENDING", reason="BeginTime")]).detail.endswith("BeginTime, stopped at step 5")


def test_job_of_another_run_is_not_this_ones(run: Path) -> None:
    assert (
        progress.of_run(run, [job("PENDING", comment="rule_train_model_wildcards_tiny-words-full-s0-0a1b2c3dd")]).state
        == "waiting"
    )


def test_running_where_how_far_and_how_long(run: Path) -> None:
    attempt(run, {"total_steps": 20, "node": "n1"})
    train(run, 10)
    with Claim(run, print):
        shown = progress.of_run(run, [job("RUNNING")])
    assert (shown.state, shown.step, shown.total, shown.job, shown.node) == ("running", 10, 20, "7", "n1")
    assert shown.loss == pytest.approx(0.3)
    assert shown.tokens_per_second == 100.0
    assert shown.seconds_left == pytest.approx(20.0, abs=1)  # ten steps of two seconds


def test_failed_with_the_end_of_the_log(run: Path) -> None:
    attempt(run, {"total_steps": 20, "failed": "step 3: the loss is nan", "step": 2})
    (run / "train_model.log").write_text("".join(f"line {n}\n" for n in range(50)) + "error: step 3: the loss is nan\n")
    shown = progress.of_run(run, [])
    assert (shown.state, shown.detail) == ("failed", "step 3: the loss is nan")
    assert shown.log == f"results/runs/{RUN}/train_model.log"
    assert len(shown.log_ends) == 20
    assert shown.log_ends[-1] == "error: step 3: the loss is nan"


def test_killed_without_a_word(run: Path) -> None:
    attempt(run, {"total_steps": 20})
    (run / "checkpoints").mkdir()
    (run / "checkpoints/reached.json").write_text('{"step": 4}')
    shown = progress.of_run(run, [])
    assert shown.state == "killed"
    assert "continues from step 4" in shown.detail


def test_stopped_on_request(run: Path) -> None:
    attempt(run, {"total_steps": 20, "stopped": "time limit", "step": 4})
    assert progress.of_run(run, []).state == "stopped"


def test_queued_in_a_group(run: Path) -> None:
    """Its job has no name but those of what is in it; others of the group are not mistaken for it."""
    members = (f"rule_predict_wildcards_{RUN}_words-test-4d5e6f70", f"rule_train_model_wildcards_{RUN}")
    group = job("PENDING", comment="+".join(members))
    assert progress.of_run(run, [group]).state == "queued"
    assert progress.of_run(run, [group]).detail == "job 7 waits for Priority"
    other = job("PENDING", comment=group.comment.replace(RUN, f"{RUN}0"))
    assert progress.of_run(run, [other]).state == "waiting"
    (run / "manifest.json").write_text(json.dumps(whole()))
    assert progress.of_run(run, [group]).detail == "job 7 (predict, train_model) is PENDING"


def test_after_training(run: Path) -> None:
    attempt(run, {"total_steps": 20, "finished": True})
    (run / "manifest.json").write_text(json.dumps(whole()))
    assert progress.of_run(run, []).state == "trained"
    asked = job("RUNNING", comment=f"rule_predict_wildcards_{RUN}_words-test-4d5e6f70")
    assert progress.of_run(run, [asked]).detail == "job 7 (predict) is RUNNING"
    scores = run / "evaluations/words-test-4d5e6f70/scores"
    scores.mkdir(parents=True)
    (scores / "manifest.json").write_text(json.dumps(whole()))
    assert progress.of_run(run, []).state == "scored"


def test_the_command_prints_a_table_or_json(run: Path) -> None:
    """Without SLURM on PATH, as on a laptop."""
    attempt(run, {"total_steps": 20, "failed": "the disk is full", "step": 2})
    (run / "train_model.log").write_text("error: the disk is full\n")
    train(run, 2)
    table = sft("status", cwd=Path.cwd(), COLUMNS="150")
    assert table.returncode == 0, table.stderr
    assert RUN in table.stdout
    assert "2/20" in table.stdout
    assert "1 runs: 1 failed" in table.stdout
    assert "train_model.log ends:\n    error: the disk is full" in table.stdout
    listed = sft("status", "--json", cwd=Path.cwd())
    assert [(one["run"], one["state"]) for one in json.loads(listed.stdout)] == [(RUN, "failed")]


def test_the_command_says_where_it_looked(tmp_path: Path) -> None:
    done = sft("status", cwd=tmp_path)
    assert done.returncode == 1
    assert "there is no results/runs here" in done.stderr


def test_it_starts_quickly() -> None:
    """It is typed often: nothing of the training stack may be imported."""
    heavy = ("torch", "pandas", "transformers", "numpy", "pydantic")
    program = f"import sys, sft.cli.status; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT / "scripts")
    assert done.stdout.strip() == "[]", done.stderr
