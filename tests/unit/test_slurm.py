"""The parts of sft.slurm that need no cluster: what is read from SLURM's answers, and what follows from them.

Tests: sft.runtime.job_comments, sft.runtime.time_limit, sft.slurm.executor, sft.slurm.leftovers, sft.slurm.memory,
sft.slurm.retries
"""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from sft.runtime import job
from sft.runtime import job_comments as comments
from sft.runtime import job_queue as queue
from sft.runtime.stage import StageError
from sft.runtime.time_limit import TimeLimit
from sft.slurm import executor, leftovers, memory, retries
from sft.training.ranks_plan import RanksPlan
from whole_manifest import whole

OOM = (
    "slurmstepd-n1: error: Detected 1 oom-kill event(s) in StepId=1.1. Some of your processes may have been killed by "
    "the cgroup out-of-memory handler.\nsrun: error: n1: task 0: Out Of Memory\n"
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("3:00", 180), ("0:07", 7), ("1:02:03", 3723), ("2-01:02:03", 176523), ("UNLIMITED", None), ("INVALID", None)],
)
def test_times_of_squeue(text: str, seconds: float | None) -> None:
    assert job.duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "size"), [("2000M", 2000), ("1.50G", 1536), ("0", None), ("2T", 2**21), ("N/A", None)]
)
def test_sizes_of_squeue(text: str, size: int | None) -> None:
    assert job.mebibytes(text) == size


def test_no_job_around_this_process(monkeypatch) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert job.current() is None
    assert job.facts() == {}
    assert job.come_again(print) is False


@pytest.mark.parametrize(
    ("comment", "state", "again"),
    [
        ("rule_train_model_wildcards_mine", "RUNNING", True),
        ("rule_train_model_wildcards_mine", "PREEMPTED", True),
        ("rule_train_model_wildcards_mine", "CANCELLED", False),
        ("(null)", "RUNNING", False),  # Snakemake with --cores inside somebody's own job: not ours to start again
    ],
)
def test_only_a_running_job_of_snakemake_is_queued_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, comment: str, state: str, again: bool
) -> None:
    answer = f'case "$*" in *RestartCnt*) echo "0 2000M 3:00 {comment}";; *) echo {state};; esac'
    for name, script in (("squeue", answer), ("scontrol", f'echo "$*" > {tmp_path}/asked')):
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    job._details.cache_clear()
    assert job.come_again(print) is again
    assert (tmp_path / "asked").exists() is again
    job._details.cache_clear()


