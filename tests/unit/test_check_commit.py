"""The form of commits: what the hook refuses and lets pass, and that this repository's commits have it."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / "tools/check_commit.py"
# From the commit after this one on; subjects before were longer.
BASE = "c269c56d"
# Made on branches that did not have the hook yet.
WITHOUT_BODY = {"0194393", "20249e9", "6d27272", "8ba7526", "c0cabe4", "c75c0af", "ff2659b"}

spec = importlib.util.spec_from_file_location("check_commit", TOOL)
check_commit = importlib.util.module_from_spec(spec)
spec.loader.exec_module(check_commit)


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("Refuse two heads at once\n\nOne took the other's lock away.\n", []),
        ("x" * 72 + "\n\nWhy.\n", []),
        ("x" * 73 + "\n\nWhy.\n", ["the subject has 73 characters"]),
        ("Refuse two heads at once\n", ["there is no body"]),
        ("Refuse two heads at once\n\n# Please enter the commit message\n", ["there is no body"]),
        ("Refuse two heads\nat once\n", ["the second line is not empty"]),
        ("\n# comment\n", ["there is no subject", "there is no body"]),
        ("fixup! Refuse two heads at once\n", []),
        ("Merge branch 'main'\n", []),
    ],
)
def test_form(message: str, said: list[str]):
    found = check_commit.problems(message)
    assert len(found) == len(said), found
    for problem, expected in zip(found, said, strict=True):
        assert expected in problem


@pytest.mark.parametrize(("message", "code"), [("A title\n\nWhy.\n", 0), ("A title\n", 1)])
def test_as_git_calls_it(tmp_path: Path, message: str, code: int):
    """With the file of the message; an exit code other than 0 stops the commit."""
    file = tmp_path / "COMMIT_EDITMSG"
    file.write_text(message)
    done = subprocess.run([sys.executable, TOOL, file], capture_output=True, text=True)
    assert done.returncode == code
    assert done.stderr.startswith("error: ") == bool(code)
    assert "Traceback" not in done.stderr


def test_commits_of_a_range(tmp_path: Path):
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@localhost"]
    subprocess.run([*git, "init", "--quiet"], check=True)
    for message in ("First\n\nWhy.\n", "Good\n\nWhy.\n\nMore.\n", "Without a body"):
        subprocess.run([*git, "commit", "--quiet", "--allow-empty", "-m", message], check=True)
    found = check_commit.messages_of("HEAD~2..HEAD", tmp_path)
    assert [message.split("\n")[0] for message in found.values()] == ["Without a body", "Good"]
    assert [bool(check_commit.problems(message)) for message in found.values()] == [True, False]


def test_commits_of_this_repository():
    shallow = ["git", "-C", str(ROOT), "rev-parse", "--is-shallow-repository"]
    if subprocess.run(shallow, capture_output=True, text=True).stdout != "false\n":
        pytest.skip("no clone with its whole history")
    found = {
        commit: problems
        for commit, message in check_commit.messages_of(f"{BASE}..HEAD", ROOT).items()
        if (problems := check_commit.problems(message))
    }
    assert {commit[:7] for commit in found} == WITHOUT_BODY, found
