"""A stand-in of the Hugging Face hub's endpoints on this machine, which the real client is pointed at.

    hub = HubStandIn()
    commit = hub.publish("dataset", "org/name", {"train.parquet": path, "README.md": "---\\nlicense: mit\\n---\\n"})
    subprocess.run([...], env=os.environ | hub.environment(tmp_path / "cache"))
    hub.close()

It keeps commits, branches and tags, tells git objects and git-annexed files (LFS) apart, sends the latter from another
host name as the hub does, serves ranges, and fails on request: `refuse`, `cut`, `corrupt`. What was asked is in
`requests`. Status codes and headers are those that huggingface_hub 2.4 reads (utils/_http.py, file_download.py).
"""

import hashlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO
from urllib.parse import parse_qs, unquote, urlsplit

# As the hub's default .gitattributes has it, in short.
LFS = (".parquet", ".arrow", ".safetensors", ".bin", ".png", ".jpg", ".gz", ".zip", ".model", ".gguf")
CHUNK = 1 << 20
NO_HEADERS: Mapping[str, str] = {}
KINDS = {"models": "model", "datasets": "dataset", "spaces": "space"}


@dataclass(frozen=True)
class Blob:
    """A published file: its bytes, or the file that has them."""

    content: bytes | Path
    size: int
    git: str
    sha256: str | None  # of a file in LFS


