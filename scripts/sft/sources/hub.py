"""Files of a repository on the Hugging Face hub, fetched by its own client and held against what the hub says of them.

    snapshot = fetch("dataset", "org/name", "main", ["*.parquet"])

The client keeps files in its cache (HF_HOME), by content; a download that was broken off goes on there, and other
programs of the user find them. A commit whose files are in the cache needs no network. The token is the client's own
matter (HF_TOKEN, or `hf auth login`); it is never read here.
"""

import hashlib
import re
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from sft.runtime.manifest import file_digest
from sft.runtime.stage import StageError
from sft.sources.hub_errors import explained
from sft.sources.source_files import NOTES

COMMIT = re.compile(r"[0-9a-f]{40}")
CARD = "README.md"
# What the hub or `datasets` keeps beside the data; none of it is data.
NOT_DATA = (".*", "*/.*", *NOTES, *(f"*/{name}" for name in NOTES))
TRIES = 5

T = TypeVar("T")


@dataclass(frozen=True)
class Snapshot:
    """Files of one commit. `files`: {path in the repository: where the file lies in the client's cache}."""

    kind: str
    repository: str
    revision: str
    commit: str
    folder: Path
    files: dict[str, Path]
    sha256: dict[str, str]
    listed: list[str]  # every path in the repository
    licence: str | None
    offline: bool

    def facts(self) -> dict[str, Any]:
        """For the manifest: which commit the revision meant, and who said so."""
        from huggingface_hub import constants

        return {
            "repository": self.repository,
            "asked_revision": self.revision,
            "commit": self.commit,
            "hub": constants.ENDPOINT,
            "resolved": "from the cache, offline" if self.offline else "by the hub",
            "licence": self.licence,
        }

    def __str__(self) -> str:
        words = f"{self.repository} at commit {self.commit}"
        if self.revision == self.commit:
            return words
        return f"{words} ({self.revision} may move: pin it with revision: {self.commit})"


def fetch(
    kind: str,
    repository: str,
    revision: str,
    patterns: Sequence[str],
    needed: Callable[[list[str]], None] = lambda listed: None,
    say: Callable[[str], None] = lambda text: None,
) -> Snapshot:
    """The files of `repository` (a "dataset" or a "model") at `revision` that match `patterns`, and its card.

    `needed` looks at all paths of the repository before anything is fetched, and raises StageError where it will not
    do. StageError also when the hub refuses, nothing matches, the disk is too small or a file is not what it should be.
    """
    from huggingface_hub import snapshot_download

    with explained(kind, repository, revision):
        commit, offline = _commit(kind, repository, revision)
        sizes = _sizes(kind, repository, commit)
        needed(sorted(sizes))
        chosen = _chosen(sizes, patterns, repository)
        missing = _missing(kind, repository, commit, chosen)
        if missing:
            _check_space(repository, sum(sizes[name] for name in missing))
            size = sum(sizes[name] for name in missing) / 1e6
            say(f"fetching {len(missing)} files ({size:,.1f} MB) of {repository} at {commit}")
        exact = [_literally(name) for name in [*chosen, CARD]] if len(chosen) < 100 else [*patterns, CARD]
        fetched = _patiently(
            lambda: snapshot_download(
                repository, repo_type=kind, revision=commit, allow_patterns=exact, ignore_patterns=list(NOT_DATA)
            )
        )
    folder = Path(fetched)
    if absent := [name for name in chosen if not (folder / name).is_file()]:
        raise StageError(f"source {repository}: the client brought no {', '.join(absent[:3])}. Start again")
    files = {name: folder / name for name in chosen}
    sha256 = {name: _checked(path, name, repository) for name, path in files.items()}
    return Snapshot(
        kind, repository, revision, commit, folder, files, sha256, sorted(sizes), _licence(folder / CARD), offline
    )


def _commit(kind: str, repository: str, revision: str) -> tuple[str, bool]:
    """The commit that `revision` means, and whether that was read in the cache because the user is offline."""
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HfHubHTTPError, RevisionResolutionError

    if COMMIT.fullmatch(revision):
        return revision, False
    api = HfApi()
    if constants.is_offline_mode():
        found = api.resolve_revision(repository, repo_type=kind, revision=revision, local_files_only=True)
        return found.resolved, True
    # Not resolve_revision: when the hub does not answer it gives an earlier commit without a word.
    commit = _patiently(lambda: api.repo_info(repository, repo_type=kind, revision=revision, timeout=30)).sha
    with suppress(RevisionResolutionError, HfHubHTTPError):  # only to have it in the cache, for work offline
        api.resolve_revision(repository, repo_type=kind, revision=revision)
    if commit is None:
        raise StageError(f"source {repository}: the hub names no commit for revision {revision}. Give a commit")
    return commit, False


