"""Files at addresses on the web, held against their sha256: mirrors in turn, and a broken download is taken up again.

    path = fetch(["https://a.org/x.parquet", "https://b.org/x.parquet"], sha256, folder)

What has come stands in `folder` under the digest it is to have, also after the process was killed; the next one asks
for the rest (Range). The transfer is huggingface_hub's `http_get`, which resumes and waits where it is told to (429);
no token is sent.
"""

import errno
from collections.abc import Callable, Sequence
from pathlib import Path

from sft.runtime.manifest import file_digest
from sft.runtime.stage import StageError


def fetch(urls: Sequence[str], sha256: str, folder: Path, say: Callable[[str], None] = lambda text: None) -> Path:
    """The file of that digest, from the first of `urls` that gives it; StageError says why none of them does."""
    folder.mkdir(parents=True, exist_ok=True)
    path, reasons = folder / sha256, []
    for url in urls:
        reason = _from(url, sha256, path)
        if not reason:
            return path
        reasons.append(f"{url}: {reason}")
        say(reasons[-1])
    if path.exists() and not path.stat().st_size:
        path.unlink()
    if not any(folder.iterdir()):
        folder.rmdir()
    raise StageError(f"source {'; '.join(reasons)}. Check the address, or add mirrors: with others of the same file")


def _from(url: str, sha256: str, path: Path) -> str:
    """Fetch what is missing of `path`; returns why that failed, or nothing."""
    for _ in range(2):
        begun = path.stat().st_size if path.exists() else 0
        if begun and file_digest(path) == sha256:
            return ""
        if reason := _append(url, path, begun):
            return reason
        found = file_digest(path)
        if found == sha256:
            return ""
        path.unlink()
        if not begun:
            break  # what was there before may have been of another file: once more from the start
    return f"the file there has sha256 {found}, the configuration says {sha256}: it was replaced, or is another version"


def _append(url: str, path: Path, begun: int) -> str:
    from huggingface_hub.errors import HfHubHTTPError, HTTPError, OfflineModeIsEnabled
    from huggingface_hub.file_download import http_get

    try:
        with path.open("r+b" if begun else "wb") as file:
            file.seek(begun)
            http_get(url, file, resume_size=begun)
    except OfflineModeIsEnabled:
        return "offline (HF_HUB_OFFLINE)"
    except HfHubHTTPError as error:
        if error.response.status_code == 416 and begun:  # there is no more of it: what is here is not its beginning
            return ""
        return f"HTTP {error.response.status_code}"
    except HTTPError as error:
        return f"{type(error).__name__} ({str(error).splitlines()[0] if str(error) else 'no reason given'})"
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StageError(f"source {url}: the disk of {path.parent} is full. Make room; what came is kept") from None
        if error.errno is None:
            return str(error).splitlines()[0]
        raise
    return ""
