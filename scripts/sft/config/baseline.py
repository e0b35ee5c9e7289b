"""`baselines:` of an experiment: what is shown beside its models and needs none."""

from typing import Literal

from pydantic import model_validator

from sft.config.errors import FieldError
from sft.config.fields import Integer, Number, Section, identity


class Baseline(Section):
    """A classifier that is fitted on the training rows of a cell and asked the rows that its models are asked."""

    method: Literal["bag_of_words"] = identity(describe="TF-IDF of words with logistic regression; sees text alone")
    longest_ngram: Integer = identity(
        1, describe="longest run of words that is counted; 1: single words", unit="words", gt=0, le=5
    )
    c: tuple[Number, ...] = identity(
        (1.0, 10.0, 100.0, 1000.0),
        describe="inverse strengths of regularisation; the best on the validation split is used, of equals the first",
        min_length=1,
    )

    @model_validator(mode="after")
    def _positive(self) -> "Baseline":
        if low := [value for value in self.c if value <= 0]:
            raise FieldError("c", f"{low[0]:g} is no strength", "Write numbers above 0")
        return self
