"""`labels:` what about the labels of tokenised rows stops a run before it is trained."""

from sft.config.fields import Integer, Number, Section, identity


class LabelAudit(Section):
    """Thresholds of the label audit, each held for train and for validation."""

    maximum_truncated_answers: Number = identity(
        0.01, describe="share of rows whose answer is cut by max_length", ge=0, le=1
    )
    maximum_fully_masked: Integer = identity(0, describe="rows without a token to learn", unit="rows", ge=0)
    minimum_end_of_turn: Number = identity(
        0.99, describe="share of rows in which the end of every learned turn is learned", ge=0, le=1
    )
    maximum_double_bos: Integer = identity(
        0, describe="rows that begin with two beginning-of-text tokens", unit="rows", ge=0
    )
