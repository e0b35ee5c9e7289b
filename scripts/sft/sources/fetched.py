"""Files as published, for data sets and for models: from the web, and from the first of several places that has them.

Callers collect the files of one place into `files/` of a stage's attempt; what is here looks at nothing but bytes.
"""

import hashlib
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sft.runtime.manifest import file_digest
from sft.runtime.stage import Stage, StageError
from sft.sources import addresses, archives, local_files

NOT_READ: Mapping[str, str] = {}


def first_that_serves(
    stage: Stage,
    source: dict[str, Any],
    collect: Callable[[Stage, dict[str, Any]], None],
    made: Callable[[dict[str, Any]], Sequence[str]] = lambda place: (),
) -> None:
    """The first alternative whose files have the bytes that the configuration names.

    `collect` makes `files/` of one place. `made`: the names of those that it writes itself, which nobody published.
    """
    reasons: list[str] = []
    others: list[tuple[int, dict[str, str]]] = []
    for number, place in enumerate(source["alternatives"], start=1):
        try:
            collect(stage, place)
            found = digests(stage, made(place))
            if content(found) == source["content"]:
                for index, other in others:
                    reasons[index] += f": {difference(found, other)}"
                # They are proven and linked or copied: the files that they came from may go.
                stage.facts.pop("source_files", None)
                stage.record(served_by={"number": number, **place}, passed_over=reasons, content=source["content"])
                stage.summary(f"{stage.facts['summary']}, from alternative {number}")
                return
            others.append((len(reasons), found))
            reasons.append(f"alternative {number} has other files (content: {content(found)})")
            stage.say(f"alternative {number} has other files: {shown(found, len(found))}")
        except (StageError, OSError) as error:
            reasons.append(f"alternative {number}: {error}")
            stage.say(reasons[-1])
        stage.facts.clear()
        stage.digests.clear()
        shutil.rmtree(stage.attempt / "files", ignore_errors=True)
    for index, other in others:
        reasons[index] += f": {shown(other)}"
    raise StageError(
        f"no alternative of {source['name']} has the files of content {source['content']}: {'; '.join(reasons)}"
    )


def digests(stage: Stage, made: Sequence[str]) -> dict[str, str]:
    """`{name: sha256}` of the files of the attempt as they are published."""
    found = {}
    for path in sorted((stage.attempt / "files").rglob("*")):
        if path.is_file() and path.name not in made:
            name = path.relative_to(stage.attempt)
            sha256 = stage.digests.setdefault(name.as_posix(), file_digest(path))
            found[name.relative_to("files").as_posix()] = sha256
    return found


def content(found: Mapping[str, str]) -> str:
    """What `sha256sum FILES | sha256sum` prints for these files, their names sorted."""
    lines = "".join(f"{sha256}  {name}\n" for name, sha256 in sorted(found.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def difference(right: Mapping[str, str], other: Mapping[str, str]) -> str:
    """Which files are not the right ones, in words; the first four of each kind."""
    kinds = {
        "other bytes in": [name for name in right if name in other and right[name] != other[name]],
        "without": [name for name in right if name not in other],
        "also": [name for name in other if name not in right],
    }
    words = [f"{kind} {', '.join(names[:4])}{', …' * (len(names) > 4)}" for kind, names in kinds.items() if names]
    return "; ".join(words)


def shown(found: Mapping[str, str], most: int = 4) -> str:
    """Files with the beginnings of their digests, to be held against a list of one's own."""
    words = [f"{name} {sha256[:12]}…" for name, sha256 in list(found.items())[:most]]
    return ", ".join(words) + (f" and {len(found) - most} more" if len(found) > most else "") or "no file"


@contextmanager
def from_web(stage: Stage, wanted: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Path], dict[str, str]]]:
    """(`{name: file}`, `{name: sha256}` where that is known) of files on the web, to be placed inside the context.

    What came stands beside the attempt until all of it is whole and placed, also when this process is killed.
    """
    begun, unpacked = stage.directory / ".begun", stage.attempt.with_name(f"{stage.attempt.name}-archive")
    files: dict[str, Path] = {}
    known: dict[str, str] = {}
    for one in wanted:
        path = addresses.fetch([one["url"], *one["mirrors"]], one["sha256"], begun, stage.say)
        if one["unpack"]:
            files |= archives.extract(path, list(one["unpack"]), unpacked)
        else:
            files[one["name"]], known[one["name"]] = path, one["sha256"]
    yield files, known
    placed = {path.resolve(): path for path in (stage.attempt / "files").rglob("*") if path.is_symlink()}
    for path in files.values():
        if target := placed.get(path.resolve()):  # a file system without hard links
            path.replace(target)
    shutil.rmtree(unpacked, ignore_errors=True)
    shutil.rmtree(begun)
    fetched = {one["name"]: one["sha256"] for one in wanted}
    stage.record(fetched=fetched, licence=None, revision=f"sha256:{set_digest(fetched.values())}")


def place(stage: Stage, files: Mapping[str, Path], known: Mapping[str, str] = NOT_READ) -> None:
    """Link files into the result. `known`: sha256 of those that were read already, which need not be read again."""
    for name, path in files.items():
        local_files.place(path, stage.output(f"files/{name}"))
    stage.digests |= {f"files/{name}": sha256 for name, sha256 in known.items()}


def set_digest(sha256: Iterable[str]) -> str:
    """One digest for files whose names do not matter."""
    return hashlib.sha256("".join(sorted(sha256)).encode()).hexdigest()
