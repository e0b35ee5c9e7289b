"""What breaks a download from the hub, and what the user then sees and keeps.

Tests: sft.sources.hub_errors
"""

import hashlib
import io
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from hub_bench import CARD, NAME, TOKEN, Bench, open_bench


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with open_bench(tmp_path) as bench:
        yield bench


pytestmark = pytest.mark.slow
TRAIN = r"/lfs/\w+$"


def test_a_broken_connection_is_taken_up_where_it_broke(bench):
    content = io.BytesIO()
    column = [random.Random(i).randbytes(3_000_000) for i in range(4)]
    pyarrow.parquet.write_table(pyarrow.table({"bytes": column}), content)
    bench.hub.publish("dataset", NAME, {"large.parquet": content.getvalue()})
    bench.hub.cut(TRAIN, after=11_000_000)
    made = bench.make("got", {"hub": NAME, "files": ["large.parquet"]})
    # The client keeps what came in pieces of 10 MiB.
    assert [request.range for request in bench.hub.asked(TRAIN)] == [None, f"bytes={10 * 2**20}-"]
    assert made["outputs"]["files/large.parquet"]["sha256"] == hashlib.sha256(content.getvalue()).hexdigest()


def test_other_bytes_than_the_hub_says_are_refused_and_not_kept(bench):
    bench.hub.corrupt(TRAIN, times=1)
    error = bench.refused("got", {"hub": NAME, "files": ["data/train-*"]})
    assert f"source {NAME}: data/train-0.parquet came with sha256 " in error
    assert "start again" in error
    bench.make("got", {"hub": NAME})
    bench.hub.publish("dataset", NAME, {"data/train-0.parquet": None, "train-1.jsonl": '{"id": 1, "prompt": "a"}\n'})
    bench.hub.corrupt("train-1.jsonl", times=1)
    assert "train-1.jsonl came with git object" in bench.refused("small", {"hub": NAME, "files": ["*.jsonl"]})


def test_a_name_that_does_not_exist_names_the_nearest(bench):
    bench.hub.publish("model", "someone/answers", {"config.json": "{}"})
    error = bench.refused("a", {"hub": "someone/qestions"})
    assert "the hub has no dataset of this name, or it is private: set HF_TOKEN (HTTP 401)" in error
    assert f"Did you mean {NAME}?" in error
    assert f"Did you mean {NAME}?" in bench.refused("b", {"hub": "somone/questions"}, token=TOKEN)
    assert "There is a model someone/answers: it belongs under models:" in bench.refused(
        "c", {"hub": "someone/answers"}
    )


def test_a_revision_and_a_file_that_do_not_exist_name_the_nearest(bench):
    bench.hub.publish("dataset", NAME, {}, branch="release")
    assert f"source {NAME}: it has no revision relaese. Did you mean release?" in bench.refused(
        "a", {"hub": NAME, "revision": "relaese"}
    )
    assert "It has main, release, v1" in bench.refused("b", {"hub": NAME, "revision": "0" * 40})
    error = bench.refused("c", {"hub": NAME, "files": ["data/test-*", "data/trian-0.parquet"]})
    assert "no file matches data/trian-0.parquet. Did you mean data/train-0.parquet?" in error


