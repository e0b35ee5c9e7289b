"""`audit:` what stops a run before it is trained."""

from sft.config.fields import Integer, Section, identity


class Audit(Section):
    """What stops a run before it is trained."""

    maximum_overlap: Integer = identity(0, describe="rows that train and a test split may share", unit="rows", ge=0)
