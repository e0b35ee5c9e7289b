"""Manifests: what stands beside every result, written last, so that a result without one is not a result.

A manifest holds the resolved configuration, the digests of what the result was made from and of what was
made, the code digest, the packages really imported, and where, when and at what cost it ran. Its `key` is
the full key of the result: configuration, code, environment and the bytes it was made from.
"""

import hashlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from sft.runtime.canonical import digest

NAME = "manifest.json"

SCHEMA = 1
# What every reader may take for granted of one.
SHAPE = {
    **dict.fromkeys(("identity_digest", "code", "key", "content"), str),
    **dict.fromkeys(("config", "inputs", "outputs", "facts"), dict),
}
PARTS = {"inputs": ("key", "content"), "outputs": ("bytes", "sha256")}

# Import name -> distribution name, for the packages whose version can change a result.
RECORDED_PACKAGES = {
    "accelerate": "accelerate",
    "bitsandbytes": "bitsandbytes",
    "datasets": "datasets",
    "jinja2": "jinja2",
    "matplotlib": "matplotlib",
    "numpy": "numpy",
    "pandas": "pandas",
    "peft": "peft",
    "PIL": "pillow",
    "pyarrow": "pyarrow",
    "safetensors": "safetensors",
    "seaborn": "seaborn",
    "sklearn": "scikit-learn",
    "tensorboard": "tensorboard",
    "tokenizers": "tokenizers",
    "torch": "torch",
    "transformers": "transformers",
    "trl": "trl",
}


def read(directory: Path | str) -> dict[str, Any] | None:
    """The manifest of a result directory, or None where there is none (nothing there counts as a result)."""
    try:
        made = json.loads((Path(directory) / NAME).read_text())
    except (FileNotFoundError, IsADirectoryError, ValueError):
        return None
    # A manifest is renamed into place whole; one of another form was damaged later and proves nothing.
    return made if _is_whole(made) else None


def _is_whole(made: Any) -> bool:
    if not isinstance(made, dict) or made.get("schema") != SCHEMA:
        return False
    if not all(isinstance(made.get(name), kind) for name, kind in SHAPE.items()):
        return False
    return isinstance(made["facts"].get("source_files", {}), dict) and all(
        isinstance(entry, dict) and all(key in entry for key in keys)
        for name, keys in PARTS.items()
        for entry in made[name].values()
    )


def write(directory: Path, manifest: dict[str, Any]) -> None:
    """Write `manifest.json` durably: temporary file, fsync, rename, fsync of the directory."""
    write_durably(directory / NAME, json.dumps(manifest, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


def write_durably(path: Path, text: str) -> None:
    """Replace `path` by `text` so that a crash leaves the old or the new content, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)  # what little room there is on a full disk is needed
        raise
    fsync_directory(path.parent)


def fsync_directory(directory: Path) -> None:
    """Make renames in `directory` survive a power cut."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def file_digest(path: Path) -> str:
    """sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def describe_files(root: Path, known: Mapping[str, str] | None = None) -> dict[str, dict[str, Any]]:
    """`{relative path: {bytes, sha256}}` of every file below `root`, sorted by path.

    `known`: digests of files that were read a moment ago, by relative path; hundreds of GB are not read twice.
    """
    files = {path.relative_to(root).as_posix(): path for path in sorted(root.rglob("*")) if path.is_file()}
    return {
        name: {"bytes": path.stat().st_size, "sha256": (known or {}).get(name) or file_digest(path)}
        for name, path in files.items()
    }


def full_key(rule: str, identity: Any, code: str, environment: str, inputs: dict[str, dict[str, Any]]) -> str:
    """The full key of a result (64 hexadecimal digits): what was asked, by which code, where, from which bytes."""
    return digest(
        {
            "rule": rule,
            "identity": identity,
            "code": code,
            "environment": environment,
            "inputs": {name: {"key": made["key"], "content": made["content"]} for name, made in inputs.items()},
        }
    )


def imported_versions() -> dict[str, str]:
    """Versions of the recorded packages that this process really imported."""
    return {
        distribution: metadata.version(distribution)
        for module, distribution in sorted(RECORDED_PACKAGES.items())
        if module in sys.modules
    }


def git_state(directory: Path) -> dict[str, Any]:
    """`{commit, dirty}` of the checkout that holds `directory`; both None outside git or without it."""

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(directory), *arguments], capture_output=True, text=True, timeout=10, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    status = git("status", "--porcelain", "--untracked-files=no")
    return {"commit": git("rev-parse", "HEAD"), "dirty": None if status is None else bool(status)}


def machine() -> dict[str, Any]:
    """Where this process runs; a record for readers, never part of a key."""
    return {
        "host": platform.node(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
    }
