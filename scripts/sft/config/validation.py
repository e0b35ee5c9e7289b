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
    prefix: KeyPath | Sequence[KeyPath],
    model: type[BaseModel],
) -> list[Problem]:
    """pydantic's complaints about data that was validated as `model`, as problems of the files it came from.

    `prefix`: the key path, in the files, of what was validated. Where it was put together from several places
    (an experiment and one of its variants), a list of key paths, the most specific first. Of several
    `documents` the later ones are read over the earlier.
    """
    files = [documents] if hasattr(documents, "find") else list(documents)
    prefixes = list(prefix) if prefix and isinstance(prefix[0], tuple) else [tuple(prefix)]
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
    best: tuple[int, Document, KeyPath] | None = None
    for prefix in prefixes:
        for document in reversed(files):
            _, done, rest = document.find((*prefix, *keys))
            missing = len(rest)
            if best is None or missing < best[0]:
                best = (missing, document, (*done, *rest))
    return best[1], best[2]
