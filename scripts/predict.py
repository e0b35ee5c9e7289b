"""Answers of a run's models, and of its base model (step 0), to every row of its test splits.

Reads a finished conversion (step-<N>/), the base model, the processor and the test splits; writes
predictions.parquet, one row per step, data set and example id: the generated text (greedy), the letter it names,
the log-likelihood of each choice's letter, or why the row could not be asked. prompts.json shows what was asked.

    python scripts/predict.py results/runs/digits-lora-1a2b3c4d/evaluations/digits-5e6f7a8b --device cpu
"""

import argparse
import json
from typing import Any

from sft import manifest
from sft.data.multiple_choice import LETTERS, answers_by_text
from sft.evaluation.answers import named_choice, named_letter
from sft.models.model_directory import converted_steps, model_directory
from sft.stage import Stage, StageError, run_stage

COLUMNS = ["id", "system", "prompt", "completion", "choices", "answer", "images"]


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto: cuda where it is")


def make(stage: Stage) -> None:
    from sft.models import torch_setup

    # True: leave PEFT alone, which is imported to be made cheaper and is not needed here.
    torch_setup.prepare(stage.options.threads, needs_bitsandbytes=True)
    import pyarrow as pa

    from sft.data.tables import write_rows
    from sft.models.loading import load_model, load_processor

    config, converted = stage.config, stage.input("converted")
    device = torch_setup.chosen_device(stage.options.device)
    steps = converted_steps(converted)
    if not steps:
        raise StageError(f"{converted}: no step-<N>/ in it. Convert the run's checkpoints again")
    if config["steps"] == "last":
        steps = {max(steps): steps[max(steps)]}
    models = {0: model_directory(stage.input("model"), config.get("model_step"))} | steps
    dtype = manifest.read(converted)["config"]["dtype"]
    processor = load_processor(stage.input("processor") / "processor")
    tests = _Tests(stage, processor)

    rows: list[dict[str, Any]] = []
    unended: dict[str, int] = {}
    for step, directory in models.items():
        model = load_model(directory, dtype, device)
        for dataset in tests.names:
            made, unended[f"step {step}, {dataset}"] = tests.ask(model, dataset, device)
            rows += [{"step": step, "dataset": dataset, **row} for row in made]
            failed = sum(row["error"] is not None for row in made)
            right = sum(row["parsed"] == row["answer"] != "" for row in made)
            stage.say(f"step {step}, {dataset}: {len(made)} rows, {failed} failed, {right} name the right letter")
    write_rows(rows, _schema(pa), stage.output("predictions.parquet"))
    stage.output("prompts.json").write_text(json.dumps(tests.shown(config["prompts_stored"]), indent=1) + "\n")
    failed = sum(row["error"] is not None for row in rows)
    stage.record(
        steps=list(models),
        rows=len(rows),
        failed=failed,
        dtype=dtype,
        decoding="greedy",
        likelihood_of=tests.likelihood_of(),
        end_of_turn_ids=tests.ends,
        answers_cut_at_max_new_tokens=unended,
        **torch_setup.device_facts(device),
    )
    asked = f"{len(models)} models on {len(tests.names)} data sets"
    stage.summary(f"{len(rows)} answers of {asked}" + (f"; {failed} rows failed" if failed else ""))


