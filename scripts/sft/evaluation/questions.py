"""The rows that models are asked, prepared once and put to every model; what came of it, one row per answer."""

from pathlib import Path
from typing import Any

from sft.config.nodes import QuestionSettings
from sft.data.read.multiple_choice import LETTERS, answers_by_text
from sft.data.read.tables import read_rows
from sft.data.read.turns import is_text
from sft.data.tokens.control_tokens import ControlTokens, control_tokens_of
from sft.evaluation import likelihood
from sft.evaluation.answers import named_choice, named_letter
from sft.evaluation.generation import end_of_turn_ids, generate, set_greedy
from sft.evaluation.likelihood import choice_ids, letter_ids
from sft.evaluation.prompt_batches import PromptBatches
from sft.evaluation.targets import Targets
from sft.models.loading import tokenizer_of
from sft.runtime.canonical import digest
from sft.runtime.stage import Stage, StageError

COLUMNS = ["id", "system", "prompt", "completion", "choices", "answer", "images", "messages", "tools"]
NOT_ANSWERED = {"raw_text": "", "parsed": "", "choice_log_likelihoods": [], "prompt_tokens": 0, "error": None}
NO_TARGET: dict[str, float | None] = {"target_tokens": None, "target_right": None, "target_log_likelihood": None}


class Questions:
    """The test (or validation) rows of an evaluation's data sets, prepared once and put to every model."""

    def __init__(self, stage: Stage, settings: QuestionSettings, processor: Any):
        self.max_new_tokens = settings.max_new_tokens
        self.names = settings.datasets
        splits = stage.inputs("test-")
        if len(splits) != len(self.names):
            raise StageError(f"{stage.directory}: {len(splits)} splits for {len(self.names)} data sets")
        # The rows as published, by data set and id; text without roles is not asked and has no batches.
        self.rows: dict[str, dict[str, dict[str, Any]]] = {}
        self.batches: dict[str, PromptBatches] = {}
        self.targets: dict[str, Targets] = {}
        self.letters: dict[str, list[list[int]]] = {}
        self.by_text: dict[str, bool] = {}
        self.ends: list[int] = []
        for index, name in enumerate(self.names):
            path = splits[f"test-{index}"] / f"{settings.split}.parquet"
            rows = read_rows(path, COLUMNS)
            if not rows:
                raise StageError(f"{path}: no rows to evaluate on")
            if len({row["id"] for row in rows}) != len(rows):
                raise StageError(f"{path}: two rows have one id. Prepare the data set again")
            self.rows[name] = {row["id"]: row for row in rows}
            texts = sum(is_text(row) for row in rows)
            if texts not in (0, len(rows)):
                raise StageError(f"{path}: {texts} of {len(rows)} rows are text without roles. Make them two data sets")
            if settings.control_tokens == "neutralise":
                control = ControlTokens(control_tokens_of(tokenizer_of(processor)))
                rows = [control.neutralised(row) for row in rows]
            if not any(row["choices"] for row in rows):
                self.targets[name] = Targets(rows, processor, settings.batch_size)
            if texts:
                continue
            self.batches[name] = batches = PromptBatches(rows, processor, settings.batch_size)
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

    def answers(self, model: Any, step: int, stage: Stage, device: str) -> tuple[list[dict[str, Any]], dict[str, int]]:
        """All rows of `model` after `step` steps, and by data set how many answers did not end in time."""
        rows, unended = [], {}
        for name in self.names:
            made, unended[f"step {step}, {name}"] = self.ask(model, name, device)
            rows += [{"step": step, "dataset": name, **row} for row in made]
            failed = sum(row["error"] is not None for row in made)
            right = sum(row["parsed"] == row["answer"] != "" for row in made)
            found = f"{right} name the right letter"
            if name in self.targets:
                likely = sum(row["target_right"] for row in made)
                found = f"{likely} of {sum(row['target_tokens'] for row in made)} target tokens are the likeliest"
            stage.say(f"step {step}, {name}: {len(made)} rows, {failed} failed, {found}")
        return rows, unended

    def ask(self, model: Any, name: str, device: str) -> tuple[list[dict[str, Any]], int]:
        """One row per example, by id, and how many answers did not end within max_new_tokens."""
        answered: dict[str, dict[str, Any]] = {}
        errors: dict[str, str] = {}
        unended = 0
        if name in self.batches:
            answered, unended = self._answered(model, name, device)
            errors = self.batches[name].errors
        scored = self.targets[name].score(model, device, without=set(errors)) if name in self.targets else {}
        rows = []
        for id, row in sorted(self.rows[name].items()):
            made = NOT_ANSWERED | answered.get(id, {"error": errors.get(id)})
            target = NO_TARGET
            if id in scored:
                found = scored[id]
                target = {
                    "target_tokens": found.tokens,
                    "target_right": found.right,
                    "target_log_likelihood": found.log_likelihood,
                }
            elif name in self.targets:
                target = NO_TARGET | {"target_tokens": self.targets[name].tokens(id), "target_right": 0}
            rows.append({"id": id, "answer": row["answer"], "gold_text": row["completion"], **made, **target})
        return rows, unended

    def _answered(self, model: Any, name: str, device: str) -> tuple[dict[str, dict[str, Any]], int]:
        """What was answered, by id, without the rows that could not be asked; how many answers did not end in time."""
        batches, letters = self.batches[name], self.letters[name]
        set_greedy(model, batches.tokenizer, self.ends, self.max_new_tokens)
        answered: dict[str, dict[str, Any]] = {}
        unended = 0
        for batch in batches:
            inputs = {key: value.to(device) for key, value in batch.inputs.items()}
            made = generate(model, batches.tokenizer, inputs)
            unended += made.ended.count(False)
            values: list[list[float]]
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
        return answered, unended

    def likelihood_of(self) -> dict[str, str]:
        """By data set, what the log-likelihoods of the choices are of: they mean nothing without it."""
        found = {}
        for name, ids in self.letters.items():
            texts = "first token of the choice" if all(len(one) == 1 for one in ids) else "choice"
            found[name] = "nothing" if not ids else texts if self.by_text[name] else "letter"
        return found

    def digests(self) -> dict[str, str]:
        """By data set, the digest of all that is asked."""
        return {name: self._digest(name) for name in self.names}

    def _digest(self, name: str) -> str:
        if name in self.batches:
            return self.batches[name].prompts_digest()
        return digest({id: row["completion"] for id, row in sorted(self.rows[name].items())})

    def prompts(self, count: int) -> dict[str, Any]:
        """What is asked of each data set: `count` rendered prompts and the digest of all of them."""
        made = {}
        for name in self.names:
            prompts = self.batches[name].shown(count) if name in self.batches else []
            if other := [prompt["id"] for prompt in prompts if not prompt["begins_the_training_row"]]:
                raise StageError(
                    f"{name}: training sees other tokens before the answer than evaluation asks with (ids "
                    f"{', '.join(other)}). Give a chat template whose prompt is the beginning of the whole"
                )
            made[name] = {"digest": self._digest(name), "rows": len(self.rows[name]), "prompts": prompts}
        return made


def _texts(rows: list[dict[str, Any]], path: Path) -> list[str]:
    """The choices of all rows, which have to be the same; StageError names a row that has others."""
    texts = rows[0]["choices"]
    if other := [row["id"] for row in rows if row["choices"] != texts]:
        raise StageError(f"{path}: answers are texts of choices, and row {other[0]} has other choices than the first")
    return texts