def test_memory_doubles_only_after_it_ran_out(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert memory.asked(log, 2000, 2) == 2000
    log.write_text("error: a typing error\n")
    assert memory.asked(log, 2000, 2) == 2000
    log.write_text(OOM)
    assert [memory.asked(log, 2000, attempt) for attempt in (1, 2, 3)] == [2000, 4000, 8000]


def test_memory_that_ran_out_in_an_earlier_attempt_does_not_count(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(OOM + "12:00:00 continuing from step 5 of 9\nerror: the disk is full\n")
    assert memory.ran_out(log) is False


def test_a_process_that_was_killed_by_somebody_had_memory_enough(tmp_path: Path) -> None:
    plan = RanksPlan(tmp_path / "ranks")
    plan.folder.mkdir()
    with pytest.raises(StageError) as error:
        plan.raise_error(1)
    log = tmp_path / "log"
    log.write_text(f"error: {error.value}\n")
    assert memory.ran_out(log) is False


# When to stop before the time limit


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def stops_at(left: float | None, step: float, save: float = 0.0, saves_at: int = 0) -> float | None:
    """When a run of equal steps stops by itself; None: not within 10,000 s."""
    clock = Clock()
    limit = TimeLimit(left, clock)
    clock.now = 20.0  # libraries are imported, the model is loaded
    limit.begin()
    for number in range(1, int(10_000 / step)):
        clock.now += step
        if limit.is_near():
            return clock.now
        if saves_at and number == saves_at:
            clock.now += save
            limit.saved(save)
    return None


def test_without_a_limit_it_goes_on() -> None:
    assert stops_at(None, step=10) is None


def test_there_is_time_for_a_step_and_two_checkpoints() -> None:
    stopped = stops_at(3600, step=10, save=100, saves_at=5)
    assert 3600 - stopped >= 200 + 15  # twice the checkpoint, and the spare
    assert 3600 - stopped <= 200 + 15 + 2 * 110  # and not much earlier (a step with a save in it is the longest)


def test_before_the_first_checkpoint_a_tenth_is_kept_free() -> None:
    stopped = stops_at(3600, step=10)
    assert 360 <= 3600 - stopped <= 360 + 15 + 20
    assert TimeLimit(24 * 3600, Clock()).margin == 15 + 600


def test_every_attempt_takes_a_step_however_little_time_is_left() -> None:
    assert stops_at(1, step=10) == 30.0


# What a failure means for the retries


def failed_job(run: Path, log: Path | None = None, reached: int = 0) -> SimpleNamespace:
    return SimpleNamespace(
        is_group=lambda: False,
        output=[f"{run}/manifest.json", f"{run}/metrics.parquet"],
        log=[str(log)] if log else [],
        reached_at_start={Path("results/runs", run.name): reached},
    )


def failed_group(*jobs: SimpleNamespace) -> SimpleNamespace:
    predict = SimpleNamespace(output=["results/runs/x/evaluations/y/manifest.json"], log=[])
    before = {run: step for job in jobs for run, step in job.reached_at_start.items()}
    return SimpleNamespace(is_group=lambda: True, jobs=[*jobs, predict], reached_at_start=before)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    run = Path("results/runs/mine-0a1b2c3d")
    (run / "checkpoints").mkdir(parents=True)
    return run


def write_attempts(run: Path, *ends: dict, minutes: int = 1) -> datetime:
    """Attempts that began a minute apart, the first `minutes` after the head; returns when the head began."""
    head = datetime(2026, 1, 1, tzinfo=UTC)
    with (run / "attempts.jsonl").open("w") as file:
        for number, end in enumerate(ends, 1):
            started = (head + timedelta(minutes=minutes + number)).isoformat(timespec="seconds")
            file.write(json.dumps({"attempt": number, "started": started, "from_step": None} | end) + "\n")
    return head


@pytest.mark.parametrize("reasons", [("loss is nan", "loss is nan"), ("full, 3 MiB free", "full, 12 MiB free")])
def test_twice_the_same_failure_is_the_last(run: Path, reasons: tuple[str, str]) -> None:
    head = write_attempts(run, *({"failed": reason, "step": 7} for reason in reasons))
    verdict = retries.judge(failed_job(run), head)
    assert verdict.last
    assert f"failed twice at step 7 and is not tried again: {reasons[1]}" in verdict.words


@pytest.mark.parametrize(
    "ends",
    [
        [{"failed": "loss is nan", "step": 7}],
        [{"failed": "loss is nan", "step": 7}, {"failed": "loss is nan", "step": 8}],
        [{"failed": "loss is nan", "step": 7}, {"failed": "no space", "step": 7}],
        [{"failed": "loss is nan", "step": 7}, {}],  # killed: a node, not the run
    ],
)
def test_other_failures_are_tried_again(run: Path, ends: list[dict]) -> None:
    assert not retries.judge(failed_job(run), write_attempts(run, *ends)).last


def test_failures_of_an_earlier_snakemake_are_forgiven(run: Path) -> None:
    """Somebody has mended the cause meanwhile, or so they believe."""
    head = write_attempts(run, {"failed": "no space", "step": 7}, {"failed": "no space", "step": 7}, minutes=-30)
    assert not retries.judge(failed_job(run), head).last


def test_a_run_of_a_module_with_a_prefix_is_judged_too(run: Path) -> None:
    """An outer workflow gives the rule another name, and its results another folder."""
    there = Path("their models/results/runs", run.name)
    run.parent.rename(run.parent.with_name("moved"))
    there.parent.parent.mkdir(parents=True)
    run.parent.with_name("moved").rename(there.parent)
    head = write_attempts(there, *2 * [{"failed": "loss is nan", "step": 7}])
    assert retries.judge(failed_job(there), head).last


def test_progress_makes_a_retry_free(run: Path) -> None:
    head = write_attempts(run, {}, {})
    assert not retries.judge(failed_job(run, reached=5), head).free
    (run / "checkpoints/reached.json").write_text('{"step": 9}')
    verdict = retries.judge(failed_job(run, reached=5), head)
    assert verdict.free
    assert "from step 5 to step 9" in verdict.words
    assert not retries.judge(failed_job(run, reached=9), head).free


def test_memory_that_ran_out_is_no_free_retry(run: Path) -> None:
    """A free retry keeps the attempt's number, and with it the memory that was too little."""
    (run / "checkpoints/reached.json").write_text('{"step": 9}')
    log = run / "train_model.log"
    log.write_text(OOM)
    assert retries.judge(failed_job(run, log, reached=5), write_attempts(run, {})) == retries.Verdict(
        words="It ran out of memory; if it is tried again, then with more."
    )


def test_a_group_is_judged_by_the_runs_in_it(run: Path) -> None:
    other = run.parent / "other-0a1b2c3d"
    (other / "checkpoints").mkdir(parents=True)
    alike = {"failed": "loss is nan", "step": 7}
    head = write_attempts(run, alike, alike)
    group = failed_group(failed_job(run, reached=5), failed_job(other, reached=2))
    assert retries.judge(group, head) == retries.Verdict()  # the other one may get on
    (other / "checkpoints/reached.json").write_text('{"step": 4}')
    verdict = retries.judge(group, head)
    assert (verdict.free, verdict.last) == (True, False)
    assert "from step 2 to step 4" in verdict.words
    (other / "manifest.json").write_text(json.dumps(whole()))
    verdict = retries.judge(group, head)
    assert verdict.last
    assert "failed twice at step 7" in verdict.words
    (run / "manifest.json").write_text(json.dumps(whole()))  # it is the prediction that failed
    group.reached_at_start = retries.reached(group)
    assert retries.judge(group, head) == retries.Verdict()


def test_memory_that_ran_out_in_a_group(run: Path) -> None:
    log = run / "train_model.log"
    log.write_text(OOM)
    (run / "checkpoints/reached.json").write_text('{"step": 9}')
    verdict = retries.judge(failed_group(failed_job(run, log, reached=5)), write_attempts(run, {}))
    assert "ran out of memory" in verdict.words
    assert not verdict.free


# States that would be waited on for ever


def answers(*states: dict[str, str] | None):
    """A `query_job_status` that gives these answers in turn, wrapped; a clock to move; and what is said."""
    clock, said, left = Clock(), [], list(states)

    async def ask(_command, _logger):
        return left.pop(0), 0.1

    asked = executor._finite_states(ask, said.append, clock)
    return lambda: asyncio.run(asked("squeue", None))[0], clock, said


def test_cancelled_by_somebody_is_cancelled() -> None:
    ask, _, _ = answers({"1": "CANCELLED by 0", "2": "CANCELLED+", "3": "RUNNING"})
    assert ask() == {"1": "CANCELLED", "2": "CANCELLED", "3": "RUNNING"}


def test_preempted_job_that_is_not_queued_again_fails_after_a_while() -> None:
    ask, clock, said = answers({"1": "PREEMPTED"}, {"1": "PREEMPTED"}, {"1": "PREEMPTED"})
    assert ask() == {"1": "PREEMPTED"}
    clock.now = executor.PREEMPTED_SECONDS - 1
    assert ask() == {"1": "PREEMPTED"}
    clock.now = executor.PREEMPTED_SECONDS + 1
    assert ask() == {"1": "FAILED"}
    assert "job 1 was preempted and is not queued again" in said[0]


def test_preempted_job_that_runs_again_is_forgiven() -> None:
    ask, clock, _ = answers({"1": "PREEMPTED"}, {"1": "PENDING"}, {"1": "RUNNING"}, {"1": "PREEMPTED"})
    ask(), ask(), ask()
    clock.now = executor.PREEMPTED_SECONDS + 1
    assert ask() == {"1": "PREEMPTED"}


def test_job_that_slurm_forgets_fails_after_a_while() -> None:
    ask, clock, said = answers({"1": "RUNNING"}, {}, None, {})
    ask()
    assert ask() == {}
    clock.now = executor.FORGOTTEN_SECONDS + 1
    assert ask() == {}  # SLURM did not answer: that says nothing about the job
    assert ask() == {"1": "FAILED"}
    assert "job 1 is unknown to SLURM" in said[-1]


def test_jobs_are_kept_while_slurm_does_not_answer() -> None:
    """None would be the plugin's sign to look at them again, and after five of these it never does."""
    ask, _, said = answers({"1": "RUNNING"}, None, None, {"1": "COMPLETED"})
    assert [ask(), ask(), ask(), ask()] == [{"1": "RUNNING"}, {}, {}, {"1": "COMPLETED"}]
    assert said == ["SLURM does not answer; jobs count as running until it does", "SLURM answers again"]


def test_ended_job_that_is_purged_is_no_forgotten_one() -> None:
    ask, clock, said = answers({"1": "RUNNING"}, {"1": "COMPLETED"}, {})
    ask(), ask()
    clock.now = executor.FORGOTTEN_SECONDS + 1
    assert ask() == {}
    assert not said


def test_ctrl_c_while_states_are_asked_for_cancels_the_jobs(monkeypatch) -> None:
    """Snakemake's list of active jobs is empty for as long as the question for their states takes."""
    called, plugin = [], SimpleNamespace(Executor=type("Executor", (), {"run_uuid": "sft_1"}))
    monkeypatch.setattr(queue, "run", lambda *command: called.append(command) or SimpleNamespace(returncode=0))
    executor._cancel_all(plugin)
    plugin.Executor().cancel_jobs([])
    assert called == [("scancel", "--name=sft_1")]


def test_leftover_that_completes_before_it_is_taken_over_is_not_submitted_again(monkeypatch) -> None:
    job = queue.QueuedJob("7", "RUNNING", "", "n1", "sft_old", ".", "rule_train_model_wildcards_a", "0:10", "50:00")
    found = leftovers.Leftovers([job])
    monkeypatch.setattr(queue, "run", lambda *_: SimpleNamespace(returncode=1))  # ended jobs cannot be renamed
    monkeypatch.setattr(queue, "state", lambda _: "COMPLETED")
    assert found.take(comments.members(job.comment), "sft_new") == "7"
    assert found.take(comments.members(job.comment), "sft_new") is None

    async def nothing(_command, _logger):
        return {}, 0.1

    asked = executor._finite_states(nothing, print, ended=found.ended)
    assert asyncio.run(asked("squeue", None))[0] == {"7": "COMPLETED"}


TRAIN, PREDICT, OTHER = "rule_train_model_wildcards_a", "rule_predict_wildcards_a_x", "rule_train_model_wildcards_b"


def leftover(*members: str) -> leftovers.Leftovers:
    comment = comments.of_group(members)
    return leftovers.Leftovers([queue.QueuedJob("7", "RUNNING", "", "n1", "old", ".", comment, "0:10", "50:00")])


@pytest.mark.parametrize(
    ("there", "planned", "taken"),
    [
        ([TRAIN], [[TRAIN], [OTHER]], [TRAIN]),
        ([TRAIN, PREDICT], [[TRAIN, PREDICT], [OTHER]], [TRAIN, PREDICT]),
        ([TRAIN, PREDICT], [[PREDICT]], [PREDICT]),  # the training is done
        ([TRAIN, PREDICT], [[TRAIN], [PREDICT]], None),  # started again without groups
        ([TRAIN], [[TRAIN, PREDICT]], None),  # or with
        ([TRAIN, OTHER], [[TRAIN, PREDICT, OTHER]], None),
        (["rule_run_predict_train_model"], [[TRAIN, PREDICT]], None),  # a group as the plugin names it
    ],
)
def test_what_a_job_of_an_earlier_snakemake_is_taken_over_for(
    monkeypatch: pytest.MonkeyPatch, there: list[str], planned: list[list[str]], taken: list[str] | None
) -> None:
    found, said = leftover(*there), []
    monkeypatch.setattr(queue, "run", lambda *_: SimpleNamespace(returncode=0))
    monkeypatch.setattr(queue, "state", lambda _: "COMPLETED")
    units = [frozenset(unit) for unit in planned]
    found.wait_for_others(units, {"train_model", "predict"}, said.append)
    assert bool(said) is (taken is None)
    assert [sorted(unit) for unit in units if found.take(unit, "new")] == ([sorted(taken)] if taken else [])


def test_what_nobody_asks_for_now_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another study in the same folder: its jobs may run for days."""
    monkeypatch.setattr(queue, "state", lambda _: pytest.fail("it would wait for as long as that job runs"))
    found = leftover(TRAIN, PREDICT)
    found.wait_for_others([frozenset([OTHER])], {"train_model", "predict"}, pytest.fail)
    assert found.take(frozenset([OTHER]), "new") is None


def test_comment_that_slurm_would_refuse_is_left_to_the_plugin() -> None:
    assert comments.of_group([f"rule_train_model_wildcards_run-{number:08x}" for number in range(40)]) is None
    assert comments.rules(comments.of_group([TRAIN, PREDICT, OTHER])) == ["predict", "train_model"]
    assert comments.trains(TRAIN)
    assert comments.trains("rule_sft_train_model_wildcards_a")  # use rule * from … as sft_*
    assert not comments.trains(PREDICT)


def test_without_slurm_nothing_is_known(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert queue.available() is False
    assert queue.jobs_of(str(tmp_path)) is None
    assert queue.state("1") is None


def test_another_version_of_the_plugin_is_refused(monkeypatch) -> None:
    monkeypatch.setattr(executor, "VERSION", "2.7.0")
    with pytest.raises(executor.ExecutorError, match=r"2\.8\.0 is installed, and this workflow is made for 2\.7\.0"):
        executor.install(None, print)
