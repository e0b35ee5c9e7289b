"""pydantic's complaints about a section, as problems of the files it was written in."""

import json
from collections.abc import Sequence

from pydantic import BaseModel, ValidationError

from sft.config.errors import KeyPath, Problem, dotted
from sft.config.strict_yaml import Document
from sft.config.wording import complaints


def from_validation_error(
    error: ValidationError,
    documents: Document | Sequence[Document],
    prefixes: Sequence[KeyPath],
    model: type[BaseModel],
) -> list[Problem]:
    """pydantic's complaints about data that was validated as `model`, as problems of the files it came from.

    `prefixes`: the key paths, in the files, of what was validated: one, or where it was put together from several
    places (an experiment and one of its variants) each of them, the most specific first. Of several `documents` the
    later ones are read over the earlier.
    """
    files = [documents] if isinstance(documents, Document) else list(documents)
    problems: list[Problem] = []
    for complaint in complaints(error, model):
        order = prefixes[::-1] if complaint.missing else prefixes
        document, path = _written(files, order, complaint.keys)
        fix = complaint.fix
        if complaint.quote:
            fix = f"Quote it: {json.dumps(document.text(path) or '...')}"
        problem = Problem(document.path, document.line(path), dotted(path), complaint.message, fix)
        if problem not in problems:
            problems.append(problem)
    return problems


def _written(files: Sequence[Document], prefixes: Sequence[KeyPath], keys: KeyPath) -> tuple[Document, KeyPath]:
    """The file and the key path, as written there, of the `keys` below one of `prefixes`."""
    found: list[tuple[int, Document, KeyPath]] = []
    for prefix in prefixes:
        for document in reversed(files):
            _, done, rest = document.find((*prefix, *keys))
            found.append((len(rest), document, (*done, *rest)))
    _, document, path = min(found, key=lambda one: one[0])  # the first of those that miss least
    return document, path
