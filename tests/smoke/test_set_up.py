"""tools/set_up.py makes an environment once, notices a changed lock, and touches nothing that is not its own."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("checkout")
    shutil.copytree(ROOT / "locks", root / "locks")
    (root / "tools").mkdir()
    for name in ("tools/set_up.py", "tools/pins.py"):
        shutil.copy(ROOT / name, root / name)
    # The smallest lock there is: the installer alone.
    shutil.copy(root / "locks/uv.txt", root / "locks/small.txt")
    return root


def set_up(checkout: Path, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, checkout / "tools/set_up.py", "--environment", checkout / "env", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_an_environment_is_made_once_and_again_when_its_lock_changes(checkout):
    made = set_up(checkout, "--only", "locks/small.txt")
    assert made.returncode == 0, made.stdout + made.stderr
    assert "holds locks/small.txt" in made.stdout
    note = json.loads((checkout / "env/set-up.json").read_text())
    assert list(note["installed"]) == ["locks/small.txt"]

    assert set_up(checkout, "--only", "locks/small.txt").stdout == ""

    with (checkout / "locks/small.txt").open("a") as lock:
        lock.write("# changed\n")
    assert "holds locks/small.txt" in set_up(checkout, "--only", "locks/small.txt").stdout


def test_a_file_with_other_bytes_than_the_lock_says_is_refused(checkout):
    lock = checkout / "locks/wrong.txt"
    lock.write_text(f"idna==3.10 \\\n    --hash=sha256:{'0' * 64}\n")
    done = set_up(checkout, "--only", "locks/wrong.txt")
    assert done.returncode != 0
    assert "ash" in done.stderr
    assert "idna" in done.stderr
    assert not (checkout / "env/set-up.json").exists()


def test_plain_pip_installs_the_same_and_removes_what_no_lock_has(checkout):
    assert set_up(checkout, "--only", "locks/small.txt").returncode == 0
    (checkout / "env/set-up.json").unlink()  # as after an installation that failed half-way
    python = checkout / "env/bin/python"
    stray = next((checkout / "env/lib").glob("python3*/site-packages")) / "stray-1.0.dist-info"
    stray.mkdir()
    (stray / "METADATA").write_text("Metadata-Version: 2.1\nName: stray\nVersion: 1.0\n")
    (stray / "RECORD").write_text("stray-1.0.dist-info/METADATA,,\nstray-1.0.dist-info/RECORD,,\n")
    done = set_up(checkout, "--only", "locks/small.txt", "--no-uv")
    assert done.returncode == 0, done.stdout + done.stderr
    listed = subprocess.run([python, "-m", "pip", "list"], capture_output=True, text=True, check=True).stdout
    assert "uv " in listed
    assert "stray" not in listed


def test_a_folder_that_is_no_environment_is_left_alone(checkout, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/file").touch()
    done = set_up(checkout, "--environment", str(tmp_path / "mine"))
    assert done.returncode != 0
    assert "is not a virtual environment" in done.stderr
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["file"]
