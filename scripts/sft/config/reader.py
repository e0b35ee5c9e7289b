"""Reads configuration files, checks everything that can be checked without a GPU, and lists the cells.

    study = load([Path("config/config.yaml")], overrides={})

All problems of all files are reported at once, each with file, line, key and fix. Nothing of a file is executed.
"""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from sft.config import exclusions, optional_libraries, overlay
from sft.config.dataset import Dataset
from sft.config.errors import ConfigError, KeyPath, Problem, did_you_mean
from sft.config.evaluation_settings import Execution
from sft.config.experiment import Cell, Config, Experiment, Frame
from sft.config.fields import NAME
from sft.config.model import Model
from sft.config.references import References
from sft.config.strict_yaml import Document, read_yaml
from sft.config.study import Study, StudyCell, StudyExperiment
from sft.config.validation import from_validation_error
from sft.terms.nearest import nearest

DEFAULT_FILE = Path("config/config.yaml")
Checked = TypeVar("Checked", bound=BaseModel)
SECTIONS = ("datasets", "models", "experiments")


def load(files: list[Path], overrides: dict[str, Any] | None = None) -> Study:
    """Read and check `files` (the default one where none is given); ConfigError lists every problem."""
    return read_study([read_yaml(path) for path in (files or [DEFAULT_FILE])], overrides or {})


def read_study(documents: list[Document], overrides: dict[str, Any]) -> Study:
    """Check documents that were read already; ConfigError lists every problem."""
    reader = _Reader(documents, overrides)
    study = reader.study()
    if reader.problems:
        raise ConfigError(reader.problems)
    return study