class _Tests:
    """The test splits of an evaluation, prepared once and put to every model."""

    def __init__(self, stage: Stage, processor: Any):
        from sft.data.tables import read_rows
        from sft.evaluation.generation import end_of_turn_ids
        from sft.evaluation.likelihood import choice_ids, letter_ids
        from sft.evaluation.prompt_batches import PromptBatches

        self.max_new_tokens: int = stage.config["max_new_tokens"]
        self.names: list[str] = stage.config["datasets"]
        splits = stage.inputs("test-")
        if len(splits) != len(self.names):
            raise StageError(f"{stage.directory}: {len(splits)} test splits for {len(self.names)} data sets")
        self.batches, self.letters = {}, {}
        self.by_text: dict[str, bool] = {}
        self.ends: list[int] = []
        for index, name in enumerate(self.names):
            path = splits[f"test-{index}"] / "test.parquet"
            rows = read_rows(path, COLUMNS)
            if not rows:
                raise StageError(f"{path}: no rows to evaluate on")
            if len({row["id"] for row in rows}) != len(rows):
                raise StageError(f"{path}: two rows have one id. Prepare the data set again")
            self.batches[name] = batches = PromptBatches(rows, processor, stage.config["batch_size"])
            first = min(rows, key=lambda row: row["id"])
            self.ends = sorted({*self.ends, *end_of_turn_ids(processor, first)})
            by_text = {answers_by_text(row["completion"], row["answer"], row["choices"]) for row in rows}
            if len(by_text) > 1:
                raise StageError(f"{path}: some answers are letters and some are texts. Make them two data sets")
            self.by_text[name] = by_text.pop()
            used = LETTERS[: max(len(row["choices"]) for row in rows)]
            try:
                if self.by_text[name]:
                    self.letters[name] = choice_ids(batches.tokenizer, batches.texts[first["id"]], _texts(rows, path))
                else:
                    self.letters[name] = letter_ids(batches.tokenizer, batches.texts[first["id"]], used)
            except ValueError as error:
                raise StageError(f"{path}: {error}. End the template's generation prompt with a newline") from None

    def ask(self, model: Any, name: str, device: str) -> tuple[list[dict[str, Any]], int]:
        """One row per example, by id, and how many answers did not end within max_new_tokens."""
        from sft.evaluation import likelihood
        from sft.evaluation.generation import generate, set_greedy

        batches, letters = self.batches[name], self.letters[name]
        set_greedy(model, batches.tokenizer, self.ends, self.max_new_tokens)
        answered: dict[str, dict[str, Any]] = {}
        unended = 0
        for batch in batches:
            inputs = {key: value.to(device) for key, value in batch.inputs.items()}
            made = generate(model, batches.tokenizer, inputs)
            unended += made.ended.count(False)
            if not letters:
                values = [[] for _ in batch.ids]
            elif all(len(letter) == 1 for letter in letters):
                values = likelihood.from_first_step(made.first_logits, letters).tolist()
            else:
                values = likelihood.from_forward(model, inputs, letters).tolist()
            for id, text, of_row, tokens in zip(batch.ids, made.texts, values, batch.prompt_tokens, strict=True):
                choices = batches.rows[id]["choices"]
                answered[id] = {
                    "raw_text": text,
                    "parsed": (named_choice if self.by_text[name] else named_letter)(text, choices),
                    "choice_log_likelihoods": of_row[: len(choices)],
                    "prompt_tokens": tokens,
                    "error": None,
                }
        rows = []
        for id, row in sorted(batches.rows.items()):
            failed = {"raw_text": "", "parsed": "", "choice_log_likelihoods": [], "prompt_tokens": 0}
            made = answered[id] if id in answered else failed | {"error": batches.errors[id]}
            rows.append({"id": id, "answer": row["answer"], "gold_text": row["completion"], **made})
        return rows, unended

    def likelihood_of(self) -> dict[str, str]:
        """By data set, what the log-likelihoods of the choices are of: they mean nothing without it."""
        found = {}
        for name, ids in self.letters.items():
            texts = "first token of the choice" if all(len(one) == 1 for one in ids) else "choice"
            found[name] = "nothing" if not ids else texts if self.by_text[name] else "letter"
        return found

    def shown(self, count: int) -> dict[str, Any]:
        """What is asked of each data set: `count` rendered prompts and the digest of all of them."""
        made = {}
        for name, batches in self.batches.items():
            prompts = batches.shown(count)
            if other := [prompt["id"] for prompt in prompts if not prompt["begins_the_training_row"]]:
                raise StageError(
                    f"{name}: training sees other tokens before the answer than evaluation asks with (ids "
                    f"{', '.join(other)}). Give a chat template whose prompt is the beginning of the whole"
                )
            made[name] = {"digest": batches.prompts_digest(), "rows": len(batches.rows), "prompts": prompts}
        return made


def _texts(rows: list[dict[str, Any]], path: Any) -> list[str]:
    """The choices of all rows, which have to be the same; StageError names a row that has others."""
    texts = rows[0]["choices"]
    if other := [row["id"] for row in rows if row["choices"] != texts]:
        raise StageError(f"{path}: answers are texts of choices, and row {other[0]} has other choices than the first")
    return texts


def _schema(pa: Any) -> Any:
    return pa.schema(
        {
            "step": pa.int64(),
            "dataset": pa.string(),
            "id": pa.string(),
            "answer": pa.string(),
            "gold_text": pa.string(),
            "raw_text": pa.string(),
            "parsed": pa.string(),
            "choice_log_likelihoods": pa.list_(pa.float64()),
            "prompt_tokens": pa.int64(),
            "error": pa.string(),
        }
    )


if __name__ == "__main__":
    run_stage(make, __doc__, add_options)
