"""Whether a job ended because it took more memory than it had asked for, read from its log."""

import re
from pathlib import Path

# srun tells it of its task, slurmstepd of its step; a shell of a process that the kernel ended.
_SIGNS = re.compile(
    r"oom[_-]kill|Out Of Memory|OutOfMemory|MemoryError|DefaultCPUAllocator: can't allocate memory", re.IGNORECASE
)
TAIL_BYTES = 20_000


def ran_out(log: Path) -> bool:
    """Whether the end of a log says that memory ran out; False where there is no log."""
    try:
        with log.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(file.tell() - TAIL_BYTES, 0))
            text = file.read().decode(errors="replace")
    except OSError:
        return False
    last_start = max(text.rfind(sign) for sign in ("steps to train", "continuing from step"))
    return bool(_SIGNS.search(text[max(last_start, 0) :]))


def asked(log: Path, first: int, attempt: int) -> int:
    """MiB to ask for: `first`, doubled with every attempt after the last one ran out (Sisyphus does the same)."""
    return first * 2 ** (attempt - 1) if attempt > 1 and ran_out(log) else first
