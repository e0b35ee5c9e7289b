"""`datasets:` where rows come from, what their columns mean, and how they are split."""

from typing import Literal

from pydantic import model_validator

from sft.config.errors import FieldError
from sft.config.fields import Integer, Name, Number, Section, execution, identity
from sft.config.source import Source


class Validation(Section):
    """Rows taken out of train to choose by; exactly one of the three."""

    rows: Integer | None = identity(None, describe="how many rows, chosen by hash of id", gt=0)
    fraction: Number | None = identity(None, describe="which share of train, chosen by hash of id", gt=0, lt=1)
    pattern: str | None = identity(None, describe="name pattern of the files that are the validation split")

    @model_validator(mode="after")
    def _one_way(self) -> "Validation":
        given = [name for name in ("rows", "fraction", "pattern") if getattr(self, name) is not None]
        if len(given) != 1:
            listed = " and ".join(given) or "none"
            raise FieldError("", f"{listed} given", "Give exactly one of rows, fraction and pattern")
        return self


class Split(Section):
    """Which rows are train, validation and test."""

    by: Literal["file_name"] = identity("file_name", describe="shards are sorted into splits by their file names")
    train: str = identity("train-*", describe="name pattern of the train shards")
    test: str = identity("test-*", describe="name pattern of the test shards")
    validation: Validation = identity(describe="how validation rows are set apart")


class Dataset(Section):
    """One data set: source, columns, rendering and split."""

    extends: Name | None = execution(None, describe="start from another data set of this file and change what follows")
    source: Source = identity(describe="where the files are published")
    format: Literal["multiple_choice", "prompt_completion"] = identity(describe="what a row is")
    prompt_key: str = identity(describe="column of the question or prompt")
    choice_key: str | None = identity(None, describe="column of the choices (multiple_choice)")
    answer_key: str | None = identity(None, describe="column of the right choice: letter, index or text")
    completion_key: str | None = identity(None, describe="column of the completion (prompt_completion)")
    image_keys: tuple[str, ...] = identity((), describe="columns of pictures, in the order they are shown")
    id_key: str | None = identity("id", describe="column of a stable row id; null: file name and row number")
    group_key: str | None = identity(None, describe="column of a group that must not be split (trajectory, document)")
    system: str | None = identity(None, describe="one system message for every row", added_with=None)
    choices_layout: Literal["inline", "lines", "none"] = identity(
        "lines", describe="choices on one line, one a line, or not in the prompt"
    )
    target: Literal["letter", "letter_and_text", "text"] = identity(
        "letter_and_text", describe="what is learned: `C`, `C. text` or `text`"
    )
    image_transform: Literal["none", "invert"] = identity("none", describe="change every picture: inverted colours")
    split: Split = identity(describe="how rows become train, validation and test")

    @model_validator(mode="after")
    def _columns_of_format(self) -> "Dataset":
        needed = {
            "multiple_choice": ("choice_key", "answer_key"),
            "prompt_completion": ("completion_key",),
        }[self.format]
        missing = [key for key in needed if getattr(self, key) is None]
        if missing:
            raise FieldError("format", f"{self.format} needs {' and '.join(missing)}", "Name the columns")
        return self


class Mix(Section):
    """Train rows of several data sets together; validation and test are those of the first."""

    mix: dict[Name, Literal["all"] | Integer] = identity(
        describe="data set: all, or how many of its train rows (chosen by hash of id)", min_length=1
    )
    seed: Integer = identity(0, describe="which rows a count chooses")

    @model_validator(mode="after")
    def _counts(self) -> "Mix":
        bad = [f"{name}: {count}" for name, count in self.mix.items() if count != "all" and count <= 0]
        if bad:
            raise FieldError("mix", f"a count of rows is positive, not {', '.join(bad)}", "Write a count, or all")
        return self
