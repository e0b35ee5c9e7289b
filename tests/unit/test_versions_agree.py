"""One version: pyproject.toml's. The newest heading of the changelog and the citation say the same."""

import re
import tomllib
from datetime import date
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
CHANGELOG = (ROOT / "CHANGELOG.md").read_text()
# Of Keep a Changelog 1.1.0.
KINDS = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"]
HEADING = re.compile(r"^## (.*)$", re.MULTILINE)
RELEASE = re.compile(r"\[(\d+\.\d+\.\d+)\] - (\d{4}-\d\d-\d\d)")


def releases() -> list[tuple[str, date]]:
    """(version, day), newest first, as the changelog has them."""
    found = [RELEASE.fullmatch(title) for title in HEADING.findall(CHANGELOG)[1:]]
    assert all(found), "a heading that is no `[version] - date`"
    return [(match.group(1), date.fromisoformat(match.group(2))) for match in found]


def test_the_newest_release_is_the_packages_version():
    assert HEADING.findall(CHANGELOG)[0] == "[Unreleased]"
    assert re.fullmatch(r"\d+\.\d+\.\d+", VERSION)
    assert releases()[0][0] == VERSION


def test_the_citation_is_of_the_newest_release():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (citation["version"], date.fromisoformat(citation["date-released"])) == releases()[0]


def test_versions_and_days_fall():
    versions = [tuple(map(int, version.split("."))) for version, _ in releases()]
    assert versions == sorted(set(versions), reverse=True)
    days = [day for _, day in releases()]
    assert days == sorted(days, reverse=True)


def test_unreleased_changes_are_sorted_by_kind_and_none_is_empty():
    unreleased = re.split(HEADING, CHANGELOG)[2]
    kinds = re.findall(r"^### (.*)$", unreleased, re.MULTILINE)
    assert kinds == [kind for kind in KINDS if kind in kinds]
    for part in re.split(r"^### .*$", unreleased, flags=re.MULTILINE)[1:]:
        assert re.match(r"\s*- \S", part)
