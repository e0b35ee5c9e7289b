"""Answers of a run's models, and of its base model (step 0), to every row of its test splits.

Reads a finished conversion (step-<N>/), the base model or the answers that it gave (`ask_base`), the processor and the
test splits; writes predictions.parquet, one row per step, data set and example id: the generated text (greedy), what it
says without what was reasoned, the tools it calls, the letter it names, the log-likelihood of each choice's letter, or
why the row could not be asked. prompts.json shows what was asked.

    python scripts/predict.py results/runs/digits-lora-1a2b3c4d/evaluations/digits-5e6f7a8b --device cpu
"""

import argparse
import json
from pathlib import Path
from typing import Any

from sft.config.nodes import ConvertSettings, PredictSettings
from sft.models.model_directory import converted_steps, model_directory
from sft.runtime import manifest
from sft.runtime.stage import Stage, StageError, run_stage


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto: cuda where it is")


def make(stage: Stage) -> None:
    from sft.models import torch_setup

    # True: leave PEFT alone, which is imported to be made cheaper and is not needed here.
    torch_setup.prepare(stage.options.threads, needs_bitsandbytes=True)
    from sft.data.read.tables import write_rows
    from sft.evaluation.predictions import SCHEMA
    from sft.evaluation.questions import Questions
    from sft.models.loading import load_model, load_processor

    settings, converted = stage.settings(PredictSettings), stage.input("converted")
    device = torch_setup.chosen_device(stage.options.device)
    steps = converted_steps(converted)
    if not steps:
        raise StageError(f"{converted}: no step-<N>/ in it. Convert the run's checkpoints again")
    if settings.steps == "last":
        steps = {max(steps): steps[max(steps)]}
    dtype = stage.settings(ConvertSettings, of="converted").dtype
    questions = Questions(stage, settings, load_processor(stage.input("processor") / "processor"))

    rows: list[dict[str, Any]] = []
    unended: dict[str, int] = {}
    if "base" in stage.inputs():
        rows, unended = _answers_of_base(stage, stage.input("base"), questions.digests())
        models = steps
    else:
        models = {0: model_directory(stage.input("model"), settings.model_step)} | steps
    for step, directory in models.items():
        answers, cut = questions.answers(load_model(directory, dtype, device), step, stage, device)
        rows += answers
        unended |= cut
    write_rows(rows, SCHEMA, stage.output("predictions.parquet"))
    stage.output("prompts.json").write_text(json.dumps(questions.prompts(settings.prompts_stored), indent=1) + "\n")
    failed = sum(row["error"] is not None for row in rows)
    stage.record(
        steps=[0, *steps],
        rows=len(rows),
        failed=failed,
        dtype=dtype,
        decoding="greedy",
        likelihood_of=questions.likelihood_of(),
        end_of_turn_ids=questions.ends,
        answers_cut_at_max_new_tokens=unended,
        **questions.read(),
        **torch_setup.device_facts(device),
    )
    asked = f"{len(steps) + 1} models on {len(questions.names)} data sets"
    stage.summary(f"{len(rows)} answers of {asked}" + (f"; {failed} rows failed" if failed else ""))


def _answers_of_base(stage: Stage, base: Path, asked: dict[str, str]) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """The rows that `ask_base` made, and how many of its answers did not end in time."""
    from sft.data.read.tables import read_rows
    from sft.evaluation.predictions import SCHEMA

    facts = (manifest.read(base) or {"facts": {}})["facts"]
    if facts.get("prompts") != asked:
        raise StageError(
            f"{base}: the base model was asked other prompts than this run's models would be. "
            f"Delete {base / manifest.NAME} to have it asked again"
        )
    stage.say(f"step 0: the answers of {base.name}")
    return read_rows(base / "predictions.parquet", SCHEMA.names), facts["answers_cut_at_max_new_tokens"]


if __name__ == "__main__":
    run_stage(make, __doc__, add_options)
