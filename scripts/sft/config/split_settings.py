"""`split:` of a data set: which rows are train, validation and test, and which are left out."""

from typing import Any, Literal

from pydantic import model_validator

from sft.config.errors import FieldError
from sft.config.fields import Integer, Number, Section, identity


class Slice(Section):
    """Test rows taken out of train, said in so many words; exactly one of the two."""

    rows: Integer | None = identity(
        None, describe="how many rows, chosen by hash of group or id", gt=0, added_with=None
    )
    fraction: Number | None = identity(
        None, describe="which share of train, chosen by hash of group or id", gt=0, lt=1, added_with=None
    )

    @model_validator(mode="after")
    def _one_way(self) -> "Slice":
        _exactly_one(self, ("rows", "fraction"))
        return self


class Validation(Section):
    """Rows taken out of train (or test) to choose by; exactly one of the first three."""

    rows: Integer | None = identity(None, describe="how many rows, chosen by hash of id", gt=0, added_with=None)
    fraction: Number | None = identity(
        None, describe="which share of train, chosen by hash of id", gt=0, lt=1, added_with=None
    )
    pattern: str | None = identity(
        None, describe="name pattern of the files (or published splits) that are the validation split", added_with=None
    )
    of: Literal["train", "test"] = identity(
        "train",
        describe="what rows or a fraction are taken out of; test where train has to stay as it was published",
        added_with="train",
    )

    @model_validator(mode="after")
    def _one_way(self) -> "Validation":
        _exactly_one(self, ("rows", "fraction", "pattern"))
        if self.of == "test" and self.pattern is not None:
            raise FieldError("of", "has no effect with pattern", "Remove it")
        return self


class Split(Section):
    """Which rows are train, validation and test."""

    by: Literal["file_name", "published", "column"] = identity(
        "file_name", describe="what tells splits apart: names of files, published names, or a column"
    )
    column: str | None = identity(
        None, describe="with by: column, the column that names a row's split", added_with=None
    )
    train: str = identity("train-*", describe="name pattern of the train rows")
    test: str | Slice = identity("test-*", describe="name pattern of the test rows, or a slice of train")
    validation: Validation = identity(describe="how validation rows are set apart")
    stratify_by: str | None = identity(
        None,
        describe="slices keep the shares of this: `answer` (the right choice), or a published column",
        added_with=None,
    )
    seed: Integer = identity(0, describe="which rows the slices take", added_with=0)
    deduplicate: Literal["none", "exact", "normalised"] = identity(
        "none",
        describe="of rows that say the same (text and pixels; normalised: but for case, punctuation and spaces), keep "
        "the first of each published split",
        added_with="none",
    )
    minimum_characters: Integer | None = identity(
        None, describe="leave out rows with less text, answer included", unit="characters", ge=1, added_with=None
    )
    maximum_characters: Integer | None = identity(
        None, describe="leave out rows with more text, answer included", unit="characters", ge=1, added_with=None
    )

    @model_validator(mode="before")
    @classmethod
    def _names_of_published_splits(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("by") in ("published", "column"):
            return {"train": "train", "test": "test"} | given
        return given

    @model_validator(mode="after")
    def _column_and_lengths(self) -> "Split":
        if (self.by == "column") != (self.column is not None):
            fix = "Name the column" if self.column is None else "Write by: column, or remove the key"
            raise FieldError("column", f"{self.column or 'null'} with by: {self.by}", fix)
        least, most = self.minimum_characters, self.maximum_characters
        if least is not None and most is not None and least > most:
            raise FieldError("minimum_characters", f"{least} is more than maximum_characters {most}", "Swap them")
        return self


def _exactly_one(section: Section, names: tuple[str, ...]) -> None:
    given = [name for name in names if getattr(section, name) is not None]
    if len(given) != 1:
        listed = " and ".join(given) or "none"
        of = f"{', '.join(names[:-1])} and {names[-1]}"
        raise FieldError("", f"{listed} given", f"Give exactly one of {of}")
