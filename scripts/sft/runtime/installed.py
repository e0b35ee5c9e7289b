"""The packages that are installed, against the file that pins them (`envs/<stage>.yaml` or a lock).

Standard library only, and nothing heavy is imported: versions are read from the packages' metadata.
"""

import errno
import json
import os
import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

# `name==version` at the start of a lock's line or in the pip section of a yaml; a marker makes it optional.
_PIN = re.compile(r"^(?:\s+- )?([A-Za-z0-9][A-Za-z0-9._-]*)==([^\s;\\]+)( *;)?", re.MULTILINE)
ROOT = Path(__file__).resolve().parents[3]
SHOWN = 8
VENV_PYTHON = "venv/bin/python"  # of an environment that make_environment made, below its directory


def pins_file(name: str) -> Path:
    """The file of pins that a node names: ours for envs/…; a lock may be the user's own, in the working directory.

    An outer workflow that uses this one as a module has envs/ of its own, and data.yaml is a common name.
    """
    ours_first = Path(name).parts[:1] == ("envs",)
    for path in (ROOT / name, Path(name)) if ours_first else (Path(name), ROOT / name):
        if path.is_file():
            return path
    raise FileNotFoundError(errno.ENOENT, f"the pins of this result are gone ({os.strerror(errno.ENOENT)})", name)


def found(pins: Path) -> tuple[dict[str, Any], dict[str, list[str | None]]]:
    """What is installed of the packages in `pins`, and how it differs.

    `({"python": version, "packages": {name: version}}, {name: [pinned, installed or None]})`. Builds of one version
    (torch 2.13.0+cpu, 2.13.0) do not differ; which one it is stands in the first value. What is pinned for some
    platforms only may be absent.
    """
    pinned = _PIN.findall(pins.read_text(encoding="utf-8"))
    versions = {name: version for name, *_ in pinned if (version := _version(name)) is not None}
    return {"python": platform.python_version(), "packages": versions}, _differences(pinned, versions)


def differences(pins: Path, packages: dict[str, str]) -> dict[str, list[str | None]]:
    """How recorded `packages` differ from `pins`, as the second value of `found`."""
    return _differences(_PIN.findall(pins.read_text(encoding="utf-8")), packages)


def installed_by(python: Path) -> dict[str, str]:
    """Name (as PyPI normalises it) and version of every package that `python` (an executable) finds."""
    program = (
        "import importlib.metadata as m, json, re;"
        "print(json.dumps({re.sub(r'[-_.]+', '-', d.name).lower(): d.version for d in m.distributions()}))"
    )
    done = subprocess.run([python, "-I", "-c", program], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def words(differences: dict[str, list[str | None]]) -> str:
    """`torch 2.9.1 (pinned 2.13.0), trl is not installed (pinned 1.16.0)`."""
    told = [
        f"{name} {version} (pinned {pinned})" if version else f"{name} is not installed (pinned {pinned})"
        for name, (pinned, version) in differences.items()
    ]
    return ", ".join(told[:SHOWN]) + (f" and {len(told) - SHOWN} more" if len(told) > SHOWN else "")


def _differences(pinned: list[tuple[str, str, str]], versions: dict[str, str]) -> dict[str, list[str | None]]:
    differences: dict[str, list[str | None]] = {}
    for name, wanted, optional in pinned:
        version = versions.get(name)
        if (version is None and not optional) or (version and _public(version) != _public(wanted)):
            differences[name] = [wanted, version]
    return differences


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _public(version: str) -> str:
    return version.partition("+")[0]
