"""What is installed against what is pinned."""

import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from sft.runtime import installed

ROOT = Path(__file__).resolve().parents[2]
TORCH = metadata.version("torch")


@pytest.mark.parametrize("pins", ["envs/data.yaml", "envs/train.yaml", "envs/report.yaml", "locks/cpu.txt"])
def test_these_tests_run_in_the_pinned_environment(pins: str):
    environment, differences = installed.found(ROOT / pins)
    assert differences == {}
    assert environment["packages"]["numpy"] == metadata.version("numpy")


def test_differences_are_found_and_told(tmp_path: Path):
    pins = tmp_path / "pins.txt"
    pins.write_text(
        f"torch=={TORCH.partition('+')[0]} \\\n    --hash=sha256:00\nnumpy==1.0\nnot-here==2.0\n"
        "not-for-us==1.0 ; sys_platform == 'win32'\npandas==0.1 ; sys_platform != 'emscripten'\n"
    )
    environment, differences = installed.found(pins)
    assert environment["packages"]["torch"] == TORCH  # the build is recorded, and is no difference
    assert set(differences) == {"numpy", "not-here", "pandas"}
    assert installed.words({"numpy": ["1.0", "2.4"], "not-here": ["2.0", None]}) == (
        "numpy 2.4 (pinned 1.0), not-here is not installed (pinned 2.0)"
    )


def test_pins_that_are_gone_are_named():
    with pytest.raises(FileNotFoundError, match="the pins of this result are gone") as error:
        installed.pins_file("locks/of-nobody.txt")
    assert error.value.filename == "locks/of-nobody.txt"


def run_in(tmp_path: Path, policy: str) -> tuple[subprocess.CompletedProcess, Path]:
    """Run a stage whose pins are not what is installed."""
    directory = tmp_path / "node"
    directory.mkdir()
    pins = tmp_path / "old.yaml"
    pins.write_text("dependencies:\n  - pip:\n      - numpy==1.0\n")
    node = {
        "rule": "download_dataset",
        "id": "digits",
        "config": {"source": {"package": "scikit-learn", "name": "digits"}},
        "identity": {},
        "inputs": {},
        "environment": {"policy": policy, "pins": str(pins)},
    }
    (directory / "config.json").write_text(json.dumps(node))
    command = [sys.executable, str(ROOT / "scripts/download_dataset.py"), str(directory)]
    return subprocess.run(command, capture_output=True, text=True), directory


@pytest.mark.slow
def test_strict_stops_before_the_work_and_says_what_to_do(tmp_path: Path):
    done, directory = run_in(tmp_path, "strict")
    assert done.returncode == 1
    assert "old.yaml pins: numpy" in done.stderr
    assert "(pinned 1.0)" in done.stderr
    assert "--config environment=record" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (directory / "manifest.json").exists()


@pytest.mark.slow
def test_record_goes_on_and_says_so_in_the_manifest(tmp_path: Path):
    done, directory = run_in(tmp_path, "record")
    assert done.returncode == 0, done.stderr
    made = json.loads((directory / "manifest.json").read_text())
    assert made["not_as_pinned"] == {"numpy": ["1.0", metadata.version("numpy")]}
    assert made["packages"] == {"numpy": metadata.version("numpy")}
