"""What the hub's client raises, as one line with the repository, the reason and what to do."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from sft.runtime.stage import StageError
from sft.terms.nearest import nearest

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError

LISTED_UNDER = {"dataset": "datasets:", "model": "models:"}


@contextmanager
def explained(kind: str, repository: str, revision: str) -> Iterator[None]:
    """Turns the client's errors into StageErrors; others pass."""
    from huggingface_hub import errors

    what = f"source {repository}"
    try:
        yield
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, errors.RevisionResolutionError) as error:
        raise StageError(f"{what}: {_out_of_reach(kind, repository, revision, error)}") from None
    except errors.GatedRepoError:
        raise StageError(
            f"{what}: its owner lets only those in who accept the terms. Accept them at {_page(kind, repository)}, "
            f"then set HF_TOKEN to a token of yours"
        ) from None
    except errors.RevisionNotFoundError:
        raise StageError(f"{what}: it has no revision {revision}.{_revisions(kind, repository, revision)}") from None
    except errors.HfHubHTTPError as error:
        raise StageError(f"{what}: {_refused(kind, repository, error)}") from None
    except errors.HTTPError as error:  # of the transport (httpx or httpx2): no connection, a time-out
        raise StageError(f"{what}: {_out_of_reach(kind, repository, revision, error)}") from None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            from huggingface_hub import constants

            raise StageError(
                f"{what}: the disk of {constants.HF_HUB_CACHE} is full ({error.strerror}). Make room, or set HF_HOME "
                f"to a folder on a larger disk; files that came whole are kept"
            ) from None
        if error.errno is None:
            raise StageError(f"{what}: {_first_line(error)}. Start again: files that came whole are kept") from None
        raise


def _refused(kind: str, repository: str, error: HfHubHTTPError) -> str:
    status = error.response.status_code
    if "Invalid credentials" in str(error) or (status == 403 and _has_token()):
        return (
            f"the hub does not accept the token for it (HTTP {status}). Check HF_TOKEN, or log in again: hf auth login"
        )
    if status in (401, 404):
        hint = _neighbours(kind, repository)
        private = "your token does not open it" if _has_token() else "it is private: set HF_TOKEN"
        return f"the hub has no {kind} of this name, or {private} (HTTP {status}).{hint}"
    if status == 429:
        wait = error.response.headers.get("Retry-After")
        return (
            f"the hub asks to wait{f' {wait} s' if wait else ''} (HTTP 429, too many requests). Start again later; "
            + ("files that came whole are kept" if _has_token() else "with HF_TOKEN set more is allowed")
        )
    return f"the hub answers HTTP {status} ({_first_line(error)}). Start again later; files that came whole are kept"


def _out_of_reach(kind: str, repository: str, revision: str, error: Exception) -> str:
    from huggingface_hub import constants

    fetch = f"hf download {repository}{' --repo-type dataset' if kind == 'dataset' else ''} --revision {revision}"
    if constants.is_offline_mode():
        return (
            f"offline (HF_HUB_OFFLINE), and the cache {constants.HF_HUB_CACHE} does not have what is wanted of "
            f"revision {revision}. Fetch it where there is a network ({fetch}) and set HF_HOME to the same cache"
        )
    cause = _first_line(error.__cause__ or error)
    return (
        f"{constants.ENDPOINT} cannot be reached ({cause}). Start again with a network; a commit that is wholly in the "
        f"cache needs none ({fetch})"
    )


def _neighbours(kind: str, repository: str) -> str:
    """The nearest name that the hub has, or where the name would be right; nothing where the hub does not say."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HTTPError

    api, (owner, _, name) = HfApi(), repository.rpartition("/")
    other = "model" if kind == "dataset" else "dataset"
    with suppress(HfHubHTTPError, HTTPError):
        if api.repo_exists(repository, repo_type=other):
            return f" There is a {other} {repository}: it belongs under {LISTED_UNDER[other]}"
    try:
        listing = api.list_datasets if kind == "dataset" else api.list_models
        found = [entry.id for entry in listing(search=name, limit=50)]
        found += [entry.id for entry in listing(author=owner, limit=200)] if owner else []
    except (HfHubHTTPError, HTTPError):
        return ""
    return nearest_names(repository, found)


def _revisions(kind: str, repository: str, revision: str) -> str:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HTTPError

    try:
        refs = HfApi().list_repo_refs(repository, repo_type=kind)
    except (HfHubHTTPError, HTTPError):
        return ""
    names = [ref.name for ref in (*refs.branches, *refs.tags)]
    return nearest_names(revision, names) or f" It has {', '.join(names[:10])}"


def nearest_names(word: str, names: Sequence[str]) -> str:
    """` Did you mean …?`, or nothing."""
    near = nearest(word, names)
    return f" Did you mean {near}?" if near else ""


def _has_token() -> bool:
    from huggingface_hub import get_token

    return bool(get_token())


def _page(kind: str, repository: str) -> str:
    from huggingface_hub import constants

    return f"{constants.ENDPOINT}/{'datasets/' if kind == 'dataset' else ''}{repository}"


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__).rstrip(".")
