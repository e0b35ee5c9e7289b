"""Checkpoints that are whole or absent.

A checkpoint is written in `checkpoints/.writing-<N>`, synced, described by a marker (`complete.json`, written
last: sizes, sha256, the digest of the weights and what it was made from) and then renamed to
`checkpoints/checkpoint-<N>`. What has no marker, or differs from it, is never read. Imports nothing heavy.
"""

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sft.runtime.manifest import describe_files, file_digest, fsync_directory, write_durably

MARKER = "complete.json"
REACHED = "reached.json"
# Other files that a checkpoint holds, beside the weights and `RESUME_STATE`.
EFFECTIVE = "effective.json"
# What only a continuation needs; a kept checkpoint loses it when it can no longer be wanted.
# Sharded ones have a directory `optimizer/`, or DeepSpeed's `global_step<N>/` with `latest` beside it; several
# processes have a random state each (rng_state_<rank>.pth).
RESUME_STATE = re.compile(
    r"optimizer\.pt|optimizer/.+|global_step\d+/.+|latest|scheduler\.pt|scaler\.pt|rng_state(_\d+)?\.pth"
)


@dataclass(frozen=True)
class Checkpoint:
    """A directory whose marker says that it is complete; `marker` is the marker's content."""

    path: Path
    marker: dict[str, Any]

    @property
    def step(self) -> int:
        return self.marker["step"]

    @property
    def strategy(self) -> str:
        """How the processes that wrote it shared the model."""
        told = json.loads((self.path / EFFECTIVE).read_text())
        return told["run"].get("strategy", "none")

    @property
    def resumable(self) -> bool:
        """Whether it still holds what a continuation needs."""
        kinds = {re.split(r"[._/]", name)[0] for name in self.marker["files"] if RESUME_STATE.fullmatch(name)}
        return kinds >= {"scheduler", "rng"} and bool(kinds & {"optimizer", "global"})

    def fault(self) -> str | None:
        """What differs from the marker, or None when every file is what was written."""
        for name, expected in self.marker["files"].items():
            file = self.path / name
            if not file.is_file():
                return f"{name} is missing"
            if file.stat().st_size != expected["bytes"]:
                return f"{name} has {file.stat().st_size} bytes instead of {expected['bytes']}"
            if file_digest(file) != expected["sha256"]:
                return f"{name} is not what was written (sha256 differs)"
        return None

    def strip(self) -> None:
        """Remove the state that only a continuation needs. The marker changes first, so it never lists too much."""
        gone = [name for name in self.marker["files"] if RESUME_STATE.fullmatch(name)]
        if gone:
            files = {name: made for name, made in self.marker["files"].items() if name not in gone}
            self.marker["files"] = files
            write_durably(self.path / MARKER, _text(self.marker))
            for name in gone:
                (self.path / name).unlink()
            for folder in {(self.path / name).parent for name in gone} - {self.path}:
                folder.rmdir()


class Checkpoints:
    """The checkpoints of one run, in `<run>/checkpoints`."""

    def __init__(self, directory: Path, say: Callable[[str], None], require_claim: Callable[[], None] = lambda: None):
        self.directory = directory
        self.say = say
        self._require_claim = require_claim  # raises when another process writes here now

    def of_step(self, step: int) -> Checkpoint:
        """The complete checkpoint of a step that is known to have one."""
        path = self.directory / f"checkpoint-{step}"
        return Checkpoint(path, json.loads((path / MARKER).read_text()))

    def clean(self) -> None:
        """Remove what a killed attempt left half written or half deleted."""
        for leftover in (*self.directory.glob(".writing-*"), *self.directory.glob(".deleting-*")):
            self.say(f"removed {leftover.name}, left by an attempt that was killed")
            shutil.rmtree(leftover)

    def all(self) -> list[Checkpoint]:
        """Every checkpoint that has a marker, oldest first; nothing is verified here (see `Checkpoint.fault`)."""
        found = []
        for path in self.directory.glob("checkpoint-*"):
            try:
                found.append(Checkpoint(path, json.loads((path / MARKER).read_text())))
            except (FileNotFoundError, json.JSONDecodeError, UnicodeDecodeError):
                self.set_aside(path, "incomplete", "it has no readable marker")
        return sorted(found, key=lambda checkpoint: checkpoint.step)

    def reached(self) -> int | None:
        """The step of the newest checkpoint that was ever completed here, or None."""
        try:
            return json.loads((self.directory / REACHED).read_text())["step"]
        except FileNotFoundError:
            return None

    def forget(self) -> None:
        """Start over on purpose: what was reached no longer counts."""
        (self.directory / REACHED).unlink(missing_ok=True)

    def set_aside(self, path: Path, reason: str, because: str) -> None:
        """Rename a checkpoint out of the way, to `set-aside-<N>-<reason>`, and say why."""
        step = re.sub(r"\D", "", path.name) or "0"
        names = (f"set-aside-{step}-{reason}{suffix}" for suffix in ("", *(f"-{n}" for n in range(2, 10_000))))
        target = next(self.directory / name for name in names if not (self.directory / name).exists())
        path.rename(target)
        fsync_directory(self.directory)
        self.say(f"set aside {path.name} as {target.name}: {because}")

    def staging(self, step: int) -> Path:
        """Where the checkpoint of `step` is written; the other ranks add their files there (see `writing`)."""
        return self.directory / f".writing-{step}"

    @contextmanager
    def writing(self, step: int, describe: Callable[[], dict[str, Any]]) -> Iterator[Path]:
        """A directory to write the checkpoint of `step` in; completed and renamed when the block ends well.

        `describe` gives what else the marker holds (`weights_digest`, `provenance`); it is called last.
        """
        self.directory.mkdir(exist_ok=True)
        staging = self.staging(step)
        final = self.directory / f"checkpoint-{step}"
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir()
        yield staging
        _sync_tree(staging)
        marker = {"step": step, "files": describe_files(staging), **describe()}
        write_durably(staging / MARKER, _text(marker))
        self._require_claim()
        if final.exists():
            self.set_aside(final, "superseded", "the run passed this step again")
        staging.rename(final)
        fsync_directory(self.directory)
        write_durably(self.directory / REACHED, _text({"step": step}))

    def rotate(self, kept: list[int], keep_state: bool, newest: int = 2) -> None:
        """Drop what is no longer wanted: all but the `newest` resumable checkpoints and those of the `kept` steps.

        Kept checkpoints beyond the newest lose their resume state unless `keep_state`.
        """
        resumable = [checkpoint for checkpoint in self.all() if checkpoint.resumable]
        for checkpoint in resumable[: max(len(resumable) - newest, 0)]:
            if checkpoint.step in kept:
                if not keep_state:
                    checkpoint.strip()
            else:
                # Renamed first: a kill between two deletions must not leave a checkpoint with half its files.
                doomed = self.directory / f".deleting-{checkpoint.step}"
                checkpoint.path.rename(doomed)
                shutil.rmtree(doomed)


def _sync_tree(root: Path) -> None:
    directories = [root]
    for path in root.rglob("*"):
        if path.is_dir():
            directories.append(path)
        else:
            with path.open("rb") as file:
                os.fsync(file.fileno())
    for directory in reversed(directories):
        fsync_directory(directory)


def _text(value: dict[str, Any]) -> str:
    return json.dumps(value, indent=1, sort_keys=True) + "\n"
