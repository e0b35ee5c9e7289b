"""Makes `sft` and the scripts importable, as they are when a script is run by its path; fixtures of all tests."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))


@pytest.fixture
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """What this test starts is not looked at by coverage.py: for tests of how long something takes."""
    monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)


@pytest.fixture
def small_disk(tmp_path: Path):
    """A file system of 600 kB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", disk], capture_output=True)
    if made.returncode:
        pytest.skip("file systems cannot be mounted here (needs root)")
    yield disk
    subprocess.run(["umount", disk], check=True)