@dataclass
class Repository:
    """`commits`: {commit: {path: blob}}; `refs`: {branch or tag: commit}."""

    commits: dict[str, dict[str, Blob]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    private: bool = False
    gated: bool = False

    def commit(self, revision: str) -> str | None:
        known = self.branches | self.tags | {commit: commit for commit in self.commits}
        return known.get(revision)


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    token: str | None
    range: str | None
    at: float  # seconds, time.monotonic()


@dataclass
class Fault:
    pattern: str
    times: int
    method: str = ""
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    after: int | None = None  # bytes of the body that are sent before the connection breaks
    corrupt: bool = False
    larger: int = 0  # only bodies above so many bytes
    hold: bool = False  # do not break at `after`, but wait for `release`


class HubStandIn:
    """The server, listening on a free port from its making until `close`."""

    def __init__(self, tokens: tuple[str, ...] = ()):
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.files: dict[str, bytes | Path] = {}  # other addresses: /files/<name>
        self.tokens = tokens
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self.meanwhile: tuple[str, Callable[[], object]] | None = None  # what happens when such a path is asked for
        self.held, self._released = threading.Event(), threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        # Large files come from a host of another name, to which the client must not send its token.
        self.files_host = f"http://localhost:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def environment(self, cache: Path, token: str | None = None, offline: bool = False) -> dict[str, str]:
        """Variables under which the client asks this server and keeps its files in `cache`."""
        # A token that this machine's user is logged in with must not reach a test, or the test its log.
        variables = {"HF_ENDPOINT": self.endpoint, "HF_HOME": str(cache), "HF_TOKEN": token or ""}
        variables |= {"HF_HUB_CACHE": str(cache / "hub"), "HF_HUB_OFFLINE": "1" if offline else "0"}
        return variables | {"no_proxy": "127.0.0.1,localhost"}

    def publish(
        self,
        kind: str,
        name: str,
        files: Mapping[str, str | bytes | Path | None],
        branch: str = "main",
        tag: str | None = None,
        private: bool = False,
        gated: bool = False,
    ) -> str:
        """Commit `files` over those that `branch` has (None: removed) and return the commit."""
        repository = self.repositories.setdefault((kind, name), Repository())
        repository.private, repository.gated = private, gated
        parent = repository.branches.get(branch, "")
        tree = dict(repository.commits.get(parent, {}))
        for path, content in files.items():
            if content is None:
                tree.pop(path)
            else:
                tree[path] = _blob(path, content)
        listed = "".join(f"{path} {blob.git} {blob.sha256}\n" for path, blob in sorted(tree.items()))
        commit = hashlib.sha1(f"{kind} {name} {parent}\n{listed}".encode()).hexdigest()
        repository.commits[commit] = tree
        repository.branches[branch] = commit
        if tag:
            repository.tags[tag] = commit
        return commit

    def publish_folder(self, kind: str, name: str, folder: Path, **options) -> str:
        """Commit all files below `folder` under their relative names."""
        found = (path for path in sorted(folder.rglob("*")) if path.is_file())
        return self.publish(kind, name, {path.relative_to(folder).as_posix(): path for path in found}, **options)

    def refuse(self, pattern: str, status: int, times: int = 10**6, method: str = "", **headers: str) -> None:
        """Answer requests whose path matches `pattern` with `status` (`Retry_After="1"` is a header)."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.faults.append(Fault(pattern, times, method, status, named))

    def cut(self, pattern: str, after: int, times: int = 1) -> None:
        """Break the connection after `after` bytes of the body."""
        self.faults.append(Fault(pattern, times, "GET", after=after))

    def hold(self, pattern: str, after: int, larger: int = 0) -> None:
        """Send `after` bytes of a body of more than `larger` ones and no more until `release`; then `held` is set."""
        self.faults.append(Fault(pattern, 1, "GET", after=after, larger=larger, hold=True))

    def release(self) -> None:
        self._released.set()

    def wait(self) -> None:
        self.held.set()
        self._released.wait(60)

    def corrupt(self, pattern: str, times: int = 10**6) -> None:
        """Send as many bytes as there are, the first of them changed."""
        self.faults.append(Fault(pattern, times, "GET", corrupt=True))

    def asked(self, pattern: str, method: str = "GET") -> list[Request]:
        """The requests so far whose path matches."""
        return [request for request in self.requests if request.method == method and re.search(pattern, request.path)]

    def fault(self, method: str, path: str, size: int) -> Fault | None:
        for fault in self.faults:
            fits = fault.method in ("", method) and size >= fault.larger and re.search(fault.pattern, path)
            if fault.times > 0 and fits:
                fault.times -= 1
                return fault
        return None


def _blob(path: str, content: str | bytes | Path) -> Blob:
    content = content.encode() if isinstance(content, str) else content
    size = content.stat().st_size if isinstance(content, Path) else len(content)
    git, sha256 = hashlib.sha1(f"blob {size}\0".encode()), hashlib.sha256()
    for part in _parts(content, 0, size):
        git.update(part)
        sha256.update(part)
    return Blob(content, size, git.hexdigest(), sha256.hexdigest() if path.endswith(LFS) else None)


def _parts(content: bytes | Path, first: int, last: int) -> Iterator[bytes]:
    """Bytes `first` up to `last` in pieces; a file is never held whole."""
    if isinstance(content, bytes):
        yield content[first:last]
        return
    with content.open("rb") as file:
        file.seek(first)
        left = last - first
        while left > 0 and (part := file.read(min(CHUNK, left))):
            left -= len(part)
            yield part


def _handler(hub: HubStandIn) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wfile: IO[bytes]

        def do_GET(self):
            self._answer()

        def do_HEAD(self):
            self._answer()

        def log_message(self, *_):
            pass

        def _answer(self) -> None:
            address = urlsplit(self.path)
            path, query = unquote(address.path), parse_qs(address.query)
            token = (self.headers.get("authorization") or "").removeprefix("Bearer ") or None
            hub.requests.append(Request(self.command, path, token, self.headers.get("range"), time.monotonic()))
            if hub.meanwhile and re.search(hub.meanwhile[0], path):
                hub.meanwhile[1]()
            self.broken = hub.fault(self.command, path, self._size(path))
            if self.broken and self.broken.status:
                return self._error(self.broken.status, headers=self.broken.headers)
            if match := re.fullmatch(r"/(?:lfs/(\w+)|files/(.+))", path):
                content = hub.files.get(match[2]) if match[2] else _stored(hub, match[1])
                return self._error(404) if content is None else self._body(content)
            if token and token not in hub.tokens:
                return self._error(401, message="Invalid credentials in Authorization header")
            if match := re.fullmatch(r"/api/(models|datasets)", path):
                return self._json(self._found(KINDS[match[1]], query))
            api = re.fullmatch(
                r"/api/(models|datasets|spaces)/([^/]+(?:/[^/]+)??)(?:/(revision|tree|refs)(?:/(.+))?)?", path
            )
            file = re.fullmatch(r"/(?:(datasets|spaces)/)?([^/]+(?:/[^/]+)?)/resolve/([^/]+)/(.+)", path)
            if not (api or file):
                return self._error(404, "RepoNotFound", "Repository not found")
            kind, name = KINDS[(api or file)[1] or "models"], (api or file)[2]
            repository = hub.repositories.get((kind, name))
            if repository is None or (repository.private and token is None):
                if token is None:  # the hub does not tell strangers which of the two it is
                    return self._error(401, message="Invalid username or password.")
                return self._error(404, "RepoNotFound", "Repository not found")
            if file:
                return self._file(repository, file[3], file[4], token)
            return self._api(kind, name, repository, api[3] or "", api[4] or "main")

        def _size(self, path: str) -> int:
            content = _stored(hub, path.removeprefix("/lfs/")) if path.startswith("/lfs/") else None
            return len(content) if isinstance(content, bytes) else content.stat().st_size if content else 0

        def _found(self, kind: str, query: dict[str, list[str]]) -> list[dict]:
            search, author = query.get("search", [""])[0], query.get("author", [""])[0]
            names = [name for known, name in hub.repositories if known == kind]
            chosen = [name for name in names if search.lower() in name.lower() and name.startswith(author)]
            return [{"id": name, "_id": name, "private": False, "tags": [], "downloads": 0} for name in chosen]

        def _api(self, kind: str, name: str, repository: Repository, what: str, revision: str) -> None:
            if what == "refs":
                return self._json(
                    {
                        "branches": [
                            {"name": n, "ref": f"refs/heads/{n}", "targetCommit": c}
                            for n, c in repository.branches.items()
                        ],
                        "tags": [
                            {"name": n, "ref": f"refs/tags/{n}", "targetCommit": c} for n, c in repository.tags.items()
                        ],
                        "converts": [],
                    }
                )
            commit = repository.commit(revision)
            if commit is None:
                return self._error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            tree = repository.commits[commit]
            if what == "tree":
                return self._json([_entry(path, blob) for path, blob in sorted(tree.items())])
            facts = {"id": name, "_id": name, "sha": commit, "private": repository.private, "tags": [], "downloads": 0}
            facts |= {"gated": "manual" if repository.gated else False, "disabled": False, "likes": 0}
            return self._json(facts | {"siblings": [{"rfilename": path} for path in sorted(tree)]})

        def _file(self, repository: Repository, revision: str, path: str, token: str | None) -> None:
            commit = repository.commit(revision)
            if commit is None:
                return self._error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            if repository.gated and token is None:
                return self._error(401, "GatedRepo", "Access to this repository is restricted")
            blob = repository.commits[commit].get(path)
            if blob is None:
                return self._error(404, "EntryNotFound", "Entry not found", {"X-Repo-Commit": commit})
            headers = {"X-Repo-Commit": commit}
            if blob.sha256 is None:
                return self._body(blob.content, headers | {"ETag": f'"{blob.git}"'})
            headers |= {"X-Linked-Etag": f'"{blob.sha256}"', "X-Linked-Size": str(blob.size)}
            self.send_response(302)
            for header, value in (headers | {"Location": f"{hub.files_host}/lfs/{blob.sha256}"}).items():
                self.send_header(header, value)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return None

        def _body(self, content: bytes | Path, headers: Mapping = NO_HEADERS) -> None:
            size = content.stat().st_size if isinstance(content, Path) else len(content)
            wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("range") or "")
            first, last = (int(wanted[1]), int(wanted[2] or size - 1) + 1) if wanted else (0, size)
            if wanted and first >= size:
                return self._error(416, headers={"Content-Range": f"bytes */{size}"})
            self.send_response(206 if wanted else 200)
            for header, value in headers.items():
                self.send_header(header, value)
            if wanted:
                self.send_header("Content-Range", f"bytes {first}-{last - 1}/{size}")
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(last - first))
            self.end_headers()
            if self.command == "GET":
                self._send(_parts(content, first, last))
            return None

        def _send(self, parts: Iterator[bytes]) -> None:
            sent = 0
            for part in parts:
                if self.broken and self.broken.corrupt and not sent:
                    part = bytes([part[0] ^ 255]) + part[1:]
                if self.broken and self.broken.after is not None and sent + len(part) > self.broken.after:
                    self.wfile.write(part[: self.broken.after - sent])
                    self.close_connection = True
                    if self.broken.hold:
                        self.wfile.flush()
                        hub.wait()
                    return
                try:
                    self.wfile.write(part)
                except (BrokenPipeError, ConnectionResetError):  # the client was killed
                    self.close_connection = True
                    return
                sent += len(part)

        def _json(self, value: object) -> None:
            body = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def _error(self, status: int, code: str = "", message: str = "", headers: Mapping = NO_HEADERS) -> None:
            self.send_response(status)
            for header, value in ({"X-Error-Code": code, "X-Error-Message": message} | dict(headers)).items():
                if value:
                    self.send_header(header, value)
            self.send_header("Content-Length", "0")
            self.end_headers()

    return Handler


def _stored(hub: HubStandIn, sha256: str) -> bytes | Path | None:
    trees = (tree for repository in hub.repositories.values() for tree in repository.commits.values())
    return next((blob.content for tree in trees for blob in tree.values() if blob.sha256 == sha256), None)


def _entry(path: str, blob: Blob) -> dict:
    entry = {"type": "file", "path": path, "size": blob.size, "oid": blob.git}
    if blob.sha256:
        entry["lfs"] = {"oid": blob.sha256, "size": blob.size, "pointerSize": 130}
    return entry
