"""Published rows to canonical examples (sft/data/read/examples.py), strictly: what is not certain is named."""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from sft.config.nodes import PrepareSettings
from sft.data.read import pictures, turns
from sft.data.read.cells import Row, published_columns
from sft.data.read.formats import Format, is_conversation
from sft.data.read.rows import USUAL_ID, UnreadableRow, id_column, read_rows
from sft.data.read.seen_ids import SeenIds
from sft.runtime.stage import StageError
from sft.sources.source_files import tables

# So many broken rows are named before the stage stops.
FAULTS_SHOWN = 5
# Tables that give every mapping of a column the fields of all others, filled with nulls.
COLUMNAR = (".parquet", ".arrow")
TRANSFORMS: dict[str, Callable[[bytes], bytes]] = {"none": bytes, "invert": pictures.invert}


class Preparation:
    """One pass over the files below `directory`; counts what it saw. StageError for a template that is none."""

    def __init__(self, settings: PrepareSettings, directory: Path):
        self.settings = settings
        self.columns: dict[str, Any] = settings.columns
        self.renamed = settings.renamed
        self.directory = directory
        self.rows: Counter[str] = Counter()
        self.dropped: dict[str, list[str]] = {}
        self.answers: Counter[str] = Counter()
        self.choices: Counter[int] = Counter()
        self.sizes: Counter[str] = Counter()
        self.roles: Counter[str] = Counter()
        self.equal_choices = 0
        self.named_by_number: list[str] = []
        try:
            self.format = Format(settings)
        except ValueError as error:
            raise StageError(f"the data set's template: {error}") from None

    def examples(self) -> Iterator[dict[str, Any]]:
        """The examples in the order of (file name, row).

        StageError names up to five rows that cannot be read; with `on_bad_row: drop` they are left out and counted.
        """
        seen = SeenIds()
        faults: list[str] = []
        for name in tables(self.directory):
            wanted = self._wanted(name)
            for number, row in read_rows(self.directory / name, wanted):
                place = f"{name}, row {number}"
                try:
                    if isinstance(row, UnreadableRow):
                        raise ValueError(str(row))
                    example = self._example(name, number, row)
                    _require_writable(example)
                    seen.add(example["id"], place)
                except StageError as uncertain:
                    raise StageError(f"{place}: {uncertain}") from None
                except Exception as published:  # whatever a row makes happen is that row's fault
                    error = _reason(published)
                    if self.settings.on_bad_row == "drop":
                        self.dropped.setdefault(name, []).append(f"row {number}{self._named(row)}: {error}")
                        continue
                    faults.append(f"{place}{self._named(row)}: {error}")
                    if len(faults) == FAULTS_SHOWN:
                        self._stop(faults, at_least=True)
                    continue
                self._count(name, example)
                if not faults:
                    yield example
        if faults:
            self._stop(faults, at_least=False)
        if not self.rows.total():
            dropped = sum(map(len, self.dropped.values()))
            what = f"all {dropped} rows were dropped: {self._dropped_shown()}" if dropped else "the tables have no rows"
            raise StageError(f"no row is left: {what}")

    def facts(self) -> dict[str, Any]:
        """What the pass saw, for the manifest."""
        found = {
            "rows": dict(self.rows),
            "answers": dict(sorted(self.answers.items())),
            "choices_per_row": {str(n): rows for n, rows in sorted(self.choices.items())},
            "rows_with_equal_choices": self.equal_choices,
            "pictures": sum(self.sizes.values()),
            "picture_sizes": dict(self.sizes.most_common(20)),
        }
        if self.named_by_number:
            found["ids"] = f"file name and row number: no column {USUAL_ID!r} in {', '.join(self.named_by_number)}"
        if self.roles:
            found["turns"] = dict(sorted(self.roles.items()))
        if self.settings.on_bad_row == "drop":
            found["rows_dropped"] = {name: len(reasons) for name, reasons in self.dropped.items()}
            found["rows_dropped_shown"] = self._dropped_shown()
        return found

    def _dropped_shown(self) -> list[str]:
        return [f"{name}, {reason}" for name, reasons in self.dropped.items() for reason in reasons[:FAULTS_SHOWN]]

    def _wanted(self, name: str) -> list[str]:
        """The columns to read of a file; its rows are named by file and number where it has no column `id`."""
        columns: dict[str, Any] = self.settings.columns
        named = columns.get("id_key")
        found = id_column(self.directory / name, named)
        if found != named:
            self.named_by_number.append(name)
        self.columns = {**columns, "id_key": found}
        wanted = [self.columns[key] for key in ("id_key", "group_key", "system_key") if self.columns.get(key)]
        wanted += [*self.format.columns(), *(self.columns.get("image_keys") or [])]
        return published_columns(wanted, self.renamed)

    def _example(self, name: str, number: int, published: dict[str, Any]) -> dict[str, Any]:
        row = Row(published, self.columns, self.renamed, padded=name.endswith(COLUMNAR))
        identifier = row.name("id_key")
        if identifier is None and self.columns.get("id_key"):
            raise ValueError(f"column {self.columns['id_key']!r} is empty (null); every row needs an id")
        images = self._images(row.cells, name)
        fields = self.format.read(row, len(images))
        system = None if is_conversation(self.settings.format) else self.settings.system or row.name("system_key")
        return {
            "id": f"{PurePosixPath(name).with_suffix('')}-{number:07d}" if identifier is None else identifier,
            "source_file": name,
            **fields,
            "images": images,
            "group": row.name("group_key"),
            "system": system,
        }

    def _images(self, row: dict[str, Any], name: str) -> list[bytes]:
        transform = TRANSFORMS[self.settings.image_transform]
        images = []
        for column in self.columns.get("image_keys") or []:
            cell = row[column]
            several = isinstance(cell, list)
            if cell is None and self.settings.images_optional:
                continue
            for value in cell if several else [cell]:
                try:
                    encoded = self._encoded(value, name)
                    self._check_size(encoded)
                    pictures.decode(encoded)  # whole: a file that was cut has a header as well
                    images.append(transform(encoded))
                except ValueError as error:
                    raise ValueError(f"column {column!r}: {error}") from None
        return images

    def _encoded(self, value: Any, name: str) -> bytes:
        """The bytes of a picture: given as such, as {"bytes", "path"}, or as a path in the source directory."""
        if isinstance(value, dict):
            value = value.get("bytes") or value.get("path")
        if isinstance(value, bytes):
            return value
        if not isinstance(value, str) or not value:
            raise ValueError(f"a {type(value).__name__} is no picture (bytes, or a path)")
        if PurePosixPath(value).is_absolute() or ".." in PurePosixPath(value).parts:
            raise ValueError(f"picture {value!r} is not inside the source; give a path relative to its directory")
        for base in (self.directory / name).parent, self.directory:
            if (base / value).is_file():
                return (base / value).read_bytes()
        raise ValueError(
            f"picture {value!r} is not in the source. The data set's source.path must be the whole directory"
        )

    def _check_size(self, encoded: bytes) -> None:
        """ValueError for a picture without a readable header, or with more pixels than the data set allows."""
        width, height = pictures.size(encoded)
        limit = self.settings.maximum_pixels
        if width * height > limit:
            raise ValueError(
                f"a picture of {width} x {height} pixels; at most {limit} are read. Make it smaller, or set "
                f"maximum_pixels"
            )

    def _named(self, row: dict[str, Any] | UnreadableRow) -> str:
        column = self.columns.get("id_key")
        if isinstance(row, UnreadableRow) or not column or row.get(column) is None:
            return ""
        return f" (id {_shown(row[column])})"

    def _count(self, name: str, example: dict[str, Any]) -> None:
        self.rows[name] += 1
        if example["answer"]:
            self.answers[example["answer"]] += 1
        self.choices[len(example["choices"])] += 1
        if example["messages"]:
            self.roles.update(turn["role"] for turn in turns.turns(example))
        self.equal_choices += len(set(example["choices"])) < len(example["choices"])
        for image in example["images"]:
            self.sizes["{} x {}".format(*pictures.size(image))] += 1

    def _stop(self, faults: list[str], at_least: bool) -> None:
        count = f"at least {len(faults)}" if at_least else str(len(faults))
        raise StageError(f"{count} rows cannot be read with certainty:\n  " + "\n  ".join(faults))


def _require_writable(example: dict[str, Any]) -> None:
    """ValueError for a text that UTF-8 cannot hold: JSON may spell half of a surrogate pair."""
    for field, value in example.items():
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str):
                try:
                    text.encode()
                except UnicodeEncodeError as error:
                    raise ValueError(
                        f"{field} holds half of a surrogate pair (\\u{ord(text[error.start]):04x}), as a text that was "
                        f"cut within an emoji does, and is no Unicode"
                    ) from None


def _reason(error: Exception) -> str:
    """What is wrong with a row; what no reader foresaw is named by its kind."""
    told = str(error) if type(error) is ValueError else f"{type(error).__name__}: {error}"
    return _shown(told.partition("\n")[0][:500])


def _shown(value: Any) -> str:
    """A value as a text that can be printed."""
    return str(value).encode("utf-8", "backslashreplace").decode()
