"""What the code was that made results: `results/code/<first 16 digits of its digest>.json`, once for each digest.

Only for people: with it `sft check` tells which function an edit changed. Whether a result is made again depends on
the digest in its manifest alone, so these files may be deleted.
"""

import json
from pathlib import Path

from sft.runtime import manifest

FOLDER = "code"


def keep(directory: Path, rule: str, code: str, parts: dict[str, dict[str, str]]) -> None:
    """Write what the code with the digest `code` consists of, unless that can be read there already.

    `directory`: a result that it made; `parts`: sft.runtime.code.describe.
    """
    path = _path(directory, code)
    if read(directory, code) is None:
        path.parent.mkdir(exist_ok=True)
        text = json.dumps({"rule": rule, "code": code, "parts": parts}, indent=1, sort_keys=True)
        manifest.write_durably(path, text + "\n")


def read(directory: Path, code: str) -> dict[str, dict[str, str]] | None:
    """The parts that `keep` wrote; None where they are not there, or are not what it wrote any more."""
    try:
        parts = json.loads(_path(directory, code).read_text())["parts"]
        whole = all(isinstance(made, str) for inside in parts.values() for made in inside.values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return parts if whole and parts else None


def _path(directory: Path, code: str) -> Path:
    """Below the folder `results` that holds the directory; beside the directory where there is none."""
    root = next((path for path in directory.parents if path.name == "results"), directory.parent)
    return root / FOLDER / f"{code[:16]}.json"
