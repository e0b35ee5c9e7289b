"""What a long-lived workflow needs of Snakemake's SLURM executor and version 2.8.0 of it does not do.

- Jobs that an earlier Snakemake left running are taken over, not submitted a second time (sft.slurm.leftovers).
- A retry that gets further is not counted; one that fails as the one before is the last (sft.slurm.retries).
- While the controller does not answer, submissions wait; the plugin would use up retries on them.
- States are asked for at a steady pace, and Ctrl-C cancels every job, whatever Snakemake does in that moment.
- Jobs are not forgotten while the controller does not answer to the question for their states.
- States that the plugin waits on for ever are told as failures: `CANCELLED by 0`, a preempted job that is not queued
  again, a job that SLURM has forgotten, one that waits for a reason that time does not mend.

The plugin offers no hooks for this, so functions of it are replaced, in the one process that submits. requirements.in
pins the plugin; another version is refused here until the tests in tests/slurm have passed with it.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

from sft.runtime import job_comments as comments
from sft.runtime import job_queue as queue
from sft.slurm import retries
from sft.slurm.leftovers import ExecutorError, Leftovers

PLUGIN = "snakemake-executor-plugin-slurm"
VERSION = "2.8.0"
# Patience: with a preempted job that is not queued again, with SLURM knowing nothing of a job, with its controller.
PREEMPTED_SECONDS = 300.0
FORGOTTEN_SECONDS = 180.0
# Reasons of waiting (squeue(1), JOB REASON CODES) that mean: this request will not be met.
HOPELESS = {
    *("AccountNotAllowed", "AssocMaxWallDurationPerJobLimit", "BadConstraints", "DependencyNeverSatisfied"),
    *("InvalidAccount", "InvalidQOS", "PartitionNodeLimit", "PartitionTimeLimit", "QOSMaxCpuPerJobLimit"),
    *("QOSMaxMemoryPerJob", "QOSMaxNodePerJobLimit", "QOSMaxWallDurationPerJobLimit", "QOSNotAllowed"),
    *("job_requeued_in_held_state", "launch_failed_requeued_held"),
}
CONTROLLER_SECONDS = 3600.0
MIN_JOB_AGE_SECONDS = 300  # how long squeue lists ended jobs where a site does not say: SLURM's default


def install(workflow: Any, say: Callable[[str], None]) -> None:
    """Replace what is missing in the plugin, for the Snakemake of this process; before its first job is submitted."""
    import snakemake_executor_plugin_slurm as plugin

    if getattr(plugin.Executor.run_job, "takes_over", False):
        return  # another module of the same workflow was first
    if metadata.version(PLUGIN) != VERSION:
        raise ExecutorError(
            f"{PLUGIN} {metadata.version(PLUGIN)} is installed, and this workflow is made for {VERSION}. Install what "
            "requirements.in pins: make setup"
        )
    if not queue.available():
        raise ExecutorError("there is no squeue on PATH: start Snakemake on a login node of the cluster")
    _wait_for_controller(say)
    leftovers = Leftovers.find(say)
    units = {dag.get_job_group(job) or job: None for dag in [workflow.dag] for job in dag.needrun_jobs()}
    named = {unit: comments.of_job(unit, plugin.get_job_wildcards) for unit in units}
    leftovers.wait_for_others(list(named.values()), {rule.name for rule in workflow.rules}, say)
    leftovers.first(workflow, named)
    _submit_once(plugin, leftovers, say)
    _name_members(plugin)
    _judge_failures(plugin)
    _cancel_all(plugin)
    _ask_steadily(plugin)
    plugin.query_job_status = _finite_states(plugin.query_job_status, say, ended=leftovers.ended)
    # Asked at every look, the plugin goes over to sacct, and waits for ever, when the controller is away just then.
    known = plugin.get_min_job_age() or MIN_JOB_AGE_SECONDS
    plugin.get_min_job_age = lambda: known


def _submit_once(plugin: Any, leftovers: Leftovers, say: Callable[[str], None]) -> None:
    submit = plugin.Executor.run_job

    def run_job(executor: Any, job: Any) -> None:
        try:
            _wait_for_controller(say)
            job.reached_at_start = retries.reached(job)
            number = leftovers.take(comments.of_job(job, plugin.get_job_wildcards), executor.run_uuid)
            if number is not None:
                kind = "group" if job.is_group() else "rule"
                folder = executor.slurm_logdir / f"{kind}_{job.name}" / plugin.get_job_wildcards(job)
                # The name of a group says which rules were left in it when it was submitted.
                log = next(executor.slurm_logdir.glob(f"group_*/{number}.log"), folder / f"{number}.log")
                executor.logger.info(f"Job {job.jobid} is SLURM job {number}, submitted earlier (log: {log}).")
                info = plugin.SubmittedJobInfo(job, external_jobid=number, aux={"slurm_logfile": log})
                executor._report_job_submission_threadsafe(info)
                return
        except Exception as error:
            # Whatever is raised in this thread is lost, and the workflow would wait for the job for ever.
            executor._report_job_error_threadsafe(plugin.SubmittedJobInfo(job), f"could not be submitted: {error!r}")
            return
        submit(executor, job)

    setattr(run_job, "takes_over", True)  # noqa: B010 - a mark on a function, which has no such attribute
    plugin.Executor.run_job = run_job


def _name_members(plugin: Any) -> None:
    """Let the comment of a group name its jobs; by the plugin's own nobody would know what is in it."""
    stock = plugin.get_submit_command

    def get_submit_command(job: Any, params: dict[str, Any], **more: Any) -> str:
        found = comments.of_group(comments.of_job(job, plugin.get_job_wildcards)) if job.is_group() else None
        return stock(job, params | ({"comment_str": found} if found else {}), **more)

    plugin.get_submit_command = get_submit_command


