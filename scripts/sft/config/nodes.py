"""What the config.json of a rule's result holds: `stage.settings(TrainSettings)` in its script.

Only values are carried here: those of `config` in that file, and for what was left out the value that it was left out
at. Nothing is computed, so that no digest of code has these modules (tests/unit/config/test_read_back.py).
"""

from typing import Literal

from sft.config.baseline import Baseline
from sft.config.dataset import Reading
from sft.config.evaluation_settings import Asked
from sft.config.fields import Integer, Section, execution, identity
from sft.config.training_settings import Lora, Optimization

Method = Literal["full", "lora"]
Type = Literal["float32", "bfloat16"]


class PrepareSettings(Reading):
    """`prepare_dataset`."""

    columns: dict[str, str | tuple[str, ...] | None] = identity(describe="columns by the keys that name them")
    renamed: dict[str, str] = identity({}, describe="names for columns, {ours: theirs}", added_with={})


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
