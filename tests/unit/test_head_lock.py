"""Snakemake's lock with sft.runtime.head_lock: what several heads in one folder do to each other, and what stays."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from snakemake.exceptions import LockException
from snakemake.persistence.file import FilePersistence

from sft.runtime.head_lock import repair

ROOT = Path(__file__).resolve().parents[2]


def head(folder: Path, *outputs: str, mended: bool = True, **options: bool) -> FilePersistence:
    """What a Snakemake that is about to make `outputs` locks with."""
    job = SimpleNamespace(input=["data"], output=list(outputs))
    settings = SimpleNamespace(dag_settings=SimpleNamespace(max_checksum_file_size=0))
    dag = SimpleNamespace(jobs=[job], needrun_jobs=lambda: [job], workflow=settings)
    persistence = FilePersistence(dag=dag, path=folder / ".snakemake", **options)
    if mended:
        repair(persistence)
    return persistence


def test_a_second_head_is_refused_until_the_first_has_ended(tmp_path: Path):
    first, second = head(tmp_path, "a", "b"), head(tmp_path, "b", "c")
    with first.lock(), pytest.raises(LockException), second.lock():
        pass
    with second.lock(), pytest.raises(LockException), first.lock():
        pass


def test_a_refused_head_leaves_the_lock_of_the_first(tmp_path: Path):
    first, second = head(tmp_path, "a"), head(tmp_path, "a")
    with first.lock():
        for _ in range(2):
            with pytest.raises(LockException), second.lock():
                pass
    with second.lock():
        pass


def test_a_head_that_fails_lets_go(tmp_path: Path):
    with pytest.raises(ZeroDivisionError), head(tmp_path, "a").lock():
        raise ZeroDivisionError
    with head(tmp_path, "a").lock():
        pass


def test_a_head_whose_locks_cannot_be_written_lets_go(tmp_path: Path):
    class Unspeakable:
        def __str__(self) -> str:
            return "\ud800"  # no file takes it

    with pytest.raises(UnicodeEncodeError), head(tmp_path, "a", Unspeakable()).lock():
        pass
    assert list((tmp_path / ".snakemake/locks").iterdir()) == []
    with head(tmp_path, "a").lock():
        pass


def third_is_refused(folder: Path, mended: bool) -> bool:
    """Two heads that make different files; the first ends; a third wants what the second makes."""
    first, second, third = (head(folder, name, mended=mended) for name in ("a", "b", "b"))
    with first.lock():
        held = second.lock()
        held.__enter__()
    try:
        with third.lock():
            return False
    except LockException:
        return True
    finally:
        held.__exit__(None, None, None)


def test_a_head_that_ends_takes_away_its_own_lock_only(tmp_path: Path):
    assert third_is_refused(tmp_path / "mended", mended=True)
    # The day this fails, Snakemake does so by itself.
    with pytest.raises(FileNotFoundError):
        third_is_refused(tmp_path / "stock", mended=False)


@pytest.mark.parametrize("mended", [True, False])
def test_a_lock_that_goes_away_while_locks_are_read(tmp_path: Path, mended: bool):
    with head(tmp_path, "a").lock(), head(tmp_path, "b").lock():
        reading = iter(head(tmp_path, "c", mended=mended)._read_locks())
        next(reading)
        for file in (tmp_path / ".snakemake/locks").iterdir():
            file.unlink()
        if mended:
            assert [kind for kind, _ in reading] == []
        else:
            with pytest.raises(FileNotFoundError):
                list(reading)


def test_unlock_removes_what_a_killed_head_has_left(tmp_path: Path):
    killed = head(tmp_path, "a")
    killed.lock().__enter__()
    head(tmp_path, "a").cleanup_locks()
    with head(tmp_path, "a").lock():
        pass


@pytest.mark.parametrize("option", ["nolock", "warn_only"])
def test_dry_runs_and_jobs_stay_without_a_lock(tmp_path: Path, option: str):
    with head(tmp_path, "a").lock(), head(tmp_path, "a", **{option: True}).lock():
        assert len(list((tmp_path / ".snakemake/locks").iterdir())) == 2
    with head(tmp_path, "a", **{option: True}).lock():
        assert list((tmp_path / ".snakemake/locks").iterdir()) == []


# Four processes that take the lock again and again; says how often they had it, and whatever was no refusal.
COMPETITION = """
import os, sys, traceback
sys.path[:0] = sys.argv[1:3]
from pathlib import Path
from test_head_lock import head, LockException
folder, mended = Path(sys.argv[3]), sys.argv[4] == "mended"
for _ in range(4):
    if os.fork() == 0:
        try:
            for _ in range(150):
                try:
                    with head(folder, "a", mended=mended).lock():
                        os.close(os.open(folder / "alone", os.O_CREAT | os.O_EXCL))
                        print("had", flush=True)
                        os.unlink(folder / "alone")
                except LockException:
                    pass
        except BaseException:
            traceback.print_exc()
        os._exit(0)
for _ in range(4):
    os.wait()
"""


def competition(folder: Path, how: str) -> tuple[int, str]:
    """How often four processes had the lock together, and what they said on stderr."""
    folder.mkdir()
    command = [sys.executable, "-c", COMPETITION, ROOT / "scripts", ROOT / "tests/unit", folder, how]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.count("had"), done.stderr


@pytest.mark.slow
def test_of_heads_that_start_at_once_one_goes_on(tmp_path: Path):
    had, errors = competition(tmp_path / "mended", "mended")
    assert errors == ""
    assert had > 0
    assert list((tmp_path / "mended/.snakemake/locks").iterdir()) == []
    _, errors = competition(tmp_path / "stock", "stock")
    assert "FileNotFoundError" in errors or "FileExistsError" in errors
