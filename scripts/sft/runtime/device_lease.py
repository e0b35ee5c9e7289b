"""Devices of one machine for several jobs: each job holds its own, and the kernel frees them when it ends.

Without it, four jobs that need one GPU each all take the first. A device is held by a lock on a file of its name; a
lock goes with its process, also when that is killed. Under SLURM, which gives each job its devices, nothing is leased.
"""

import fcntl
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

from sft.runtime.stage import StageError

VISIBLE = "CUDA_VISIBLE_DEVICES"
INTERVAL_SECONDS = 1.0
PATIENCE_SECONDS = 3600.0

# Kept open as long as this process lives: closing them is what frees the devices.
_held: list[IO[str]] = []


def lease_cuda(count: int, say: Callable[[str], None]) -> list[str]:
    """Take `count` CUDA devices and make them the only visible ones; returns their names.

    Nothing is taken where there are none, or where SLURM has given this job its own. StageError when the machine has
    fewer, or the other jobs do not free enough within an hour.
    """
    if "SLURM_JOB_ID" in os.environ:
        return []
    devices = cuda_devices()
    if not devices:
        return []
    taken = lease(devices, count, _folder(), say)
    os.environ[VISIBLE] = ",".join(taken)
    return taken


def cuda_devices() -> list[str]:
    """Those that this process may use: of CUDA_VISIBLE_DEVICES where it is set, else all that nvidia-smi lists."""
    if VISIBLE in os.environ:
        return [name.strip() for name in os.environ[VISIBLE].split(",") if name.strip() not in ("", "-1", "NoDevFiles")]
    asked = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    try:
        return subprocess.run(asked, capture_output=True, text=True, timeout=20, check=True).stdout.split()
    except (OSError, subprocess.SubprocessError):
        return []


def lease(
    devices: list[str],
    count: int,
    folder: Path,
    say: Callable[[str], None],
    patience: float = PATIENCE_SECONDS,
) -> list[str]:
    """Lock `count` of `devices`, all or none at a time, so that no two jobs wait for what the other holds."""
    if count > len(devices):
        raise StageError(
            f"{count} devices are needed and {len(devices)} are here ({', '.join(devices)}). Lower "
            f"training.distributed.processes"
        )
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    deadline, told = time.monotonic() + patience, False
    while True:
        got = _try(devices, count, folder)
        if got:
            _held.extend(got.values())
            return list(got)
        if time.monotonic() >= deadline:
            raise StageError(
                f"{count} of the devices {', '.join(devices)} did not become free within {patience / 60:.0f} minutes. "
                f"Start fewer jobs at once (snakemake --resources gpu=N); {folder} says who holds them"
            )
        if not told:
            say(f"waiting for {count} of the devices {', '.join(devices)}, which other jobs hold")
            told = True
        time.sleep(min(INTERVAL_SECONDS, patience / 10))


def _try(devices: list[str], count: int, folder: Path) -> dict[str, IO[str]]:
    got: dict[str, IO[str]] = {}
    for device in devices:
        file = (folder / f"{device.replace('/', '_')}.lock").open("a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            continue
        file.truncate(0)
        file.write(f"process {os.getpid()}\n")
        file.flush()
        got[device] = file
        if len(got) == count:
            return got
    for held in got.values():
        held.close()
    return {}


def _folder() -> Path:
    return Path(tempfile.gettempdir(), f"snakemake-sft-devices-{os.getuid()}")
