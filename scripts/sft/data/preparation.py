"""Published rows to canonical examples (sft/data/examples.py), strictly: what is not certain is named."""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from sft.data import multiple_choice, pictures
from sft.data.rows import read_rows
from sft.data.source_files import tables
from sft.stage import StageError

# So many broken rows are named before the stage stops.
FAULTS_SHOWN = 5
TRANSFORMS: dict[str, Callable[[bytes], bytes]] = {"none": bytes, "invert": pictures.invert}


class Preparation:
    """One pass over the files below `directory`; counts what it saw."""

    def __init__(self, config: dict[str, Any], directory: Path):
        self.config = config
        self.columns: dict[str, Any] = config["columns"]
        self.directory = directory
        self.rows: Counter[str] = Counter()
        self.answers: Counter[str] = Counter()
        self.choices: Counter[int] = Counter()
        self.sizes: Counter[str] = Counter()
        self.equal_choices = 0
        if config["format"] not in ("multiple_choice", "prompt_completion"):
            raise StageError(f"format {config['format']!r} is neither multiple_choice nor prompt_completion")
        if config["image_transform"] not in TRANSFORMS:
            raise StageError(f"image_transform {config['image_transform']!r} is not one of {', '.join(TRANSFORMS)}")

    def examples(self) -> Iterator[dict[str, Any]]:
        """The examples in the order of (file name, row); StageError names up to five rows that cannot be read."""
        seen: dict[str, str] = {}
        faults: list[str] = []
        for name in tables(self.directory):
            for number, row in read_rows(self.directory / name, self._wanted()):
                place = f"{name}, row {number}"
                try:
                    example = self._example(name, number, row)
                    self._check_unique(example["id"], place, seen)
                except ValueError as error:
                    faults.append(f"{place}{self._named(row)}: {error}")
                    if len(faults) == FAULTS_SHOWN:
                        self._stop(faults, at_least=True)
                    continue
                self._count(name, example)
                if not faults:
                    yield example
        if faults:
            self._stop(faults, at_least=False)

    def facts(self) -> dict[str, Any]:
        """What the pass saw, for the manifest."""
        return {
            "rows": dict(self.rows),
            "answers": dict(sorted(self.answers.items())),
            "choices_per_row": {str(n): rows for n, rows in sorted(self.choices.items())},
            "rows_with_equal_choices": self.equal_choices,
            "pictures": sum(self.sizes.values()),
            "picture_sizes": dict(self.sizes.most_common(20)),
        }

    def _wanted(self) -> list[str]:
        keys = ["prompt_key", "id_key", "group_key", "system_key"]
        keys += ["choice_key", "answer_key"] if self.config["format"] == "multiple_choice" else ["completion_key"]
        named = [self.columns[key] for key in keys if self.columns.get(key)]
        return list(dict.fromkeys([*named, *(self.columns.get("image_keys") or [])]))

    def _example(self, name: str, number: int, row: dict[str, Any]) -> dict[str, Any]:
        prompt = self._text(row, "prompt_key")
        choices: list[str] = []
        answer = ""
        if self.config["format"] == "multiple_choice":
            choices = multiple_choice.parse_choices(self._cell(row, "choice_key"))
            answer = multiple_choice.parse_answer(self._cell(row, "answer_key"), choices)
            prompt = multiple_choice.render_question(prompt, choices, self.config["choices_layout"])
            completion = multiple_choice.render_target(answer, choices, self.config["target"])
        else:
            completion = self._text(row, "completion_key")
        identifier = self._optional(row, "id_key")
        return {
            "id": f"{PurePosixPath(name).with_suffix('')}-{number:07d}" if identifier is None else identifier,
            "source_file": name,
            "prompt": prompt,
            "completion": completion,
            "choices": choices,
            "answer": answer,
            "images": self._images(row, name),
            "group": self._optional(row, "group_key"),
            "system": self.config.get("system") or self._optional(row, "system_key"),
        }

    def _cell(self, row: dict[str, Any], key: str) -> Any:
        column = self.columns.get(key)
        if not column:
            raise StageError(f"the data set has no {key}; format {self.config['format']} needs it")
        if row[column] is None:
            raise ValueError(f"column {column!r} is empty (null)")
        return row[column]

    def _text(self, row: dict[str, Any], key: str) -> str:
        value = self._cell(row, key)
        if not isinstance(value, str):
            raise ValueError(f"column {self.columns[key]!r} holds a {type(value).__name__}, not text")
        if not value.strip():
            raise ValueError(f"column {self.columns[key]!r} is empty")
        return value

    def _optional(self, row: dict[str, Any], key: str) -> str | None:
        column = self.columns.get(key)
        value = row[column] if column else None
        if value is None and key == "id_key" and column:
            raise ValueError(f"column {column!r} is empty (null); every row needs an id")
        if value is not None and not isinstance(value, (str, int)):
            raise ValueError(f"column {column!r} holds a {type(value).__name__}, not text")
        return None if value is None else str(value)

    def _images(self, row: dict[str, Any], name: str) -> list[bytes]:
        transform = TRANSFORMS[self.config["image_transform"]]
        images = []
        for column in self.columns.get("image_keys") or []:
            cell = row[column]
            for value in cell if isinstance(cell, list) else [cell]:
                try:
                    encoded = self._encoded(value, name)
                    pictures.size(encoded)
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

    def _check_unique(self, identifier: str, place: str, seen: dict[str, str]) -> None:
        if identifier in seen:
            raise ValueError(f"id {identifier!r} is also the id of {seen[identifier]}; ids must be unique")
        seen[identifier] = place

    def _named(self, row: dict[str, Any]) -> str:
        column = self.columns.get("id_key")
        return f" (id {row[column]})" if column and row.get(column) is not None else ""

    def _count(self, name: str, example: dict[str, Any]) -> None:
        self.rows[name] += 1
        if example["answer"]:
            self.answers[example["answer"]] += 1
        self.choices[len(example["choices"])] += 1
        self.equal_choices += len(set(example["choices"])) < len(example["choices"])
        for image in example["images"]:
            self.sizes["{} x {}".format(*pictures.size(image))] += 1

    def _stop(self, faults: list[str], at_least: bool) -> None:
        count = f"at least {len(faults)}" if at_least else str(len(faults))
        raise StageError(f"{count} rows cannot be read with certainty:\n  " + "\n  ".join(faults))
