"""Time that a job asks for where `execution.runtime_minutes` does not say: from its arithmetic, for a slow machine.

What a device or core does in a second is assumed to be little, and all of it is doubled: a job that ends early frees
its place, while one that is cut short waits in the queue again. Trainings are never asked for more than a day: they
save before their time is over, and go on in another job.

Imports nothing heavy. Before the rows are there, a training of so many steps is taken to have rows as long as they may
be, and for other jobs an hour is asked for, as it is before the model is there. Snakemake asks when a job is to start,
and then they are. benchmarks/job_time.py holds what is asked for against what finished jobs took.
"""

import json
import math
from functools import cache
from pathlib import Path
from typing import NamedTuple

from sft.config.nodes import AskBaseSettings, ConvertSettings, PredictSettings, TrainSettings
from sft.config.training_settings import Tokens
from sft.estimates.run_estimates import shape_of, with_models
from sft.planning.node import Node
from sft.runtime import manifest
from sft.training.training_arguments import kept_steps, total_steps

LEAST_MINUTES = 60
LONGEST_TRAINING_MINUTES = 24 * 60
STEP_MINUTES = 30
# Operations a second: of a device in bfloat16 a third of what the slowest cards of sft.runtime.cost do at their best,
# in float32 (without tensor cores) a fourth of that; of a core a sixth of what one did here (58e9, SmolLM2 in float32).
OF_DEVICE = {"bfloat16": 20e12, "float32": 5e12}
OF_CORE = 10e9
MARGIN = 2
START_SECONDS = 600  # a crowded file system, imports, weights
STEP_SECONDS = 0.2  # besides its arithmetic
TOKEN_SECONDS = 0.05  # of a generated token of a batch, as short as its arithmetic may be
BYTES_PER_SECOND = 200e6
LONGEST_PROMPT = 1024  # tokens of a row whose bytes are more: those of pictures
# A conversion reads and writes the weights this often, and reloads them to compare.
CONVERSION_PASSES = 8


class _Rows(NamedTuple):
    """Rows of a split and the tokens in them."""

    rows: int
    tokens: int


def job_minutes(node: Node) -> int:
    """Minutes for a training, conversion or prediction; what the configuration says is not meant for conversions."""
    asked = node.execution["runtime_minutes"]
    if asked is not None and node.rule != "convert_checkpoint":
        return asked
    seconds = job_seconds(node)
    if seconds is None:
        return LEAST_MINUTES
    minutes = math.ceil((START_SECONDS + MARGIN * seconds) / 60 / STEP_MINUTES) * STEP_MINUTES
    return max(LEAST_MINUTES, min(minutes, LONGEST_TRAINING_MINUTES) if node.rule == "train_model" else minutes)


def job_seconds(node: Node) -> float | None:
    """Seconds that the work of such a job takes on a slow machine; None while its rows or its model are unknown.

    What is made in the same process before it is a part of it.
    """
    shape = shape_of(node)
    of_rule = {"train_model": _training, "convert_checkpoint": _conversion}.get(node.rule, _prediction)
    parts = [of_rule(node, shape.parameters) if shape else None, *map(job_seconds, with_models(node))]
    known = [seconds for seconds in parts if seconds is not None]
    return sum(known) if len(known) == len(parts) else None


def _training(node: Node, parameters: int) -> float | None:
    trained_on, validation = (_tokenised(node.inputs["tokens"], split) for split in ("train", "validation"))
    settings = node.settings(TrainSettings)
    training, full = settings.training, settings.method == "full"
    if trained_on is None and training.max_steps:  # rows as long as they may be
        trained_on = _Rows(1, node.inputs["tokens"].settings(Tokens).max_length)
    if trained_on is None or not trained_on.rows:
        return None
    steps = total_steps(training, trained_on.rows)
    tokens = steps * training.global_batch_size * trained_on.tokens / trained_on.rows
    operations = (6 if full else 4) * parameters * tokens * (4 / 3 if training.activation_checkpointing else 1)
    if training.eval_steps and validation is not None:
        operations += steps // training.eval_steps * 2 * parameters * validation.tokens
    spread = node.execution["distributed"]["processes"]
    saved = len(kept_steps(training, steps)) * 12 * parameters if full else 0
    return operations / (_speed(node) * spread) + steps * STEP_SECONDS + saved / BYTES_PER_SECOND


