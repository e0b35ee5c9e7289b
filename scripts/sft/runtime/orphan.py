"""A stage must not outlive the workflow that started it.

A killed Snakemake leaves its jobs running; a restarted one starts the same job again, and two writers
corrupt the result. PR_SET_PDEATHSIG covers the direct parent only (prctl(2)), and between Snakemake and a
script stands a shell, so a thread also watches the chain of ancestors up to Snakemake.
"""

import os
import signal
import sys
import threading
import time
from pathlib import Path

PR_SET_PDEATHSIG = 1
EXIT_ORPHANED = 137  # as if killed, which is what happened to the workflow
INTERVAL_SECONDS = 0.5


def die_with_parents() -> None:
    """End this process within a second of the end of its parent or of the Snakemake above it."""
    if not sys.platform.startswith("linux"):
        return
    import ctypes

    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    watched = _ancestors_to_snakemake()
    if watched:
        threading.Thread(target=_watch, args=(watched,), daemon=True, name="orphan-watch").start()


def _ancestors_to_snakemake() -> list[tuple[int, str]]:
    """(pid, start time) of each ancestor up to the nearest one that runs Snakemake; empty where there is none."""
    chain, pid = [], os.getppid()
    while pid > 1:
        start = start_time(pid)
        if start is None:
            return []
        chain.append((pid, start))
        if _runs_snakemake(pid):
            return chain
        pid = _parent(pid)
    return []


def _watch(watched: list[tuple[int, str]]) -> None:
    while all(start_time(pid) == start for pid, start in watched):
        time.sleep(INTERVAL_SECONDS)
    print("error: the workflow that started this stage is gone; stopping", file=sys.stderr, flush=True)
    os._exit(EXIT_ORPHANED)


def _runs_snakemake(pid: int) -> bool:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return any(Path(word.decode(errors="replace")).name in ("snakemake", "snakemake.exe") for word in command[:3])


def _stat(pid: int) -> list[str] | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The second field is the command in parentheses and may hold spaces (proc(5)).
    return text.rpartition(")")[2].split()


def start_time(pid: int) -> str | None:
    """Start time of a running process; None for one that is gone or a zombie (a pid alone may be reused)."""
    fields = _stat(pid)
    return None if fields is None or fields[0] == "Z" else fields[19]


def _parent(pid: int) -> int:
    fields = _stat(pid)
    return int(fields[1]) if fields else 0