def test_a_token_opens_a_private_repository_and_is_nowhere_to_be_read(bench):
    bench.hub.publish("dataset", NAME, {}, private=True)
    assert "it is private: set HF_TOKEN" in bench.refused("none", {"hub": NAME})
    wrong = "hf_anotherMadeUpToken"
    error = bench.refused("wrong", {"hub": NAME}, token=wrong)
    assert "the hub does not accept the token for it (HTTP 401). Check HF_TOKEN" in error
    directory = bench.config("right", {"hub": NAME})
    command = bench.command(directory, token=TOKEN)
    command["env"] |= {"HF_DEBUG": "1"}
    done = subprocess.run(**command, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert "Send: curl" in done.stderr  # the client logged its requests: the token would be there
    written = [error, done.stdout, done.stderr, bench.refused("gone", {"hub": "a/b"}, token=TOKEN)]
    written += [path.read_text(errors="replace") for path in bench.folder.rglob("*") if path.is_file()]
    assert len(written) > 10
    assert not any(TOKEN in text or wrong in text for text in written)
    # The host that large files come from is another one, and is not told.
    assert {request.token for request in bench.hub.asked("/resolve/", "HEAD") if request.token} == {TOKEN}
    assert {request.token for request in bench.hub.asked("/lfs/")} == {None}


def test_terms_that_were_not_accepted_are_named(bench):
    bench.hub.publish("dataset", NAME, {}, gated=True)
    error = bench.refused("got", {"hub": NAME})
    assert f"Accept them at {bench.hub.endpoint}/datasets/{NAME}, then set HF_TOKEN" in error


def test_too_many_requests_are_waited_for_as_long_as_the_hub_says(bench):
    for pattern, wait in (("/revision/main", 3), ("/tree/", 0), ("/resolve/.*train", 0), (TRAIN, 0)):
        bench.hub.refuse(pattern, 429, times=1, Retry_After=str(wait))
    made = bench.make("got", {"hub": NAME})
    first, second, *_ = bench.hub.asked("/revision/main")
    assert second.at - first.at >= 3
    assert made["facts"]["rows"]["data/train-0.parquet"] == 3000
    before = len(bench.hub.requests)
    bench.hub.refuse("/revision/main", 429, Retry_After="0")
    error = bench.refused("never", {"hub": NAME})
    assert "the hub asks to wait 0 s (HTTP 429, too many requests)" in error
    assert len(bench.hub.requests) == before + 5


def test_a_hub_that_is_down_is_no_reason_to_take_an_older_commit(bench):
    bench.make("got", {"hub": NAME})
    first = bench.head()
    bench.hub.publish("dataset", NAME, {"data/test-0.parquet": None})
    bench.hub.refuse("", 503, Retry_After="0")
    error = bench.refused("down", {"hub": NAME})
    assert "the hub answers HTTP 503" in error
    # A commit is wholly in the cache: nobody has to be asked.
    before = len(bench.hub.requests)
    assert bench.make("commit", {"hub": NAME, "revision": first})["facts"]["commit"] == first
    assert len(bench.hub.requests) == before


def test_offline_with_and_without_the_files(bench):
    error = bench.refused("empty", {"hub": NAME}, offline=True)
    assert "offline (HF_HUB_OFFLINE), and the cache" in error
    assert f"hf download {NAME} --repo-type dataset --revision main" in error
    bench.make("some", {"hub": NAME, "files": ["data/test-*"]})
    first = bench.head()
    bench.hub.publish("dataset", NAME, {"data/test-0.parquet": None})
    before = len(bench.hub.requests)
    made = bench.make("got", {"hub": NAME, "files": ["data/test-*"]}, offline=True)
    assert (made["facts"]["commit"], made["facts"]["resolved"]) == (first, "from the cache, offline")
    assert "does not have what is wanted" in bench.refused("more", {"hub": NAME}, offline=True)
    assert len(bench.hub.requests) == before


def test_no_hub_at_all(bench):
    bench.hub.close()
    assert f"{bench.hub.endpoint} cannot be reached" in bench.refused("got", {"hub": NAME})


def test_a_full_disk_is_told_before_and_noticed_during_the_download(bench, small_disk):
    bench.cache, source = small_disk, {"hub": NAME, "files": ["data/train-*"]}
    filler = small_disk / "filler"
    filler.write_bytes(bytes(300_000))
    error = bench.refused("before", source)
    assert "0.00 GB are to be fetched" in error
    assert "set HF_HOME to a folder on a larger disk" in error
    assert not bench.hub.asked("/lfs/")
    # Enough when the download begins; somebody else fills the disk meanwhile.
    filler.unlink()
    bench.hub.meanwhile = (TRAIN, lambda: filler.write_bytes(bytes(300_000)))
    error = bench.refused("during", source)
    assert f"the disk of {small_disk}/hub is full" in error
    filler.unlink()
    bench.hub.meanwhile = None
    assert bench.make("during", source)["facts"]["rows"] == {"data/train-0.parquet": 3000}


def test_killed_half_way_nothing_is_half_there_and_whole_files_are_not_fetched_again(bench):
    bench.hub.hold(TRAIN, after=100_000, larger=100_000)
    directory = bench.config("got", {"hub": NAME})
    with subprocess.Popen(**bench.command(directory), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 60
        while not bench.hub.held.is_set() or len(bench.hub.asked(TRAIN)) < 2:
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.05)
        time.sleep(0.5)  # the small file is renamed into the cache
        process.send_signal(signal.SIGKILL)
    bench.hub.release()
    assert not (directory / "manifest.json").exists()
    assert not (directory / "files").exists()
    made = bench.make("got", {"hub": NAME})
    assert made["facts"]["rows"] == {"data/test-0.parquet": 5, "data/train-0.parquet": 3000}
    assert len(bench.hub.asked(TRAIN)) == 3
    assert not list(directory.glob(".attempt-*"))


def test_a_repository_whose_rows_a_program_makes_is_refused(bench):
    bench.hub.publish("dataset", NAME, {"questions.py": "raise SystemExit('was run')"})
    error = bench.refused("got", {"hub": NAME})
    assert "its rows are made by a program (questions.py), which is not run here" in error
    assert "files: [data/test-0.parquet, …]" in error
    bench.make("named", {"hub": NAME, "files": ["data/*"]})
    assert not bench.hub.asked("questions.py")


def test_a_repository_without_tables(bench):
    bench.hub.publish("dataset", "someone/notes", {"README.md": CARD, "a.txt": "x"})
    error = bench.refused("got", {"hub": "someone/notes"})
    assert "no file matches *.parquet, *.arrow, *.jsonl" in error
    assert "it has README.md, a.txt" in error


# The peak of this very process; ru_maxrss would count the one that it was forked from.
PEAK = """
import atexit, re, runpy, sys
from pathlib import Path
sys.path.insert(0, str(Path(sys.argv[1]).parent))
sys.argv = sys.argv[1:]
status = Path("/proc/self/status")
atexit.register(lambda: print("peak", re.search(r"VmHWM:\\s+(\\d+)", status.read_text())[1], file=sys.stderr))
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_a_download_is_bounded_in_memory(bench, tmp_path):
    chunk = pyarrow.table({"text": [b"x" * 1_000_000] * 300})
    pyarrow.parquet.write_table(chunk, tmp_path / "large.parquet", use_dictionary=False, compression="none")
    del chunk
    bench.hub.publish("dataset", "a/large", {"large.parquet": tmp_path / "large.parquet"})
    command = bench.command(bench.config("got", {"hub": "a/large"}))
    interpreter, *rest = command["args"]
    done = subprocess.run(**command | {"args": [interpreter, "-c", PEAK, *rest]}, capture_output=True)
    assert done.returncode == 0, done.stderr
    peak = int(done.stderr.split("peak ")[1]) // 1024
    assert peak < 200  # MiB; 94 were measured, most of them Python, the client and pyarrow