def _conversion(node: Node, parameters: int) -> float | None:
    run = node.inputs["run"]
    trained_on = _tokenised(run.inputs["tokens"], "train")
    if trained_on is None:
        return None
    training = run.settings(TrainSettings).training
    steps = kept_steps(training, total_steps(training, trained_on.rows))
    return len(steps) * CONVERSION_PASSES * 4 * parameters / BYTES_PER_SECOND


def _prediction(node: Node, parameters: int) -> float | None:
    settings = _questions(node)
    asked = _asked(node, settings.split)
    if asked is None:
        return None
    models = int("base" not in node.inputs)  # which is asked as well, or was already
    tokens: float = asked.tokens
    if "converted" in node.inputs:
        run = node.inputs["converted"].inputs["run"]
        trained_on = _tokenised(run.inputs["tokens"], "train")
        if trained_on is None:
            return None
        training = run.settings(TrainSettings).training
        steps = kept_steps(training, total_steps(training, trained_on.rows))
        models += len(steps) if isinstance(settings, PredictSettings) and settings.steps == "all" else 1
        tokens = min(tokens, asked.rows * trained_on.tokens / max(trained_on.rows, 1))  # a pack is longer than a row
    new, batches = settings.max_new_tokens, math.ceil(asked.rows / settings.batch_size)
    operations = 2 * parameters * (2 * tokens + asked.rows * new)  # once to generate, once for the choices
    return models * (operations / _speed(node) + batches * new * TOKEN_SECONDS)


def _questions(node: Node) -> PredictSettings | AskBaseSettings:
    return node.settings(PredictSettings) if node.rule == "predict" else node.settings(AskBaseSettings)


def _speed(node: Node) -> float:
    if node.execution["device"] != "cuda":
        return OF_CORE * node.execution["threads"]
    if node.rule == "train_model":
        return OF_DEVICE[node.settings(TrainSettings).precision]
    if "converted" in node.inputs:
        return OF_DEVICE[node.inputs["converted"].settings(ConvertSettings).dtype]
    return OF_DEVICE[node.settings(AskBaseSettings).dtype]


def _asked(node: Node, split: str) -> _Rows | None:
    """What a prediction asks, a token for each byte of the compressed rows; None before the data are divided."""
    rows, tokens = 0, 0
    for above in node.inputs.values():
        if above.rule == "split_dataset":
            made = manifest.read(above.directory)
            if made is None:
                return None
            rows += made["facts"]["rows"][split]
            tokens += made["outputs"][f"{split}.parquet"]["bytes"]
    return _Rows(rows, min(tokens, LONGEST_PROMPT * rows))


def _tokenised(tokens: Node, split: str) -> _Rows | None:
    """Of a split, in packs where it is packed; None before it was tokenised, and of a damaged file."""
    path = Path(tokens.directory, "labels.json")
    try:
        return _counted(path, path.stat().st_mtime_ns).get(split, _Rows(0, 0))
    except (FileNotFoundError, ValueError, LookupError, TypeError, AttributeError):
        return None


@cache
def _counted(path: Path, _changed: int) -> dict[str, _Rows]:
    """Rows and tokens of each split. Kept, since a thousand runs ask several times each."""
    labels = json.loads(path.read_text())
    counted = {split: _Rows(made["rows_kept"], made["tokens"]) for split, made in labels["splits"].items()}
    if packed := labels.get("packed"):
        counted["train"] = counted["train"]._replace(rows=packed["packs"])
    return counted
