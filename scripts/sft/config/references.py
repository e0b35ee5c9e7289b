"""What an experiment names has to be there: data sets, models, locks, finished runs, and the metric of its figures."""

from collections.abc import Callable
from typing import Any

from sft.config.dataset import Mix
from sft.config.errors import did_you_mean
from sft.config.model import FinishedRun
from sft.config.row_formats import metrics_of
from sft.config.study import Study, StudyCell, StudyExperiment
from sft.packages.lock_files import lock_file, lock_names

# (place in the file, what is wrong, fix)
Report = Callable[[tuple, str, str], None]


class References:
    """Checks those of a study; `written` is the files' own text, in which names with other problems still stand."""

    def __init__(self, study: Study, written: dict[str, dict[str, Any]], report: Report):
        self.study = study
        self.written = written
        self.report = report

    def check(self) -> None:
        """Report what is named and is not there."""
        for experiment in self.study.experiments.values():
            place = ("experiments", experiment.name)
            for cell in experiment.cells.values():
                self._check_cell(place, experiment, cell)

    def _check_cell(self, place: tuple[str, str], experiment: StudyExperiment, cell: StudyCell) -> None:
        datasets, models = self.written["datasets"], self.written["models"]
        names = cell.content.dataset.mix if isinstance(cell.content.dataset, Mix) else [cell.content.dataset]
        benchmarks = [one.dataset for one in cell.content.audit.benchmarks.values() if one.dataset is not None]
        for key, listed in (("dataset", names), ("evaluate_on", cell.evaluate_on), ("audit", benchmarks)):
            for name in listed:
                if name not in datasets:
                    self._missing((*place, key), "data set", name, datasets)
        if experiment.frame.baselines:
            self._check_choices(place, {*names, *cell.evaluate_on})
        self._check_metric(place, experiment.frame.metric, set(cell.evaluate_on))
        model = cell.content.model
        if isinstance(model, str) and model not in models:
            self._missing((*place, "model"), "model", model, models)
        lock = cell.content.environment
        if lock is not None and lock_file(lock) is None:
            self._missing((*place, "environment"), "lock", lock, dict.fromkeys(lock_names()))
        if isinstance(model, FinishedRun):
            self._check_run(experiment, cell, (*place, "model"))

    def _check_choices(self, place: tuple[str, str], names: set[str]) -> None:
        for name in sorted(names & self.study.datasets.keys()):
            if (form := self.study.datasets[name].format) != "multiple_choice":
                problem = f"a bag of words chooses among choices, and data set {name} is {form}"
                self.report((*place, "baselines"), problem, "Remove the baselines")

    def _check_metric(self, place: tuple[str, str], metric: str, names: set[str]) -> None:
        """A figure of a score that the data sets do not have would fail after the last hour of training."""
        for name in sorted(names & self.study.datasets.keys()):
            form = self.study.datasets[name].format
            has = metrics_of(form)
            if metric not in has:
                problem = f"data set {name} is {form} and has no {metric}"
                self.report((*place, "metric"), problem, f"Write metric: {' or '.join(has)}")

    def _check_run(self, experiment: StudyExperiment, cell: StudyCell, place: tuple) -> None:
        trail = [f"{experiment.name}/{cell.label}"]
        seeds = set(experiment.frame.seeds)
        while isinstance(cell.content.model, FinishedRun):
            reference = cell.content.model
            if reference.run.partition("/")[0] in self.written["experiments"].keys() - self.study.experiments.keys():
                return  # the experiment it names has problems of its own
            try:
                experiment, cell = self.study.referenced_cell(reference)
            except KeyError as error:
                return self.report(place, error.args[0], "")
            seeds = seeds if reference.seed is None else {reference.seed}
            if absent := sorted(seeds - set(experiment.frame.seeds)):
                fix = f"Add them to experiments.{experiment.name}.seeds, or name one with seed:"
                return self.report(place, f"{reference.run} has no seed {absent}", fix)
            step = f"{experiment.name}/{cell.label}"
            if step in trail:
                return self.report(place, f"{' -> '.join([*trail, step])} is a circle", "")
            trail.append(step)
        return None

    def _missing(self, place: tuple, what: str, name: str, known: dict[str, Any]) -> None:
        problem = f"there is no {what} {name}{did_you_mean(name, known)}"
        self.report(place, problem, f"Known: {', '.join(known) or 'none'}")
