"""How far each run is: from its directory, the claim on it, and squeue where there is one.

Nothing here needs Snakemake to be alive, a configuration, or anything heavier than the standard library.
"""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sft.planning.failures import last_lines
from sft.runtime import attempts, claim, manifest
from sft.runtime import job_comments as comments
from sft.runtime import job_queue as queue
from sft.runtime.cost import NOT_MEASURED
from sft.training import metrics_stream
from sft.training.checkpoint import Checkpoints

RUNS = Path("results/runs")
# The stages of a run after its training, by the pattern of their manifests' directories.
STAGES = (("scored", "evaluations/*/scores"), ("predicted", "evaluations/*"), ("converted", "models/*"))
LOG_LINES = 20
RECENT_ROWS = 20


@dataclass(frozen=True)
class RunProgress:
    """One line of `sft status`. `state`: planned, waiting, queued, running, stopped, failed, killed, trained, …"""

    run: str
    state: str
    detail: str
    step: int
    total: int | None
    loss: float | None
    tokens_per_second: float | None
    seconds_left: float | None
    resumed: int
    job: str | None = None
    node: str | None = None
    cost: dict[str, Any] | None = None  # device_hours so far, joules, memory; None before the first step
    log: str | None = None
    log_ends: list[str] = field(default_factory=list)


def of_runs(directory: Path = RUNS) -> list[RunProgress]:
    """Every run below `directory` that was asked for, in the order of their names."""
    jobs = queue.jobs_of(str(Path.cwd())) or []
    return [of_run(path.parent, jobs) for path in sorted(directory.glob("*/config.json"))]


def of_planned(runs: list[Path]) -> list[RunProgress]:
    """The runs of a plan, in its order; `planned` are those that Snakemake was never started for."""
    jobs = queue.jobs_of(str(Path.cwd())) or []
    return [of_run(run, jobs) if (run / "config.json").exists() else _not_asked_for(run) for run in runs]


def of_run(run: Path, jobs: list[queue.QueuedJob]) -> RunProgress:
    """How far one run is. `jobs`: what squeue lists for this directory."""
    tried = attempts.read(run)
    rows = [row for row in _rows(run) if row["split"] == "train"]
    last = tried[-1] if tried else {}
    total = last.get("total_steps")
    step = max((row["step"] for row in rows), default=0)
    recent = rows[-RECENT_ROWS:]
    state, detail, job = _state(run, tried, jobs)
    speeds = sorted(row["tokens_per_second"] for row in recent)
    running = state == "running"
    failed = state in ("failed", "killed")
    log = run / "train_model.log"
    return RunProgress(
        run=run.name,
        state=state,
        detail=detail,
        step=step,
        total=total,
        loss=rows[-1]["loss"] if rows else None,
        tokens_per_second=speeds[len(speeds) // 2] if speeds else None,
        seconds_left=_seconds_left(recent, step, total) if running else None,
        resumed=sum(attempt.get("from_step") is not None for attempt in tried),
        job=job.id if job else None,
        node=(job.nodes if job else last.get("node", last.get("host"))) or None if running else None,
        cost=_cost(run, rows) if rows else None,
        log=str(log) if failed and log.exists() else None,
        log_ends=last_lines(log, LOG_LINES) if failed and log.exists() else [],
    )


def _not_asked_for(run: Path) -> RunProgress:
    return RunProgress(
        run=run.name,
        state="planned",
        detail="not started",
        step=0,
        total=None,
        loss=None,
        tokens_per_second=None,
        seconds_left=None,
        resumed=0,
    )


def _cost(run: Path, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What a run has cost so far, every attempt counted."""
    counted = attempts.counted(run, rows)
    spent = [one["wall_seconds"] * one.get("processes", 1) for one in counted]
    joules = [one["joules"] for one in counted if one.get("joules") is not None]
    made = manifest.read(run)
    known = made["facts"].get("cost", {}) if made else {}
    return {
        "device_hours": round(sum(spent) / 3600, 5),
        "joules": round(sum(joules), 1) if len(joules) == len(counted) else NOT_MEASURED,
        "model_flops_utilisation": known.get("model_flops_utilisation", NOT_MEASURED),
        "peak_memory_mib": max((row.get("peak_memory_mib", 0) for row in rows), default=0) or NOT_MEASURED,
    }


def _rows(run: Path) -> list[dict[str, Any]]:
    path = run / metrics_stream.NAME
    if not path.exists():
        return []
    # The writer may be in the middle of a line: that is no damage here.
    return [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}") and line.startswith("{")]


def _state(
    run: Path, tried: list[dict[str, Any]], jobs: list[queue.QueuedJob]
) -> tuple[str, str, queue.QueuedJob | None]:
    """(state, detail in words, the SLURM job of the run's next or present step)."""
    named = re.compile(rf"_{re.escape(run.name)}(_|\{comments.JOINT}|$)")
    name = run.name  # found fast; a pattern for each of a thousand runs and jobs takes ten seconds
    ours = [job for job in jobs if name in job.comment and named.search(job.comment)]
    training = next((job for job in ours if comments.trains(job.comment)), None)
    if manifest.read(run) is not None:
        return _after_training(run, ours)
    if claim.alive(run):
        holder = claim.read(run)
        return "running", claim.holder(holder), training
    if training is not None:
        if training.state in queue.WAITING:
            again = f", stopped at step {tried[-1]['step']}" if tried and "stopped" in tried[-1] else ""
            return "queued", f"job {training.id} waits for {training.reason}{again}", training
        return "starting", f"job {training.id} on {training.nodes}", training
    if claim.read(run) and claim.alive(run) is None:
        return "unknown", f"held by {claim.holder(claim.read(run))}, which cannot be asked from here", None
    if not tried:
        return "waiting", _waits_for(run), None
    last = tried[-1]
    if "failed" in last:
        return "failed", last["failed"], None
    if "stopped" in last:
        return "stopped", f"{last['stopped']}; start Snakemake again and it continues", None
    reached = Checkpoints(run / "checkpoints", print).reached()
    kept = f"continues from step {reached}" if reached else "starts over"
    return "killed", f"ended without a word (out of memory? cancelled?); when started again it {kept}", None


def _after_training(run: Path, ours: list[queue.QueuedJob]) -> tuple[str, str, queue.QueuedJob | None]:
    done = next((name for name, pattern in STAGES if any(run.glob(f"{pattern}/{manifest.NAME}"))), "trained")
    job = next(iter(ours), None)
    held = next((path.parent for path in run.glob(f"*/*/{claim.NAME}") if claim.alive(path.parent)), None)
    if held is not None:
        return done, f"{held.parent.name}: {claim.holder(claim.read(held))}", job
    if job is not None:
        return done, f"job {job.id} ({', '.join(comments.rules(job.comment))}) is {job.state}", job
    return done, "", None


def _waits_for(run: Path) -> str:
    """What of a run's inputs is not there yet, in words."""
    inputs = json.loads((run / "config.json").read_text())["inputs"]
    missing = [name for name, directory in inputs.items() if manifest.read(directory) is None]
    return f"for its {', '.join(missing)}" if missing else "for its turn"


def _seconds_left(recent: list[dict[str, Any]], step: int, total: int | None) -> float | None:
    """From the pace of the last rows of this attempt, evaluations and checkpoints included."""
    same = [row for row in recent if row["attempt"] == recent[-1]["attempt"]]
    if total is None or len(same) < 2 or same[-1]["step"] <= same[0]["step"]:
        return None
    pace = (same[-1]["time"] - same[0]["time"]) / (same[-1]["step"] - same[0]["step"])
    return max(pace * (total - step), 0.0)
