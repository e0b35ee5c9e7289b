"""The archive: deterministic, small, and enough to draw everything again on a clean clone."""

import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import made_up_experiment as made
import pytest

from sft.runtime import manifest
from sft_command import sft

EXPERIMENT = Path("results/experiments/digits_shift")


def script(rule: str, directory: Path, cwd: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, str(made.ROOT / "scripts" / f"{rule}.py"), str(directory)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)


pytestmark = pytest.mark.slow  # draws every figure


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with one finished experiment (one figure, its table) and its archive."""
    root = tmp_path_factory.mktemp("workplace")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        cells, inputs = made.write_runs(Path("results"), ("full", "lora"))
        config = {"experiment": "digits_shift", "cells": cells, "datasets": made.IDS}
        shown = made.shown(("full", "lora"))
        ledger = made.write_node(EXPERIMENT / "ledger", "collect_metrics", config, inputs)
        figure = made.write_node(EXPERIMENT / "figures/comparison", "plot_comparison", shown, {"ledger": ledger})
        table = made.write_node(EXPERIMENT / "table", "tabulate_results", shown, {"ledger": ledger})
        above = {
            "ledger-digits_shift": ledger,
            "table-digits_shift": table,
            "figure-digits_shift-comparison": figure,
        }
        made.write_node(Path("results/archive"), "archive", {"experiments": {"digits_shift": {}}}, above)
    for rule, directory in (
        ("collect_metrics", ledger),
        ("plot_comparison", figure),
        ("tabulate_results", table),
        ("archive", Path("results/archive")),
    ):
        done = script(rule, directory, root)
        assert done.returncode == 0, done.stderr
    return root


def members(workplace: Path) -> dict[str, bytes]:
    with tarfile.open(workplace / "results/archive/archive.tar.gz") as archive:
        return {member.name: archive.extractfile(member).read() for member in archive.getmembers()}


def test_packing_twice_gives_the_same_bytes_without_times_or_owners(workplace: Path):
    before = (workplace / "results/archive/archive.tar.gz").read_bytes()
    assert script("archive", Path("results/archive"), workplace).returncode == 0
    assert (workplace / "results/archive/archive.tar.gz").read_bytes() == before
    with tarfile.open(fileobj=io.BytesIO(before)) as archive:
        told = archive.getmembers()
    assert [member.name for member in told] == sorted(member.name for member in told)
    assert {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in told} == {(0, 0, 0, "", "", 0o644)}
    assert before[4:8] == b"\0\0\0\0"  # the time in the gzip header (RFC 1952)


def test_it_holds_ledger_and_configurations_but_no_figures(workplace: Path):
    names = set(members(workplace))
    ledger = {f"{EXPERIMENT}/ledger/{n}" for n in ("ledger.parquet", "ledger.csv", "runs.csv", "provenance.json")}
    assert ledger <= names
    assert {f"{EXPERIMENT}/ledger/manifest.json", f"{EXPERIMENT}/figures/comparison/config.json"} <= names
    assert not [name for name in names if name.endswith((".png", ".pdf", ".svg"))]
    assert sum(map(len, members(workplace).values())) < 2**20


def test_it_says_what_it_holds(workplace: Path):
    told = json.loads(members(workplace)["results/archive.json"])
    assert (told["schema"], told["experiments"]) == (1, ["digits_shift"])
    figure = workplace / EXPERIMENT / "figures/comparison/comparison.svg"
    assert told["figures"][f"{EXPERIMENT}/figures/comparison/comparison.svg"] == manifest.file_digest(figure)
    assert told["nodes"][f"{EXPERIMENT}/table"]["rule"] == "tabulate_results"
    assert told["versions"][f"{EXPERIMENT}/figures/comparison"]["matplotlib"]


def test_no_host_name_is_published(workplace: Path):
    import platform

    for name, content in members(workplace).items():
        if name.endswith(".json"):
            assert b'"host"' not in content, name
    assert f'"{platform.node()}"'.encode() not in b"".join(members(workplace).values())


@pytest.mark.slow
def test_a_clean_clone_draws_the_published_bytes(workplace: Path, tmp_path: Path):
    with tarfile.open(workplace / "results/archive/archive.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    done = sft("verify", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len([line for line in done.stdout.splitlines() if line.startswith("equal")]) == 2
    assert not list((tmp_path / EXPERIMENT / "figures").rglob("*.svg"))  # verifying leaves nothing behind


def test_a_changed_ledger_is_not_drawn(workplace: Path, tmp_path: Path):
    with tarfile.open(workplace / "results/archive/archive.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    (tmp_path / EXPERIMENT / "ledger/ledger.parquet").write_bytes(b"PAR1")
    done = sft("verify", cwd=tmp_path)
    assert done.returncode == 1
    assert "is not what was written" in done.stdout


def test_a_path_outside_of_the_repository_is_refused(workplace: Path, tmp_path: Path):
    above = {"ledger-x": (workplace / EXPERIMENT / "ledger").absolute()}
    directory = made.write_node(tmp_path / "archive", "archive", {"experiments": {"x": {}}}, above)
    done = script("archive", directory, tmp_path)
    assert done.returncode == 1
    assert "would unpack nowhere" in done.stderr
