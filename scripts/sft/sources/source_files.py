"""Published files on this machine: which of them are taken.

Tables are read by sft/data/read/rows.py. Pictures that rows name by a path must lie in the source directory, so that
their bytes are recorded with it.
"""

import glob
import os
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from sft.runtime.stage import StageError
from sft.terms.nearest import nearest

TABLES = (".parquet", ".arrow", ".jsonl", ".json", ".csv")
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
DOCUMENTS = (".md", ".markdown")
# What `datasets` keeps beside the tables of a directory; none of it is rows.
NOTES = ("dataset_infos.json", "dataset_info.json", "dataset_dict.json", "state.json")


def find_files(source: str, patterns: Sequence[str] | None = None, labelled: bool = False) -> dict[str, Path]:
    """`{name inside the source: absolute path}` of a file, a directory (with its pictures) or a glob of tables.

    Of a directory only what matches one of `patterns`, where they are given. Sorted by name. StageError when nothing is
    there, a pattern matches nothing, or no table is among it (`labelled`: no picture).
    """
    path = Path(source)
    if path.is_dir():
        wanted = [p for p in path.rglob("*") if p.is_file() and p.suffix.lower() in TABLES + PICTURES]
        # Dot files and folders are caches (.cache/huggingface) or the leavings of an editor.
        named = {p.relative_to(path): p for p in wanted}
        named = {name: p for name, p in named.items() if name.name not in NOTES}
        files = {name.as_posix(): p for name, p in named.items() if not any(part[0] == "." for part in name.parts)}
        files = _matching(source, files, patterns) if patterns else files
        what = f"directory {source}"
    elif path.is_file():
        if path.suffix.lower() not in TABLES:
            raise StageError(f"source {source}: {path.suffix or 'no suffix'} is not one of {', '.join(TABLES)}")
        files, what = {path.name: path}, f"file {source}"
    else:
        matches = [Path(match) for match in glob.glob(source, recursive=True)]  # noqa: PTH207 (source may be absolute)
        base = Path(*_fixed_parts(path))
        files = {p.relative_to(base).as_posix(): p for p in matches if p.is_file() and p.suffix.lower() in TABLES}
        if not matches:
            raise StageError(
                f"source {source}: no such directory or file, and no file matches it. Check the data set's source.path"
            )
        what = f"pattern {source}"
    wanted_kinds = PICTURES if labelled else TABLES
    if not any(Path(name).suffix.lower() in wanted_kinds for name in files):
        hint = ". If the class of each picture is the name of its folder, add labels: folder_name" if files else ""
        raise StageError(
            f"source: the {what} has no {'picture' if labelled else 'table'} ({', '.join(wanted_kinds)}){hint}"
        )
    return {name: files[name].absolute() for name in sorted(files)}


def find_documents(patterns: Sequence[str]) -> dict[str, Path]:
    """`{name: path}` of the Markdown documents that files and globs name, sorted.

    Names are relative to where Snakemake runs, or, for documents elsewhere, to the folder that holds them all.
    StageError for a file that is no Markdown, and for none.
    """
    matches = {match for pattern in patterns for match in glob.glob(pattern, recursive=True)}  # noqa: PTH207 (as above)
    found = sorted(path for path in map(Path, matches) if path.is_file())
    if strange := [path.as_posix() for path in found if path.suffix.lower() not in DOCUMENTS]:
        raise StageError(f"source.markdown: {', '.join(strange[:3])}: not one of {', '.join(DOCUMENTS)}")
    if not found:
        raise StageError(f"source.markdown: no document at {', '.join(patterns)}")
    elsewhere = any(path.is_absolute() or ".." in path.parts for path in found)
    root = Path(os.path.commonpath([path.absolute().parent for path in found])) if elsewhere else Path.cwd()
    return {path.absolute().relative_to(root).as_posix(): path for path in found}


def tables(directory: Path) -> list[str]:
    """Names of the tables below `directory`, sorted."""
    found = (p for p in directory.rglob("*") if p.suffix.lower() in TABLES and p.is_file())
    return sorted(p.relative_to(directory).as_posix() for p in found)


def _matching(source: str, files: dict[str, Path], patterns: Sequence[str]) -> dict[str, Path]:
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in files):
            near = nearest(pattern, files)
            hint = (
                f"Did you mean {near}?"
                if near
                else f"It has {', '.join(sorted(files)[:8]) or 'no table and no picture'}"
            )
            raise StageError(f"source {source}: no file matches {pattern}. {hint}")
    return {name: path for name, path in files.items() if any(fnmatchcase(name, pattern) for pattern in patterns)}


def _fixed_parts(pattern: Path) -> list[str]:
    """The leading parts of a glob pattern that hold no wildcard."""
    fixed = []
    for part in pattern.parts[:-1]:
        if any(sign in part for sign in "*?["):
            break
        fixed.append(part)
    return fixed
