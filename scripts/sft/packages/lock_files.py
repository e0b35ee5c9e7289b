"""The locks that an experiment can name: locks/<name>.txt of the working directory, or of the checkout."""

import re
from pathlib import Path

from sft.runtime.canonical import digest

HERE = Path(__file__).resolve().parents[3] / "locks"
TOOLS = ("test", "uv", "conda")  # locks of tools, in which nothing can be trained
_PIN = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==([^\s;\\]+)", re.MULTILINE)


def normal(package: str) -> str:
    """The name by which PyPI knows a package (PEP 503)."""
    return re.sub(r"[-_.]+", "-", package).lower()


def lock_file(name: str) -> Path | None:
    """The lock of that name, None where there is none."""
    paths = (Path("locks") / f"{name}.txt", HERE / f"{name}.txt")
    return None if name in TOOLS else next((path for path in paths if path.is_file()), None)


def lock_names() -> list[str]:
    """Every name that `lock_file` knows."""
    found = {path.stem for folder in (Path("locks"), HERE) for path in folder.glob("*.txt")}
    return sorted(found - set(TOOLS))


def lock_packages(name: str) -> dict[str, str]:
    """The packages of a lock and their versions."""
    path = lock_file(name)
    if path is None:
        raise FileNotFoundError(f"locks/{name}.txt")
    return dict(_PIN.findall(path.read_text(encoding="utf-8")))


def lock_digest(name: str) -> str:
    """What identifies a lock: its packages and versions, whatever the file is called and however it is written."""
    return digest(lock_packages(name))
