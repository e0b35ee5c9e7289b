"""What the config.json of a rule's result holds: `stage.settings(TrainSettings)` in its script.

Only values are carried here: those of `config` in that file, and for what was left out the value that it was left out
at. Nothing is computed, so that no digest of code has these modules (tests/unit/config/test_read_back.py).
"""

from typing import Literal

from sft.config.baseline import Baseline
from sft.config.dataset import Reading
from sft.config.evaluation_settings import Asked
from sft.config.fields import Integer, Section, execution, identity
from sft.config.split_settings import Split
from sft.config.training_settings import Lora, Optimization

Method = Literal["full", "lora"]
Type = Literal["float32", "bfloat16"]


class PrepareSettings(Reading):
    """`prepare_dataset`."""

    columns: dict[str, str | tuple[str, ...] | None] = identity(describe="columns by the keys that name them")
    renamed: dict[str, str] = identity({}, describe="names for columns, {ours: theirs}", added_with={})


class SplitSettings(Section):
    """`split_dataset` of a data set."""

    split: Split = identity(describe="which rows are train, validation and test")
    id_key: str | None = execution(None, describe="where published columns are read again: that of the ids")
    renamed: dict[str, str] = execution({}, describe="there, too: names for columns, {ours: theirs}")


class MixSettings(Section):
    """`split_dataset` of a mix; the parts are the inputs part-<i> in this order."""

    mix: dict[str, Literal["all"] | int | float] = identity(describe="as in the configuration, by its names")
    mix_seed: Integer = identity(describe="which rows a count, a share or a weight chooses")
    rows: Integer | None = identity(None, describe="rows altogether; the numbers of mix are weights", added_with=None)


class OfModel(Section):
    """Of what starts from a model that a run may have made."""

    model_step: Integer | None = execution(None, describe="which step of that run; null: its last, or no run made it")


class TrainSettings(OfModel):
    """`train_model`: one run."""

    method: Method = identity(describe="train all weights, or low-rank adapters")
    lora: Lora | None = identity(describe="the adapters, with method lora")
    seed: Integer = identity(describe="of the order of rows, dropout, and first values of adapters")
    precision: Type = identity(describe="bfloat16: mixed precision over float32 master weights")
    training: Optimization = identity(describe="the optimization")


class ConvertSettings(OfModel):
    """`convert_checkpoint`."""

    dtype: Type = identity(describe="type of the converted weights")
    method: Method = identity(describe="how the run was trained")
    steps: Literal["all", "last"] = identity(describe="which kept checkpoints")


class QuestionSettings(Asked, OfModel):
    """What `predict` and `ask_base` have in common."""

    control_tokens: Literal["refuse", "neutralise"] = identity(
        "refuse", describe="neutralise: those in rows are asked as plain text", added_with="refuse"
    )
    datasets: tuple[str, ...] = execution(describe="ids of the divided data sets, in the order of the inputs test-<i>")


class PredictSettings(QuestionSettings):
    """`predict`."""

    steps: Literal["all", "last"] = identity(describe="which models of the run")
    prompts_stored: Integer = identity(describe="prompts of each data set that are shown in prompts.json")


class AskBaseSettings(QuestionSettings):
    """`ask_base`."""

    dtype: Type = identity(describe="type of the weights")


class ScoreSettings(Section):
    """`score`."""

    split: Literal["test", "validation"] = identity("test", describe="the rows that were asked", added_with="test")
    datasets: tuple[str, ...] = execution(describe="ids of the divided data sets, in the order of the inputs test-<i>")


class BaselineSettings(Baseline, ScoreSettings):
    """`fit_baseline`."""


class ShownBaseline(Section):
    """A baseline as figures and tables show it."""

    name: str = identity(describe="as in the configuration")
    label: str = identity(describe="its cell in the ledger: the name, or name_<cell> where cells differ in their rows")
    cells: tuple[str, ...] = identity(describe="the cells that it stands beside")


class ComparedCell(Section):
    """One of several cells that differ in their environment alone."""

    cell: str = identity(describe="its label")
    environment: str = identity(describe="the lock whose packages it was made with")


class Line(Section):
    """Cells that differ in how many rows they are trained on."""

    name: str = identity(describe="what the line is called")
    points: tuple[tuple[int, str], ...] = identity(describe="rows and cell of each")


class Shown(Section):
    """What a reader sees of an experiment: `tabulate_results` and the figures, each with what is its own."""

    experiment: str = identity(describe="its name")
    title: str = identity(describe="of the figures")
    description: str = identity(describe="what is asked and shown")
    chance: float | None = identity(describe="accuracy of guessing")
    metric: str = identity(describe="the score that figures show")
    cells: tuple[str, ...] = identity(describe="labels of the cells, in order")
    datasets: tuple[str, ...] = identity(describe="names of the test sets, in order")
    seeds: tuple[int, ...] = identity(describe="one run for each")
    split: Literal["test", "validation"] = identity("test", describe="the rows that were asked", added_with="test")
    baselines: tuple[ShownBaseline, ...] = identity((), describe="shown beside the cells", added_with=())
    one_base: bool = identity(False, describe="all runs start from one base model", added_with=False)
    compared: tuple[tuple[ComparedCell, ...], ...] = identity((), describe="of plot_environments", added_with=())
    lines: tuple[Line, ...] = identity((), describe="of plot_rows", added_with=())
    figure: str = identity("", describe="of plot_own: its name", added_with="")
    script: str = identity("", describe="of plot_own: where it lies", added_with="")
    sha256: str = identity("", describe="of plot_own: digest of the script", added_with="")
