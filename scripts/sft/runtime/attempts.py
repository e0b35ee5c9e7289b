"""The attempts that a run took: `attempts.jsonl` beside its metrics, one line an event, kept over kills and resumes.

Imports nothing heavy.
"""

import argparse
import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sft.runtime import job

NAME = "attempts.jsonl"


def begin(run: Path, from_step: int | None, total: int, options: argparse.Namespace) -> int:
    """Note that an attempt starts (`from_step` None: at the base model) and return its number, 1 for the first.

    Later notes tell how it ended: `finished`, or `stopped` (why, at `step`), or `failed` (the message, at `step`); an
    attempt without any was killed.
    """
    number = 1 + max((event["attempt"] for event in _events(run)), default=0)
    note(
        run,
        number,
        {
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "host": os.uname().nodename,
            "pid": os.getpid(),
            "from_step": from_step,
            "total_steps": total,
            "threads": options.threads,
            "micro_batch_size": options.micro_batch_size,
            "strategy": options.strategy,
            "processes": options.processes,
            "nodes": options.nodes,
            **job.facts(),
        },
    )
    return number


def note(run: Path, number: int, facts: dict[str, Any]) -> None:
    """Add facts to an attempt."""
    path = run / NAME
    torn = path.exists() and not path.read_bytes().endswith(b"\n")
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write("\n" * torn + json.dumps({"attempt": number, **facts}) + "\n")
    except OSError as error:
        error.filename = str(path)  # a full disk, told with the place
        raise


def read(run: Path) -> list[dict[str, Any]]:
    """The attempts of a run, oldest first, each with all that was noted of it."""
    attempts: dict[int, dict[str, Any]] = {}
    for event in _events(run):
        attempts.setdefault(event["attempt"], {}).update(event)
    return list(attempts.values())


def _events(run: Path) -> list[dict[str, Any]]:
    path = run / NAME
    events = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            events.append(json.loads(line))
        except json.JSONDecodeError:
            continue  # torn by a kill; a record for readers, not something the result depends on
    return events


def counted(run: Path, lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The attempts that the present result took; `lines` are the rows of its metrics stream.

    Attempts at a result that was finished and then made again from the base model are not among them; one that
    failed before its first checkpoint is. Each with the steps it trained and `wall_seconds` from its start to its
    last row, both 0 where another attempt started over.
    """
    attempts = {attempt["attempt"]: attempt for attempt in read(run)}
    first = 1
    for number, attempt in attempts.items():
        if attempt.get("from_step") is None and attempts.get(number - 1, {}).get("finished"):
            first = number
    told = []
    for number, attempt in attempts.items():
        rows = [row for row in lines if row["attempt"] == number]
        if number < first:
            continue
        started = datetime.fromisoformat(attempt["started"]).timestamp()
        attempt["wall_seconds"] = round(max((row["time"] for row in rows), default=started) - started, 1)
        attempt["steps_trained"] = sum(row["split"] == "train" for row in rows)
        told.append(attempt)
    return told


def facts(run: Path, lines: list[dict[str, Any]]) -> dict[str, Any]:
    """What the manifest tells of the attempts that are `counted`; `lines` are the rows of the metrics stream.

    `attempts`: those; `resumed`: the steps at which one continued; `tokens_per_second` (the middle one) and
    `peak_memory_mib` of the rows.
    """
    told = counted(run, lines)
    trained = [row for row in lines if row["split"] == "train"]
    speeds = sorted(row["tokens_per_second"] for row in trained)
    return {
        "attempts": told,
        "resumed": [attempt["from_step"] for attempt in told if attempt.get("from_step") is not None],
        "tokens_per_second": speeds[len(speeds) // 2],
        "peak_memory_mib": max(row["peak_memory_mib"] for row in trained),
    }
