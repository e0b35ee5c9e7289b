"""One writer for a result directory, also on a file system that several nodes share.

Two locks, because each alone has a hole. The kernel's (flock) goes away with the process that held it, but on some
shared file systems other nodes do not see it. `claim.json` is seen everywhere, and a hard link is made by one of many
or by none, but it stays when its owner is killed. So a claim tells who holds it, its holder touches it every 20
seconds, and another one takes it over only when

- the holder was a process of this machine, and that process is gone;
- the holder ran in a SLURM job, and SLURM says that this job no longer runs, or that it has been started again since;
- nobody can say, and the claim was not touched for five minutes of the newcomer's own clock (clocks of machines
differ).

A holder that was only asleep finds somebody else's claim: it ends within 20 seconds, and `require` stops it before it
renames anything into place.
"""

import fcntl
import json
import os
import sys
import threading
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from sft.runtime import job, orphan
from sft.runtime import job_queue as queue

NAME = "claim.json"
TOUCH_SECONDS = 20.0
STALE_SECONDS = 300.0
EXIT_LOST = 76  # sysexits.h: EX_PROTOCOL. Somebody else took over; nothing was written after that


class ClaimError(Exception):
    """The directory belongs to another process; says to which."""


class Claim:
    """Holds `directory` for this process while the block runs."""

    def __init__(self, directory: Path, say: Callable[[str], None]):
        self.path = directory / NAME
        self.say = say
        self.token = uuid.uuid4().hex
        self._lock: IO[str] | None = None
        self._claim: int | None = None  # descriptor of the file that `path` names while the claim is this process's
        self._ended = threading.Event()

    def __enter__(self) -> "Claim":
        self._lock = self.path.with_name(".lock").open("a+")
        try:
            self._take_kernel_lock(self._lock)
            self._take_claim()
        except BaseException:
            self._close()
            raise
        threading.Thread(target=self._touch, daemon=True, name="claim").start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ended.set()
        if self.holds():
            self.path.unlink(missing_ok=True)
        self._close()

    def _close(self) -> None:
        if self._lock is not None:
            self._lock.close()
        if self._claim is not None:
            os.close(self._claim)
            self._claim = None

    def holds(self) -> bool:
        """Whether the claim is still this process's."""
        claim = read(self.path.parent)
        return claim is not None and claim["token"] == self.token

    def require(self) -> None:
        """ClaimError when another process has taken over; called before anything is renamed into place."""
        if not self.holds():
            taker = holder(read(self.path.parent))
            raise ClaimError(f"{self.path.parent} was taken over by {taker}; nothing was written over its work")

    def _take_kernel_lock(self, lock: IO[str]) -> None:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise self._refusal(read(self.path.parent)) from None
        except OSError as error:
            self.say(f"{self.path.parent}: this file system has no locks ({error.strerror}); {NAME} has to do")

    def _take_claim(self) -> None:
        touched, since = self._touched(), time.monotonic()
        asked = False
        while not self._create():
            claim = read(self.path.parent)
            if claim is None:
                continue  # released meanwhile
            alive = _lives(claim)
            if alive or (alive is None and self._touched() != touched):
                raise self._refusal(claim)
            if alive is None and time.monotonic() - since < STALE_SECONDS:
                if not asked:
                    self.say(f"{holder(claim)} may still write here; waiting {STALE_SECONDS:.0f} s for a sign of life")
                asked = True
                time.sleep(1)
                continue
            self._remove(claim)
            touched, since = self._touched(), time.monotonic()

    def _touched(self) -> int | None:
        try:
            return self.path.stat().st_mtime_ns
        except FileNotFoundError:
            return None

    def _create(self) -> bool:
        """Make the claim unless there is one. A link is made whole or not at all, on NFS too (open(2), O_EXCL)."""
        ours = self.path.with_name(f".{NAME}.{self.token}")
        try:
            ours.write_text(self._text())
            os.link(ours, self.path)
            self._claim = os.open(ours, os.O_RDONLY)
        except FileExistsError:
            return False
        finally:
            ours.unlink(missing_ok=True)
        return True

    def _remove(self, claim: dict[str, Any]) -> None:
        """Remove a dead claim. Renamed first, so that of two newcomers one removes the old claim and none a new one."""
        self.say(f"taking over from {holder(claim)}, which is gone")
        aside = self.path.with_name(f".{NAME}.{self.token}")
        try:
            self.path.rename(aside)
        except FileNotFoundError:
            return
        moved = json.loads(aside.read_text())
        if moved["token"] != claim["token"]:  # the other newcomer was faster, and this is its claim: give it back
            try:
                os.link(aside, self.path)
            except FileExistsError:
                self.say(f"{self.path} changed hands twice at once")
        aside.unlink()

    def _touch(self) -> None:
        while not self._ended.wait(TOUCH_SECONDS):
            if not self.holds():
                if self._ended.is_set():
                    return
                print(
                    f"error: {self.path.parent} was taken over by another process; stopping",
                    file=sys.stderr,
                    flush=True,
                )
                os._exit(EXIT_LOST)
            # By descriptor: where somebody took over in this very moment, this touches no claim but our own old one.
            if self._claim is not None:
                os.utime(self._claim)

    def _text(self) -> str:
        inside = job.current()
        fields = (
            {"id": inside.id, "cluster": inside.cluster, "node": inside.node, "restarts": inside.restarts}
            if inside
            else None
        )
        return json.dumps(
            {
                "token": self.token,
                "host": os.uname().nodename,
                "boot": _boot(),
                "pid": os.getpid(),
                "started": orphan.start_time(os.getpid()),
                "since": datetime.now(UTC).isoformat(timespec="seconds"),
                "job": fields,
            }
        )

    def _refusal(self, claim: dict[str, Any] | None) -> ClaimError:
        return ClaimError(f"{self.path.parent} is being written by {holder(claim)}. Wait for it, or stop it first")


def read(directory: Path) -> dict[str, Any] | None:
    """The claim on a directory, or None where nobody holds one."""
    try:
        return json.loads((directory / NAME).read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None


def alive(directory: Path) -> bool | None:
    """Whether the holder of the claim on a directory still runs; False without a claim, None where nobody can say."""
    claim = read(directory)
    return claim is not None and _lives(claim)


def holder(claim: dict[str, Any] | None) -> str:
    """Who holds a claim, in words."""
    if claim is None:
        return "another process"
    where = f"process {claim['pid']} on {claim['host']} since {claim['since']}"
    return f"{where} (SLURM job {claim['job']['id']} on node {claim['job']['node']})" if claim["job"] else where


def _lives(claim: dict[str, Any]) -> bool | None:
    """Whether the holder still runs; None where nobody can say."""
    if claim["boot"] and claim["boot"] == _boot():
        return orphan.start_time(claim["pid"]) == claim["started"]
    theirs, ours = claim["job"], job.current()
    if theirs is None:
        return None
    if ours and ours.cluster != theirs["cluster"]:
        return None
    if ours and ours.id == theirs["id"]:
        # SLURM starts a job again only when all processes of its last start are gone.
        same = theirs["restarts"] == ours.restarts and theirs["node"] in (queue.nodes(ours.id) or [theirs["node"]])
        return None if same else False
    state = queue.state(theirs["id"])
    return None if state is None else state in queue.ALIVE


def _boot() -> str:
    """Which start of which machine this is; process numbers mean something only within one."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        # Containers of one machine share the boot, and not the process numbers.
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""
