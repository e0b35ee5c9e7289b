"""What a person reads when a workflow has failed: the log that holds the message, and its last lines."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # `sft status` starts without what planning needs
    from sft.planning.plan import Plan

LINES = 20


def failed_logs(plan: Plan, since: float) -> Iterator[tuple[str, Path]]:
    """(directory, log) of every planned result that was tried since `since` (seconds of the epoch) and is not there."""
    for directory, node in plan.nodes.items():
        log = Path(node.log)
        if not Path(node.manifest).exists() and log.is_file() and log.stat().st_mtime >= since and log.stat().st_size:
            yield directory, log


def last_lines(log: Path, lines: int = LINES) -> list[str]:
    """The last lines of a log, without reading a long one whole."""
    with log.open("rb") as file:
        file.seek(0, 2)
        file.seek(max(file.tell() - 500 * lines, 0))
        return file.read().decode(errors="replace").splitlines()[-lines:]
