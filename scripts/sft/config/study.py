"""A checked configuration: its data sets and models, and the cells of its experiments."""

from dataclasses import dataclass, field
from typing import Any

from sft.config.dataset import Dataset, Mix
from sft.config.errors import did_you_mean
from sft.config.evaluation_settings import Execution
from sft.config.experiment import Cell, Frame
from sft.config.model import FinishedRun, Model


@dataclass(frozen=True)
class StudyCell:
    """One cell of an experiment: its label, its checked content, and how it is run."""

    label: str
    content: Cell
    execution: Execution
    settings: dict[str, Any]  # dotted key -> value, where it differs from the experiment's other cells

    @property
    def evaluate_on(self) -> tuple[str, ...]:
        """Names of the data sets whose test splits are scored; by default the (first) one trained on."""
        if self.content.evaluate_on is not None:
            return self.content.evaluate_on
        dataset = self.content.dataset
        return (next(iter(dataset.mix)) if isinstance(dataset, Mix) else dataset,)


@dataclass(frozen=True)
class StudyExperiment:
    """An experiment: what a reader sees, its seeds, and its cells by label."""

    name: str
    frame: Frame
    cells: dict[str, StudyCell]


@dataclass
class Study:
    """A checked configuration."""

    datasets: dict[str, Dataset] = field(default_factory=dict)
    models: dict[str, Model] = field(default_factory=dict)
    experiments: dict[str, StudyExperiment] = field(default_factory=dict)
    execution: Execution = field(default_factory=Execution)

    def referenced_cell(self, reference: FinishedRun) -> tuple[StudyExperiment, StudyCell]:
        """The experiment and cell that `model: {run: …}` names; KeyError says what is wrong, in words."""
        name, _, label = reference.run.partition("/")
        experiment = self.experiments.get(name)
        if experiment is None:
            raise KeyError(f"there is no experiment {name}{did_you_mean(name, self.experiments)}")
        if not label and len(experiment.cells) == 1:
            label = next(iter(experiment.cells))
        if not label:
            cells = ", ".join(f"{name}/{cell}" for cell in experiment.cells)
            raise KeyError(f"experiment {name} has several cells; name one of {cells}")
        if label not in experiment.cells:
            raise KeyError(f"experiment {name} has no cell {label}{did_you_mean(label, experiment.cells)}")
        return experiment, experiment.cells[label]
