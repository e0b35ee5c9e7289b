"""Reads configuration files, checks everything that can be checked without a GPU, and lists the cells.

    study = load([Path("config/config.yaml")], overrides={})

All problems of all files are reported at once, each with file, line, key and fix. Nothing of a file is executed.
"""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from sft.config import methods, optional_libraries, overlay
from sft.config.dataset import Dataset, Mix
from sft.config.errors import ConfigError, Problem, did_you_mean, nearest
from sft.config.evaluation import Execution
from sft.config.experiment import Cell, Config, Experiment, Frame
from sft.config.fields import NAME
from sft.config.lock_files import lock_file, lock_names
from sft.config.model import FinishedRun, Model
from sft.config.strict_yaml import Document, read_yaml
from sft.config.study import Study, StudyCell, StudyExperiment
from sft.config.validation import from_validation_error
from sft.data.formats import metrics_of

DEFAULT_FILE = Path("config/config.yaml")
SECTIONS = ("datasets", "models", "experiments")


def load(files: list[Path], overrides: dict[str, Any] | None = None) -> Study:
    """Read and check `files` (the default one where none is given); ConfigError lists every problem."""
    documents = [read_yaml(path) for path in (files or [DEFAULT_FILE])]
    reader = _Reader(documents, overrides or {})
    study = reader.study()
    if reader.problems:
        raise ConfigError(reader.problems)
    return study


class _Reader:
    def __init__(self, documents: list[Document], overrides: dict[str, Any]):
        self.documents = documents
        self.overrides = overrides
        self.problems: list[Problem] = []
        self.home: dict[tuple[str, str], Document] = {}
        self.overlays: dict[tuple[str, str], list[Document]] = {}

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
        self._check_references(study, raw)
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
                at = (*place, "baselines", label)
                self._problem(self.home[place], at, "a cell has this name", "Rename the baseline")
            if label in cells:
                self._problem(self.home[place], place, f"two cells are called {label}", "Rename a variant")
            cells[label] = StudyCell(label, content, execution, changes)
            self._check_batches(place, cells[label])
            for key, problem, fix in methods.on_device(content.training.model_dump(), execution.device):
                self._problem(self.home[place], (*place, "training", key), f"{problem} (cell {label})", fix)
            if (missing := optional_libraries.missing(content, execution)) is not None:
                key, problem, fix = missing
                self._problem(self.home[place], (*place, *key), f"{problem} (cell {label})", fix)
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

    def _check_references(self, study: Study, raw: dict[str, dict[str, Any]]) -> None:
        for experiment in study.experiments.values():
            place = ("experiments", experiment.name)
            for cell in experiment.cells.values():
                names = cell.content.dataset.mix if isinstance(cell.content.dataset, Mix) else [cell.content.dataset]
                benchmarks = [one.dataset for one in cell.content.audit.benchmarks.values() if one.dataset is not None]
                for key, listed in (
                    ("dataset", names),
                    ("evaluate_on", cell.evaluate_on),
                    ("audit", benchmarks),
                ):
                    for name in listed:
                        if name not in raw["datasets"]:
                            self._missing(place, key, "data set", name, raw["datasets"])
                if experiment.frame.baselines:
                    self._check_choices(place, study, {*names, *cell.evaluate_on})
                self._check_metric(place, study, experiment.frame.metric, set(cell.evaluate_on))
                model = cell.content.model
                if isinstance(model, str) and model not in raw["models"]:
                    self._missing(place, "model", "model", model, raw["models"])
                lock = cell.content.environment
                if lock is not None and lock_file(lock) is None:
                    self._missing(place, "environment", "lock", lock, dict.fromkeys(lock_names()))
                if isinstance(model, FinishedRun):
                    self._check_run(study, raw, experiment, cell, (*place, "model"))

    def _check_choices(self, place: tuple[str, str], study: Study, names: set[str]) -> None:
        for name in sorted(names & study.datasets.keys()):
            if (form := study.datasets[name].format) != "multiple_choice":
                problem = f"a bag of words chooses among choices, and data set {name} is {form}"
                self._problem(self.home[place], (*place, "baselines"), problem, "Remove the baselines")

    def _check_metric(self, place: tuple[str, str], study: Study, metric: str, names: set[str]) -> None:
        """A figure of a score that the data sets do not have would fail after the last hour of training."""
        for name in sorted(names & study.datasets.keys()):
            has = metrics_of(study.datasets[name].format)
            if metric not in has:
                problem = f"data set {name} is {study.datasets[name].format} and has no {metric}"
                self._problem(self.home[place], (*place, "metric"), problem, f"Write metric: {' or '.join(has)}")

    def _check_run(
        self,
        study: Study,
        raw: dict[str, dict[str, Any]],
        experiment: StudyExperiment,
        cell: StudyCell,
        place: tuple,
    ) -> None:
        trail = [f"{experiment.name}/{cell.label}"]
        seeds = set(experiment.frame.seeds)
        while isinstance(cell.content.model, FinishedRun):
            reference = cell.content.model
            if reference.run.partition("/")[0] in raw["experiments"].keys() - study.experiments.keys():
                return  # the experiment it names has problems of its own
            try:
                experiment, cell = study.referenced_cell(reference)
            except KeyError as error:
                return self._problem(self.home[place[:2]], place, error.args[0], "")
            seeds = seeds if reference.seed is None else {reference.seed}
            if absent := sorted(seeds - set(experiment.frame.seeds)):
                fix = f"Add them to experiments.{experiment.name}.seeds, or name one with seed:"
                return self._problem(self.home[place[:2]], place, f"{reference.run} has no seed {absent}", fix)
            step = f"{experiment.name}/{cell.label}"
            if step in trail:
                return self._problem(self.home[place[:2]], place, f"{' -> '.join([*trail, step])} is a circle", "")
            trail.append(step)
        return None

    def _missing(self, place: tuple[str, str], key: str, what: str, name: str, known: dict[str, Any]) -> None:
        listed = ", ".join(known) or "none"
        problem = f"there is no {what} {name}{did_you_mean(name, known)}"
        self._problem(self.home[place], (*place, key), problem, f"Known: {listed}")

    def _checked(
        self, section: type, entry: Any, place: tuple, document: Document | None = None, specific: Sequence[tuple] = ()
    ):
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
