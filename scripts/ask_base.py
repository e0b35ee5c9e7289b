"""Answers of a published model, as it is, to every row of test splits: once for all runs that start from it.

Reads the model, its processor and the test splits; writes predictions.parquet with step 0 alone, of which `predict`
takes a copy for each run.

    python scripts/ask_base.py results/base_answers/smollm2-wordnet-1a2b3c4d --device cpu
"""

import argparse

from sft.config.nodes import AskBaseSettings
from sft.models.model_directory import model_directory
from sft.runtime.stage import Stage, run_stage


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

    settings = stage.settings(AskBaseSettings)
    device = torch_setup.chosen_device(stage.options.device)
    questions = Questions(stage, settings, load_processor(stage.input("processor") / "processor"))
    directory = model_directory(stage.input("model"), settings.model_step)
    rows, unended = questions.answers(load_model(directory, settings.dtype, device), 0, stage, device)
    write_rows(rows, SCHEMA, stage.output("predictions.parquet"))
    failed = sum(row["error"] is not None for row in rows)
    stage.record(
        rows=len(rows),
        failed=failed,
        dtype=settings.dtype,
        prompts=questions.digests(),
        answers_cut_at_max_new_tokens=unended,
        **torch_setup.device_facts(device),
    )
    told = f"; {failed} rows failed" if failed else ""
    stage.summary(f"{len(rows)} answers on {len(questions.names)} data sets{told}")


if __name__ == "__main__":
    run_stage(make, __doc__, add_options)
