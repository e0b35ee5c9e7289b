"""Planned downloads whose source names a tag or a branch of the hub: what they mean may change where they are kept."""

from typing import NamedTuple

from sft.planning.plan import Plan
from sft.runtime import manifest
from sft.sources.hub import COMMIT


class Unpinned(NamedTuple):
    """A repository at a revision that is no commit, and the commits that finished downloads recorded for it."""

    repository: str
    revision: str
    commits: tuple[str, ...]

    def __str__(self) -> str:
        place = f"{self.repository} at {self.revision}"
        if len(self.commits) > 1:
            return f"{place} was fetched at several commits ({', '.join(self.commits)}): results are of both"
        if self.commits:
            return f"{place} was fetched at commit {self.commits[0]}; pin it with revision: {self.commits[0]}"
        return f"{place} is what that is on the day of the download; pin it with revision: <commit> before you train"


def unpinned(plan: Plan) -> list[Unpinned]:
    """By repository and revision; what was fetched stays a result whether the branch has moved or not."""
    found: dict[tuple[str, str], set[str]] = {}
    for node in plan.nodes.values():
        source = node.config.get("source") if node.rule.startswith("download_") else None
        if not source or "hub" not in source or COMMIT.fullmatch(source["revision"]):
            continue
        made = manifest.read(node.directory)
        commits = found.setdefault((source["hub"], source["revision"]), set())
        if made is not None and "commit" in made["facts"]:
            commits.add(made["facts"]["commit"])
    return [Unpinned(*place, tuple(sorted(commits))) for place, commits in sorted(found.items())]