def _wait_for_controller(say: Callable[[str], None]) -> None:
    """Return when SLURM answers; after an hour in any case, and then sbatch tells what is wrong."""
    end, told = time.monotonic() + CONTROLLER_SECONDS, False
    while time.monotonic() < end:
        done = queue.run("squeue", "--noheader", "--me", "--format=%i", "--name=no-such-job")
        if done is not None and done.returncode == 0:
            return
        if not told:
            say("SLURM's controller does not answer; submissions wait for it")
        told = True
        time.sleep(5)


def _cancel_all(plugin: Any) -> None:
    """Ctrl-C cancels every job that has the name of this Snakemake; while it asks for states, its own list is empty."""

    def cancel_jobs(executor: Any, active_jobs: list[Any]) -> None:
        done = queue.run("scancel", f"--name={executor.run_uuid}")
        if done is None or done.returncode:
            reason = done.stderr.strip() if done else "no answer"
            executor.logger.warning(
                f"SLURM did not cancel the jobs ({reason}). Later: scancel --name={executor.run_uuid}"
            )

    plugin.Executor.cancel_jobs = cancel_jobs


def _ask_steadily(plugin: Any) -> None:
    """Ask for states every seconds-between-status-checks of the profile; the plugin adds 10 s each time, up to 180.

    For so long nobody would hear of a cancelled job, and Ctrl-C would wait.
    """
    plugin.Executor.next_seconds_between_status_checks = property(
        lambda executor: executor.workflow.remote_execution_settings.seconds_between_status_checks,
        lambda executor, seconds: None,
    )


def _judge_failures(plugin: Any) -> None:
    report = plugin.Executor.report_job_error
    started = datetime.now(UTC)

    def report_job_error(executor: Any, info: Any, msg: str | None = None, **more: Any) -> None:
        job = info.job
        verdict = retries.judge(job, started)
        if verdict.last:
            job.attempt = job.restart_times + 1  # Snakemake starts a job again while restart_times > attempt - 1
        elif verdict.free:
            job.attempt -= 1
        words = " ".join(part for part in (msg, verdict.words) if part)
        if job.is_group() and words:
            executor.logger.error(words)  # Snakemake prints no message of a group
        report(executor, info, msg=words, **more)

    plugin.Executor.report_job_error = report_job_error


def _finite_states(
    ask: Callable,
    say: Callable[[str], None],
    clock: Callable[[], float] = time.monotonic,
    ended: dict[str, str] | None = None,
) -> Callable:
    """The plugin's `query_job_status`, with states that it knows how to end; `ended`: some that are known already."""
    seen: set[str] = set()
    since: dict[str, float] = {}
    away = False

    def given_up(job: str, seconds: float, why: str) -> bool:
        waited = clock() - since.setdefault(job, clock())
        if waited >= seconds:
            say(f"job {job} {why} for {waited:.0f} s: it counts as failed")
        return waited >= seconds

    async def query_job_status(command: str, logger: Any) -> tuple[dict[str, str] | None, float | None]:
        nonlocal away
        states, seconds = await ask(command, logger)
        if (states is None) != away:
            away = states is None
            say("SLURM does not answer; jobs count as running until it does" if away else "SLURM answers again")
        if states is None:
            # After five failures in a row the plugin would never look at the jobs again. It does at those not listed.
            return {}, 0.0
        states = (ended or {}) | {job: state.partition(" ")[0].rstrip("+") for job, state in states.items()}
        for job in _hopeless(command, states, say):
            states[job] = "FAILED"
        for job in seen - states.keys():
            if given_up(job, FORGOTTEN_SECONDS, "is unknown to SLURM"):
                states[job] = "FAILED"
        for job, state in states.items():
            if state == "PREEMPTED":
                if given_up(job, PREEMPTED_SECONDS, "was preempted and is not queued again"):
                    states[job] = "FAILED"
            elif job in seen and state != "FAILED":
                since.pop(job, None)
        seen.update(job for job, state in states.items() if state in queue.ALIVE | queue.WAITING | {"PREEMPTED"})
        seen.difference_update(
            job for job, state in states.items() if state not in queue.ALIVE | queue.WAITING | {"PREEMPTED"}
        )
        return states, seconds

    return query_job_status


def _hopeless(command: str, states: dict[str, str], say: Callable[[str], None]) -> list[str]:
    """Jobs among `states` that wait for what will not come; they are cancelled, and told with the reason."""
    waiting = [job for job, state in states.items() if state in queue.WAITING]
    name = command.rpartition("--name ")[2].split()[0] if "--name " in command else ""
    if not waiting or not name:
        return []
    done = queue.run("squeue", "--noheader", "--states=PENDING", f"--name={name}", "--format=%i|%r|%k|%P|%l")
    if done is None or done.returncode:
        return []
    found = []
    for line in done.stdout.splitlines():
        job, reason, comment, partition, limit = line.split("|")
        if reason.strip("()") in HOPELESS and job in waiting:
            say(
                f"job {job} ({comment}) was cancelled: SLURM says {reason} (partition {partition}, limit {limit}), "
                "so it would wait for ever. Ask for less (execution: in the configuration), or change the profile"
            )
            queue.run("scancel", job)
            found.append(job)
    return found
