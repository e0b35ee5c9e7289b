"""Which files of a data set's repository are taken, and which repositories are refused.

Repositories publish tables, or a program that makes the rows (a loading script). Nobody else's program is run here.
"""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from sft.runtime.stage import StageError
from sft.sources.hub import some
from sft.sources.hub_errors import nearest_names
from sft.sources.source_files import PICTURES, TABLES


def wanted_files(patterns: Sequence[str] | None, labelled: bool = False) -> list[str]:
    """The given patterns, or those of every table and picture (`labelled`: of every picture)."""
    return list(patterns) if patterns else [f"*{suffix}" for suffix in (PICTURES if labelled else TABLES + PICTURES)]


def check_listing(repository: str, listed: Sequence[str], patterns: Sequence[str] | None) -> None:
    """StageError for a pattern that matches no file, and for a repository whose rows a program makes.

    Where the configuration names files, those are taken and the program counts for nothing.
    """
    for pattern in patterns or ():
        if not any(fnmatchcase(path, pattern) for path in listed):
            hint = nearest_names(pattern, listed) or f" It has {some(listed)}"
            raise StageError(f"source {repository}: no file matches {pattern}.{hint}")
    name = repository.rpartition("/")[2]
    if f"{name}.py" in listed and not patterns:
        tables = [path for path in listed if PurePosixPath(path).suffix.lower() in TABLES]
        own = f"Name its tables: files: [{tables[0]}, …]; or " if tables else ""
        raise StageError(
            f"source {repository}: its rows are made by a program ({name}.py), which is not run here. {own}take the "
            f"tables that the hub made of it: revision: refs/convert/parquet"
        )
