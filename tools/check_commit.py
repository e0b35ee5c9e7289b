"""Whether messages of commits keep this project's form; a hook of .pre-commit-config.yaml, and of a test.

    python3 tools/check_commit.py .git/COMMIT_EDITMSG     one message, before it is committed
    python3 tools/check_commit.py c269c56..HEAD           those of commits, without merges

A subject of at most 72 characters that says what changed, an empty line, and a body that says why. Needs nothing but
Python and, for commits, git.
"""

import subprocess
import sys
from pathlib import Path

LONGEST_SUBJECT = 72
# git's own form of messages that it writes for later: `git commit --fixup`, `git revert`, `git merge`.
WRITTEN_BY_GIT = ("fixup! ", "squash! ", "amend! ", "Merge ", 'Revert "')


def problems(message: str) -> list[str]:
    """What is wrong with a message, in words; comments of git ("# …") do not count."""
    lines = [line.rstrip() for line in message.split("\n") if not line.startswith("#")]
    while lines and not lines[0]:
        lines.pop(0)
    subject, rest = (lines[0], lines[1:]) if lines else ("", [])
    if subject.startswith(WRITTEN_BY_GIT):
        return []
    found = []
    if not subject:
        found.append("there is no subject")
    if len(subject) > LONGEST_SUBJECT:
        found.append(f"the subject has {len(subject)} characters; {LONGEST_SUBJECT} are shown everywhere")
    if rest and rest[0]:
        found.append("the second line is not empty, so all of it is the subject")
    if not any(rest):
        found.append("there is no body; say why, after an empty line")
    return found


def messages_of(commits: str, repository: Path) -> dict[str, str]:
    """{short hash: message} of the commits of a range, merges left out; CalledProcessError where git knows none."""
    command = ["git", "-C", str(repository), "log", "--no-merges", "--format=%h%n%B%x00", commits]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    entries = (entry.strip("\n").partition("\n") for entry in told.split("\0") if entry.strip())
    return {commit: message for commit, _, message in entries}


def main(asked: str) -> int:
    """Print what is wrong with a file's message or a range's messages; 1 where something is."""
    messages = messages_of(asked, Path()) if ".." in asked else {asked: Path(asked).read_text()}
    found = [f"{name}: {problem}" for name, message in messages.items() for problem in problems(message)]
    for line in found:
        print(f"error: {line}", file=sys.stderr)
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
