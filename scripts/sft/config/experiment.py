"""`experiments:` and the whole file."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from sft.config import exclusions
from sft.config.audit_settings import Audit
from sft.config.baseline import Baseline
from sft.config.dataset import Dataset, Mix
from sft.config.errors import FieldError, refuse
from sft.config.evaluation_settings import Evaluation, Execution
from sft.config.fields import (
    ExistingPath,
    FigureScript,
    Integer,
    Name,
    Number,
    Section,
    Truth,
    execution,
    figure_name,
    identity,
    presentation,
)
from sft.config.label_audit_settings import LabelAudit
from sft.config.model import Model, ModelReference
from sft.config.training_settings import Lora, Training

Seed = Annotated[Integer, Field(ge=0, lt=2**31)]

DatasetReference = Annotated[
    Annotated[Name, Tag("name")] | Annotated[Mix, Tag("mix")],
    Discriminator(
        lambda value: "name" if isinstance(value, str) else "mix" if isinstance(value, (dict, Mix)) else None,
        custom_error_type="unknown_dataset",
        custom_error_message="a data set is the name of an entry of datasets:, or {mix: {name: all or a count}}",
    ),
]


class Cell(Section):
    """What one cell of an experiment is: everything but its seed."""

    dataset: DatasetReference = identity(describe="what is trained on: a name of datasets:, or a mix")
    model: ModelReference = identity(describe="what is trained: a name of models:, or a finished run")
    method: Literal["full", "lora"] = identity(describe="train all weights, or low-rank adapters")
    lora: Lora | None = identity(None, describe="the adapters, with method lora")
    training: Training = identity(describe="the optimisation")
    evaluate_on: tuple[Name, ...] | None = identity(
        None, describe="data sets whose test splits are scored; null: the one trained on"
    )
    evaluation: Evaluation = identity(Evaluation(), describe="how models are asked")
    audit: Audit = identity(Audit(), describe="what stops a run before training")
    labels: LabelAudit = identity(LabelAudit(), describe="what about its labels stops a run before training")
    environment: Name | None = identity(
        None,
        describe="locks/NAME.txt, whose packages models are made, trained and asked with; null: those of the project",
    )
    execution: dict[str, Any] = execution({}, describe="overrides of the file's execution: for this experiment")

    @model_validator(mode="after")
    def _adapters(self) -> "Cell":
        if self.method == "full" and self.lora is not None:
            raise FieldError("lora", "has no effect with method full", "Remove it, or write method: lora")
        if (
            self.lora
            and self.training.distributed.strategy == "fsdp1"
            and (self.lora.use_dora or self.lora.modules_to_save)
        ):
            key = "lora.use_dora" if self.lora.use_dora else "lora.modules_to_save"
            raise FieldError(key, "PEFT does not save it from models that FSDP 1 has wrapped", "Use strategy: fsdp2")
        if self.method == "lora" and self.training.frozen:
            fix = "Choose what is adapted with lora.target_modules"
            raise FieldError("training.frozen", "has no effect with method lora: the base is frozen anyway", fix)
        refusals = exclusions.in_cell(self.training, self.method, self.lora)
        refuse((f"training.{key}", problem, fix) for key, problem, fix in refusals)
        return self


class Frame(Section):
    """What an experiment is besides its cells: seeds, how cells are made, and what a reader sees."""

    title: str | None = presentation(None, describe="title of the figures")
    description: str | None = presentation(None, describe="what is asked and shown; goes into report and archive")
    chance: Number | None = presentation(None, describe="accuracy of guessing, drawn as a line", ge=0, le=1)
    metric: Literal["accuracy_strict", "accuracy_lenient", "accuracy_likelihood", "accuracy_token"] = presentation(
        "accuracy_strict", describe="the score that figures show; tables show all"
    )
    expected: ExistingPath | None = presentation(
        None, describe="a file of published loss and grad_norm per step; a run that is further off stops"
    )
    figures: tuple[FigureScript, ...] = presentation(
        (), describe="own figures: scripts plot_NAME.py, drawn from the ledger beside the others"
    )
    seeds: tuple[Seed, ...] = identity((0,), describe="one run for each", min_length=1)
    grid: dict[str, list[Any]] = identity({}, describe="dotted key: values; cells are all combinations")
    variants: dict[Name, dict[str, Any]] = identity({}, describe="named cells: what each changes")
    baselines: dict[Name, Baseline] = identity(
        {}, describe="classifiers by name, fitted on the cells' training rows and shown beside their models"
    )

    @model_validator(mode="after")
    def _cells_to_make(self) -> "Frame":
        empty = [key for key, values in self.grid.items() if not values]
        if empty:
            raise FieldError(f"grid.{empty[0]}", "has no values", "List at least one, or remove the key")
        repeated = sorted({seed for seed in self.seeds if self.seeds.count(seed) > 1})
        if repeated:
            raise FieldError("seeds", f"{repeated} more than once", "Every seed is one run: list each once")
        figures = [figure_name(script) for script in self.figures]
        if len(set(figures)) < len(figures):
            raise FieldError("figures", "has two scripts of one name", "Rename one of them")
        return self


class Experiment(Frame, Cell):
    """An experiment as it is written: the keys of all its cells, and how they differ."""


class Config(Section):
    """A configuration file."""

    overlay: Truth = execution(False, describe="change what the other files define instead of defining anew")
    datasets: dict[Name, Dataset] = identity({}, describe="data sets by name")
    models: dict[Name, Model] = identity({}, describe="base models by name")
    experiments: dict[Name, Experiment] = identity({}, describe="experiments by name")
    execution: Execution = execution(Execution(), describe="where and how everything runs")
