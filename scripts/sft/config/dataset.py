"""`datasets:` where rows come from, what their columns mean, and how they are split."""

from typing import Literal

from pydantic import model_validator

from sft.config.errors import FieldError
from sft.config.fields import Integer, Name, Number, Section, Template, Truth, execution, identity
from sft.config.row_formats import TEMPLATES, needed
from sft.config.source import Source
from sft.config.split_settings import Split


class Published(Section):
    """Where a data set comes from."""

    extends: Name | None = execution(None, describe="start from another data set of this file and change what follows")
    source: Source = identity(describe="where the files are published")


class Reading(Section):
    """How a row is read, besides the columns that it has."""

    format: Literal[
        "multiple_choice", "prompt_completion", "language_modelling", "conversation", "sharegpt", "alpaca"
    ] = identity(describe="what a row is")
    roles: dict[str, Literal["system", "user", "assistant", "tool"]] = identity(
        {}, describe="other names for roles: {theirs: ours}", added_with={}
    )
    role_field: str | None = identity(
        None, describe="field of a turn that says who speaks; null: role, in sharegpt from", added_with=None
    )
    content_field: str | None = identity(
        None, describe="field of a turn that says what; null: content, in sharegpt value", added_with=None
    )
    prompt_template: Template | None = identity(
        None, describe="Jinja text that makes the prompt of a row's columns", added_with=None
    )
    completion_template: Template | None = identity(None, describe="the same for the completion", added_with=None)
    text_template: Template | None = identity(None, describe="the same for the text", added_with=None)
    images_optional: Truth = identity(False, describe="a row may have null instead of a picture", added_with=False)
    # 8,000 x 8,000: larger ones are scans, or made to exhaust memory (a picture of this size takes 192 MB decoded).
    maximum_pixels: Integer = identity(
        64_000_000, describe="largest picture, width times height", unit="pixels", gt=0, added_with=64_000_000
    )
    system: str | None = identity(None, describe="one system message for every row", added_with=None)
    on_bad_row: Literal["error", "drop"] = identity(
        "error",
        describe="a row that cannot be read with certainty stops, or is left out and counted",
        added_with="error",
    )
    choices_layout: Literal["inline", "lines", "none"] = identity(
        "lines", describe="choices on one line, one a line, or not in the prompt"
    )
    target: Literal["letter", "letter_and_text", "text"] = identity(
        "letter_and_text", describe="what is learned: `C`, `C. text` or `text`"
    )
    image_transform: Literal["none", "invert"] = identity("none", describe="change every picture: inverted colours")


class Dataset(Reading, Published):
    """One data set: source, columns, rendering and split."""

    columns: dict[str, str] = identity(
        {}, describe="names for columns, {ours: theirs}; a field of a column is column.field", added_with={}
    )
    prompt_key: str | None = identity(None, describe="column of the question or prompt; of turns, in a conversation")
    choice_key: str | None = identity(None, describe="column of the choices (multiple_choice)")
    answer_key: str | None = identity(None, describe="column of the right choice: letter, index or text")
    label_key: str | None = identity(
        None, describe="column of the choices' own labels (1 to 4, A to D); the answer is one of them", added_with=None
    )
    completion_key: str | None = identity(None, describe="column of the completion; of turns, in a conversation")
    text_key: str | None = identity(None, describe="column of the text (language_modelling)", added_with=None)
    messages_key: str | None = identity(None, describe="column of a conversation's turns", added_with=None)
    tools_key: str | None = identity(
        None, describe="column of the tools that a conversation may call, as JSON Schema", added_with=None
    )
    image_keys: tuple[str, ...] = identity((), describe="columns of pictures, in the order they are shown")
    id_key: str | None = identity(
        "id", describe="column of a stable row id; file name and row number for null, and where there is no column id"
    )
    group_key: str | None = identity(None, describe="column of a group that must not be split (trajectory, document)")
    system_key: str | None = identity(None, describe="column of a row's own system message", added_with=None)
    split: Split = identity(describe="how rows become train, validation and test")

    @model_validator(mode="after")
    def _columns_of_format(self) -> "Dataset":
        for either in needed(self.format):
            if not any(getattr(self, key) is not None for key in either):
                raise FieldError("format", f"{self.format} needs {' or '.join(either)}", "Name the columns")
        for name in {"prompt", "completion", "text"} - TEMPLATES[self.format]:
            if getattr(self, f"{name}_template") is not None:
                raise FieldError(f"{name}_template", f"has no effect with format {self.format}", "Remove it")
        if self.system is not None and self.system_key is not None:
            raise FieldError("system_key", "and system are both given", "Remove one")
        if self.format == "language_modelling" and (self.system or self.system_key or self.image_keys):
            raise FieldError("format", "language_modelling has no system message and no pictures", "Remove the keys")
        return self


class Mix(Section):
    """Train rows of several data sets together; validation and test are those of the first."""

    mix: dict[Name, Literal["all"] | Integer | Number] = identity(
        describe="data set: all, how many of its train rows, or which share (below 1) of them, chosen by hash of id; "
        "with `rows` its weight",
        min_length=1,
    )
    rows: Integer | None = identity(
        None, describe="train rows altogether; the numbers of mix are weights then", gt=0, added_with=None
    )
    seed: Integer = identity(0, describe="which rows a count, a share or a weight chooses")

    def counted(self) -> int | None:
        """How many train rows there are, where the mix says it: in `rows` or as counts."""
        if self.rows is not None:
            return self.rows
        counts = [amount for amount in self.mix.values() if isinstance(amount, int)]
        return sum(counts) if len(counts) == len(self.mix) else None

    @model_validator(mode="after")
    def _amounts(self) -> "Mix":
        for name, amount in self.mix.items():
            if self.rows is not None:
                if amount == "all" or amount <= 0:
                    raise FieldError(f"mix.{name}", f"{amount} is no weight", "With rows: each has a number above 0")
            elif amount != "all" and amount <= 0:
                raise FieldError(f"mix.{name}", f"{amount} is not positive", "Write a count, a share, or all")
            elif isinstance(amount, float) and amount >= 1:
                raise FieldError(
                    f"mix.{name}", f"{amount} is no share of its rows", "Write a share below 1, a count, or all"
                )
        return self
