"""Files of the user that a result was made from: written down with name, size, time and digest, and looked at again.

Names inside the working directory are written relative to it, so that a moved checkout is no change. The time only
spares a digest: a file whose size and time are as recorded is taken as unchanged, any other is read again.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sft.runtime.manifest import file_digest


def describe(paths: Iterable[Path]) -> dict[str, dict[str, Any]]:
    """`{name: {bytes, mtime_ns, sha256}}` of files, sorted by name."""
    described = {}
    for name, path in sorted((recorded_name(path), path) for path in paths):
        status = path.stat()
        described[name] = {"bytes": status.st_size, "mtime_ns": status.st_mtime_ns, "sha256": file_digest(path)}
    return described


def describe_directory(directory: Path) -> dict[str, dict[str, Any]]:
    """`describe` of the files that lie directly in `directory`."""
    return describe(path for path in directory.iterdir() if path.is_file())


def recorded_name(path: Path) -> str:
    """The path relative to the working directory where it lies inside, absolute elsewhere."""
    absolute = path.absolute()
    return (absolute.relative_to(Path.cwd()) if absolute.is_relative_to(Path.cwd()) else absolute).as_posix()


def change(name: str, expected: dict[str, Any]) -> str:
    """Why a file is not the one that was read, in words; empty where it is (a mere touch is no change)."""
    path = Path(name)
    if not path.is_file():
        return f"its source {name} is gone"
    status = path.stat()
    if status.st_size == expected["bytes"] and status.st_mtime_ns == expected["mtime_ns"]:
        return ""
    if status.st_size != expected["bytes"] or file_digest(path) != expected["sha256"]:
        return f"its source {name} has other bytes now"
    return ""


def place(source: Path, target: Path) -> None:
    """Show `source` as `target` without copying it: a hard link, or a symbolic one across file systems."""
    try:
        os.link(source.resolve(), target)
    except OSError:
        target.symlink_to(source.resolve())