def _patiently(call: Callable[[], T]) -> T:
    """`call`, again where the hub asks to wait (429) or is down for a moment: the client does that not everywhere."""
    from huggingface_hub.errors import HfHubHTTPError

    for attempt in range(TRIES):
        try:
            return call()
        except HfHubHTTPError as error:
            if error.response.status_code not in (429, 500, 502, 503, 504) or attempt == TRIES - 1:
                raise
            asked = error.response.headers.get("Retry-After", "")
            time.sleep(int(asked) if asked.isdigit() else 2**attempt)
    raise AssertionError("unreachable")


def _sizes(kind: str, repository: str, commit: str) -> dict[str, int]:
    """`{path: bytes}` of every file of the commit; from the cache where it was listed before."""
    from huggingface_hub import HfApi, get_cached_repo_tree
    from huggingface_hub.errors import CachedRepoTreeNotFoundError
    from huggingface_hub.hf_api import RepoFile

    try:
        entries: Iterable[object] = get_cached_repo_tree(repository, repo_type=kind, revision=commit)
    except CachedRepoTreeNotFoundError:
        api = HfApi()
        entries = _patiently(
            lambda: list(api.list_repo_tree(repository, repo_type=kind, revision=commit, recursive=True))
        )
    return {entry.path: entry.size for entry in entries if isinstance(entry, RepoFile)}


def _chosen(sizes: dict[str, int], patterns: Sequence[str], repository: str) -> list[str]:
    from huggingface_hub.utils import filter_repo_objects

    names = sorted(sizes)
    chosen = list(filter_repo_objects(names, allow_patterns=list(patterns), ignore_patterns=list(NOT_DATA)))
    if not chosen:
        raise StageError(f"source {repository}: no file matches {some(patterns)}; it has {some(names)}")
    return chosen


def some(names: Sequence[str]) -> str:
    """The first eight of `names`, in words."""
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "") if names else "no file"


def _literally(name: str) -> str:
    """A pattern that matches this name only."""
    return re.sub(r"([*?[])", r"[\1]", name)


def _missing(kind: str, repository: str, commit: str, names: Sequence[str]) -> list[str]:
    from huggingface_hub import try_to_load_from_cache

    def cached(name: str) -> bool:
        return isinstance(try_to_load_from_cache(repository, name, repo_type=kind, revision=commit), str)

    return [name for name in names if not cached(name)]


def _check_space(repository: str, wanted: int) -> None:
    """StageError where the disk of the cache cannot hold `wanted` bytes: before an hour of downloading, not after."""
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE)
    there = next(folder for folder in (cache, *cache.parents) if folder.is_dir())
    free = shutil.disk_usage(there).free
    if wanted > free:
        raise StageError(
            f"source {repository}: {wanted / 1e9:,.2f} GB are to be fetched and {there} has {free / 1e9:,.2f} GB free. "
            f"Make room, or set HF_HOME to a folder on a larger disk"
        )


def _checked(path: Path, name: str, repository: str) -> str:
    """sha256 of a file in the cache, whose own name there is the digest that the hub gave for it."""
    found = file_digest(path)
    expected = Path(path.readlink()).name if path.is_symlink() else ""
    if re.fullmatch(r"[0-9a-f]{64}", expected):
        kind, came = "sha256", found
    elif COMMIT.fullmatch(expected):
        # Small files are git objects: sha1 over a header and the bytes (git-hash-object(1)).
        kind, came = "git object", _git_digest(path)
    else:
        return found  # no links in this cache (HF_HUB_DISABLE_SYMLINKS): the client checked the size
    if came != expected:
        path.resolve().unlink()
        path.unlink()
        raise StageError(
            f"source {repository}: {name} came with {kind} {came}, the hub says {expected}. It was removed from the "
            f"cache: start again; if it stays so, the network or the hub changes files"
        )
    return found


def _git_digest(path: Path) -> str:
    sha1 = hashlib.sha1(f"blob {path.stat().st_size}\0".encode())
    with path.open("rb") as file:
        while part := file.read(2**20):
            sha1.update(part)
    return sha1.hexdigest()


def _licence(card: Path) -> str | None:
    """`license:` of a repository's card."""
    import yaml
    from huggingface_hub import RepoCard

    if not card.is_file():
        return None
    try:
        given = RepoCard(card.read_text(encoding="utf-8"), ignore_metadata_errors=True).data.to_dict()
    except (ValueError, yaml.YAMLError):
        return None  # a card that cannot be read says nothing
    names = given.get("license_name") or given.get("license")
    return ", ".join(names) if isinstance(names, list) else names
