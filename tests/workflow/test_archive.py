"""The archive: unpacked over a clean clone it redraws every figure and table, byte for byte, and trains nothing."""

import json
import os
import subprocess
import tarfile
from pathlib import Path

import pytest
from checkouts import SNAKEMAKE, Checkout, new_checkout

from sft.runtime.manifest import file_digest

pytestmark = pytest.mark.slow

# What a plotting environment does not have.
ABSENT = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "sklearn", "bitsandbytes", "tensorboard")


@pytest.fixture(scope="module")
def redrawn(finished: Checkout, tmp_path_factory: pytest.TempPathFactory) -> tuple[Checkout, str]:
    """A clean clone with the archive unpacked, after `snakemake --cores 1 figures` without the training packages."""
    folder = tmp_path_factory.mktemp("redrawn")
    clone = new_checkout(folder / "clone")
    with tarfile.open(finished.path / "results/archive/archive.tar.gz") as archive:
        archive.extractall(clone.path, filter="data")
    blocked = folder / "blocked"
    blocked.mkdir()
    (blocked / "sitecustomize.py").write_text(f"import sys\nfor name in {ABSENT}:\n    sys.modules[name] = None\n")
    done = subprocess.run(
        [SNAKEMAKE, "--cores", "1", "figures"],
        cwd=clone.path,
        env=os.environ | {"PYTHONPATH": str(blocked)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return clone, done.stdout + done.stderr


def shown(checkout: Checkout) -> dict[str, str]:
    """Relative path -> sha256 of every figure and table."""
    folders = [p for name in ("figures", "table") for p in (checkout.path / "results/experiments").glob(f"*/{name}")]
    files = [
        p
        for folder in folders
        for p in folder.rglob("*")
        if p.suffix in (".pdf", ".svg", ".png", ".csv", ".md", ".tex")
    ]
    return {p.relative_to(checkout.path).as_posix(): file_digest(p) for p in files}


def test_every_figure_and_table_is_the_same_byte_for_byte(finished: Checkout, redrawn: tuple[Checkout, str]) -> None:
    before, after = shown(finished), shown(redrawn[0])
    assert len(before) >= 2 * (4 * 4 + 3)
    assert after == before


def test_nothing_else_is_planned(redrawn: tuple[Checkout, str]) -> None:
    for rule in ("train_model", "download_dataset", "collect_metrics", "predict"):
        assert rule not in redrawn[1]
    assert "figures are drawn from the archive" in redrawn[1]


def test_a_second_time_there_is_nothing_to_do(redrawn: tuple[Checkout, str]) -> None:
    assert redrawn[0].planned("figures") == {}


def test_archive_is_small_and_names_no_machine(finished: Checkout, tmp_path: Path) -> None:
    path = finished.path / "results/archive/archive.tar.gz"
    assert path.stat().st_size < 2**20
    with tarfile.open(path) as archive:
        members = archive.getmembers()
        archive.extractall(tmp_path, filter="data")
    assert {(m.mtime, m.uid, m.gid, m.uname, m.gname) for m in members} == {(0, 0, 0, "", "")}
    assert all(not m.name.startswith(("/", "..")) for m in members)
    recorded = json.loads((tmp_path / "results/archive.json").read_text())
    assert set(recorded["experiments"]) == {"words", "more_words"}
