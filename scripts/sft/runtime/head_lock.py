"""Snakemake's lock of the working directory, made to hold while several heads start and end at once.

Snakemake 9.27 looks for other heads' lock files and then writes its own, so of two heads that start together both may
go on; reads the files one by one, so a head that ends meanwhile turns the answer into a FileNotFoundError; and removes
the whole folder at its end, the other heads' locks with it (persistence/file.py). Here looking and writing are one
step, a file that is gone is no lock, and a head takes away its own. What locks mean, and `--unlock`, stay Snakemake's.
"""

import fcntl
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

USED = ("_read_locks", "_write_locks", "_delete_locks", "_lockdir", "_lockfile")


def repair(persistence: Any) -> None:
    """Let `persistence` (Snakemake's) lock in this way, unless it keeps its locks elsewhere than in files."""
    if not all(hasattr(persistence, name) for name in USED):
        return
    folder = Path(persistence._lockdir)
    write, lock = persistence._write_locks, persistence.lock

    def read_locks() -> Iterator[tuple[str, str]]:
        with suppress(FileNotFoundError):
            for file in sorted(folder.glob("*.lock")):  # 0.input.lock, 0.output.lock
                with suppress(FileNotFoundError):
                    yield from ((Path(file.stem).suffix[1:], line) for line in file.read_text().splitlines())

    def write_locks(kind: str, files: Iterable[str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)  # an older head, or --unlock, may have removed it
        write(kind, files)

    def delete_own() -> None:
        for file in persistence._lockfile.values():
            Path(file).unlink(missing_ok=True)
        persistence._lockfile.clear()

    @contextmanager
    def locked() -> Iterator[None]:
        persistence._delete_locks = delete_own
        with ExitStack() as held:
            with _one_at_a_time(folder):
                held.enter_context(lock())
            yield

    persistence._read_locks, persistence._write_locks = read_locks, write_locks
    if "lock" not in vars(persistence):  # a dry run and --nolock have put something else there
        persistence.lock = locked


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Alone among the heads of a working directory, for milliseconds."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name("locks.guard").open("a") as guard:
        with suppress(OSError):  # a file system without locks: as good as Snakemake's own
            fcntl.flock(guard, fcntl.LOCK_EX)
        yield