class _Reader:
    def __init__(self, documents: list[Document], overrides: dict[str, Any]):
        self.documents = documents
        self.overrides = overrides
        self.problems: list[Problem] = []
        self.home: dict[KeyPath, Document] = {}
        self.overlays: dict[KeyPath, list[Document]] = {}

    def study(self) -> Study:
        raw = self._sections()
        study = Study(execution=self._execution())
        raw["datasets"] = {name: self._extended(name, raw["datasets"]) for name in raw["datasets"]}
        for name, entry in raw["datasets"].items():
            if (dataset := self._checked(Dataset, entry, ("datasets", name))) is not None:
                study.datasets[name] = dataset
        for name, entry in raw["models"].items():
            if (model := self._checked(Model, entry, ("models", name))) is not None:
                study.models[name] = model
        for name, entry in raw["experiments"].items():
            if (experiment := self._experiment(name, entry, study)) is not None:
                study.experiments[name] = experiment
        References(study, raw, lambda place, *said: self._problem(self.home[place[:2]], place, *said)).check()
        if not raw["experiments"] and not self.problems:
            self._problem(self.documents[0], ("experiments",), "there is no experiment", "add one under experiments:")
        return study

    def _sections(self) -> dict[str, dict[str, Any]]:
        merged: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS}
        overlays: list[tuple[Document, str, str, Any]] = []
        for document in self.documents:
            for key in document.data:
                if key not in Config.model_fields:
                    fix = f"Did you mean {near}?" if (near := nearest(key, Config.model_fields)) else "Remove it"
                    self._problem(document, (key,), "unknown key", fix)
            if not isinstance(document.data.get("overlay", False), bool):
                self._problem(document, ("overlay",), "is neither true nor false", "Write overlay: true")
            for section in SECTIONS:
                entries = document.data.get(section) or {}
                if not isinstance(entries, dict):
                    self._problem(document, (section,), "is not a mapping of names", f"write {section}: {{name: …}}")
                    continue
                for name, entry in entries.items():
                    place = (section, name)
                    if document.data.get("overlay") is True:
                        overlays.append((document, section, name, entry))
                    elif not NAME.fullmatch(name) or ".." in name or len(name) > 100:
                        fix = "Use letters, digits, '.', '_' and '-', a letter or digit first, no '..'"
                        self._problem(document, place, f"{name!r} cannot be a name", fix)
                    elif name in merged[section] and merged[section][name] != entry:
                        other = self.home[place]
                        where = f"{other.path}:{other.line(place)}"
                        self._problem(document, place, f"is defined differently in {where}", "Rename one of them")
                    else:
                        self.home.setdefault(place, document)
                        merged[section][name] = entry
        for document, section, name, change in overlays:
            if fault := overlay.fault(section, name, change, merged[section]):
                self._problem(document, (section, name), *fault)
            else:
                self.overlays.setdefault((section, name), []).append(document)
                merged[section][name] = overlay.changed(section, merged[section][name], change)
        return merged

    def _execution(self) -> Execution:
        merged: dict[str, Any] = {}
        for document in self.documents:
            entry = document.data.get("execution") or {}
            if self._checked(Execution, entry, ("execution",), document) is not None:
                merged |= entry
        for key, value in self.overrides.items():
            if key.removeprefix("execution.") not in Execution.model_fields:
                hint = did_you_mean(key, Execution.model_fields)
                self.problems.append(
                    Problem("--config", None, key, f"unknown key{hint}", "Only keys of execution: can be overridden")
                )
            else:
                merged[key.removeprefix("execution.")] = value
        try:
            return Execution(**merged)
        except ValidationError as error:
            for fault in error.errors() if self.overrides else []:
                key = str(fault["loc"][0])
                self.problems.append(Problem("--config", None, key, f"{merged[key]!r} is not a value of this key"))
            return Execution()

    def _extended(self, name: str, entries: dict[str, Any], above: tuple[str, ...] = ()) -> Any:
        entry = entries[name]
        if not isinstance(entry, dict) or not isinstance(entry.get("extends"), str):
            return entry
        base, place = entry["extends"], ("datasets", name, "extends")
        if base not in entries:
            self._problem(
                self.home["datasets", name], place, f"there is no data set {base}{did_you_mean(base, entries)}", ""
            )
            return entry
        if base in (*above, name):
            self._problem(self.home["datasets", name], place, f"{' -> '.join((*above, name, base))} is a circle", "")
            return entry
        below = self._extended(base, entries, (*above, name))
        return {**below, **entry} if isinstance(below, dict) else entry

    def _experiment(self, name: str, entry: Any, study: Study) -> StudyExperiment | None:
        place = ("experiments", name)
        if not isinstance(entry, dict):
            self._problem(self.home[place], place, "is not a mapping", "Write its keys below it")
            return None
        frame = self._checked(Frame, {key: entry[key] for key in entry if key in Frame.model_fields}, place)
        common = {key: value for key, value in entry.items() if key not in Frame.model_fields}
        if frame is None:
            self._checked(Cell, common, place)
            return None
        cells: dict[str, StudyCell] = {}
        for label, changes, at in self._cells(name, frame):
            merged = common
            for key, value in changes.items():
                merged = overlay.assigned(merged, key.split("."), value)
            content = self._checked(Cell, merged, place, specific=at)
            if content is None:
                continue
            execution = study.execution
            if content.execution:
                both = {**execution.model_dump(), **content.execution}
                execution = self._checked(Execution, both, (*place, "execution")) or execution
            label = label or content.method
            if label in frame.baselines:
                named = (*place, "baselines", label)
                self._problem(self.home[place], named, "a cell has this name", "Rename the baseline")
            if label in cells:
                self._problem(self.home[place], place, f"two cells are called {label}", "Rename a variant")
            cells[label] = StudyCell(label, content, execution, changes)
            self._check_batches(place, cells[label])
            for key, problem, fix in exclusions.on_device(content.training, execution.device):
                self._problem(self.home[place], (*place, "training", key), f"{problem} (cell {label})", fix)
            if (missing := optional_libraries.missing(content, execution)) is not None:
                keys, problem, fix = missing
                self._problem(self.home[place], (*place, *keys), f"{problem} (cell {label})", fix)
        if len({cell.content.evaluation.split for cell in cells.values()}) > 1:
            problem = "some cells are asked about test rows and some about validation rows"
            self._problem(self.home[place], (*place, "evaluation", "split"), problem, "Make them two experiments")
        return StudyExperiment(name, frame, cells) if cells else None

    def _cells(self, name: str, frame: Frame) -> list[tuple[str, dict[str, Any], list[tuple]]]:
        """(label, dotted changes, places in the file) of every combination of variants and grid values."""
        place = ("experiments", name)
        axes: list[list[tuple[str, dict[str, Any], tuple]]] = []
        if frame.variants:
            axes.append([(v, dict(changes), (*place, "variants", v)) for v, changes in frame.variants.items()])
        for key, values in frame.grid.items():
            if not self._known_key(key, (*place, "grid", key)):
                continue
            axes.append([(_value_label(key, value), {key: value}, (*place, "grid")) for value in values])
        combinations = []
        for chosen in itertools.product(*axes):
            changes = {key: value for _, part, _ in chosen for key, value in part.items()}
            places = list(dict.fromkeys(at for _, _, at in chosen))
            combinations.append(("_".join(label for label, _, _ in chosen), changes, places))
        return combinations

    def _known_key(self, key: str, place: tuple) -> bool:
        section: Any = Cell
        for i, part in enumerate(key.split(".")):
            fields = getattr(section, "model_fields", None)
            if fields is None:
                return True  # inside a free mapping (extra, mix): its own check follows
            if part not in fields:
                known = [".".join([*key.split(".")[:i], name]) for name in fields]
                near = nearest(key, known)
                self._problem(
                    self.home[place[:2]],
                    place,
                    "the grid names an unknown key",
                    f"Did you mean {near}?" if near else "",
                )
                return False
            section = _section_of(fields[part].annotation)
        return True

    def _check_batches(self, place: tuple[str, str], cell: StudyCell) -> None:
        training, micro = cell.content.training, cell.execution.micro_batch_size
        batch = training.global_batch_size // training.distributed.processes
        if micro is not None and batch % micro:
            smaller = max(n for n in range(1, micro + 1) if batch % n == 0)
            each = " rows a process are" if training.distributed.processes > 1 else " is"
            self._problem(
                self.home[place],
                (*place, "training", "global_batch_size"),
                f"{batch}{each} not a multiple of execution.micro_batch_size {micro} (cell {cell.label})",
                f"{smaller} would be: set execution.micro_batch_size: {smaller}",
            )

    def _checked(
        self,
        section: type[Checked],
        entry: Any,
        place: KeyPath,
        document: Document | None = None,
        specific: Sequence[KeyPath] = (),
    ) -> Checked | None:
        document = document or self.home.get(place[:2]) or self.documents[0]
        try:
            return section.model_validate(entry)
        except ValidationError as error:
            # A cell is checked as what is written: hints name the keys of an experiment, frame included.
            written = Experiment if section in (Cell, Frame) else section
            documents = [document, *self.overlays.get(place[:2], [])]
            for problem in from_validation_error(error, documents, [*specific, place], written):
                if problem not in self.problems:
                    self.problems.append(problem)
            return None

    def _problem(self, document: Document, place: tuple, message: str, fix: str) -> None:
        for over in self.overlays.get(place[:2], []):
            document = document if over.find(place)[2] else over
        problem = Problem(document.path, document.line(place), ".".join(place), message, fix)
        if problem not in self.problems:
            self.problems.append(problem)


def _value_label(key: str, value: Any) -> str:
    """`learning_rate-0.001` for training.learning_rate: 0.001; what cannot stand in a path becomes '-'."""
    text = f"{value:g}" if isinstance(value, float) else str(value)
    clean = "".join(c if c.isalnum() or c in "._" else "-" for c in text).strip("-.")
    return f"{key.rpartition('.')[2]}-{clean}"


def _section_of(annotation: Any) -> Any:
    """The Section inside `Section | None`, or None where the type is another."""
    options = getattr(annotation, "__args__", (annotation,))
    return next((option for option in options if hasattr(option, "model_fields")), None)
