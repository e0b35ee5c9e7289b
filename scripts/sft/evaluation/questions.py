"""The rows that models are asked, prepared once and put to every model; what came of it, one row per answer."""

from typing import Any

from sft.config.nodes import QuestionSettings
from sft.data.read.tables import read_rows
from sft.data.tokens.control_tokens import ControlTokens, control_tokens_of
from sft.evaluation.asked_rows import AskedRows, require_one_kind
from sft.evaluation.targets import Targets
from sft.models.loading import tokenizer_of
from sft.runtime.canonical import digest
from sft.runtime.stage import Stage, StageError

COLUMNS = ["id", "system", "prompt", "completion", "choices", "answer", "images", "messages", "tools"]
NOT_ANSWERED = {
    **{"raw_text": "", "parsed": "", "said": "", "called": "[]", "reasoned": "", "is_target": False},
    **{"choice_log_likelihoods": [], "prompt_tokens": 0, "error": None},
}
NO_TARGET: dict[str, float | None] = {"target_tokens": None, "target_right": None, "target_log_likelihood": None}


class Questions:
    """The test (or validation) rows of an evaluation's data sets, prepared once and put to every model."""

    def __init__(self, stage: Stage, settings: QuestionSettings, processor: Any):
        self.max_new_tokens = settings.max_new_tokens
        self.names = settings.datasets
        splits = stage.inputs("test-")
        if len(splits) != len(self.names):
            raise StageError(f"{stage.directory}: {len(splits)} splits for {len(self.names)} data sets")
        # The rows as published, by data set and id; text without roles is not asked.
        self.rows: dict[str, dict[str, dict[str, Any]]] = {}
        self.asked: dict[str, AskedRows] = {}
        self.targets: dict[str, Targets] = {}
        for index, name in enumerate(self.names):
            path = splits[f"test-{index}"] / f"{settings.split}.parquet"
            rows = read_rows(path, COLUMNS)
            if not rows:
                raise StageError(f"{path}: no rows to evaluate on")
            if len({row["id"] for row in rows}) != len(rows):
                raise StageError(f"{path}: two rows have one id. Prepare the data set again")
            self.rows[name] = {row["id"]: row for row in rows}
            texts = require_one_kind(rows, str(path))
            if settings.control_tokens == "neutralise":
                control = ControlTokens(control_tokens_of(tokenizer_of(processor)))
                rows = [control.neutralised(row) for row in rows]
            expected = Targets(rows, processor, settings.batch_size)
            if not any(row["choices"] for row in rows):
                self.targets[name] = expected
            if not texts:
                self.asked[name] = AskedRows(rows, processor, settings.batch_size, str(path), expected)

    @property
    def ends(self) -> list[int]:
        """The tokens that end an answer."""
        return sorted({end for asked in self.asked.values() for end in asked.ends})

    def read(self) -> dict[str, int]:
        """How many answers only reasoned, and of how many tool calls could not be read."""
        asked = self.asked.values()
        return {
            "answers_that_only_reason": sum(one.unfinished for one in asked),
            "answers_with_unreadable_calls": sum(one.unread for one in asked),
            "rows_compared_as_written": sum(
                bool(answer.calls) and id not in one.read_calls for one in asked for id, answer in one.gold.items()
            ),
        }

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
        asked = self.asked.get(name)
        if asked is not None:
            answered, unended = asked.answers(model, device, self.max_new_tokens)
            errors = asked.batches.errors
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
            gold = {"gold_text": row["completion"]} | (asked.expects(id) if asked is not None else {})
            rows.append({"id": id, "answer": row["answer"], **gold, **made, **target})
        return rows, unended

    def likelihood_of(self) -> dict[str, str]:
        """By data set, what the log-likelihoods of the choices are of."""
        return {name: asked.likelihood_of() for name, asked in self.asked.items()}

    def digests(self) -> dict[str, str]:
        """By data set, the digest of all that is asked."""
        return {name: self._digest(name) for name in self.names}

    def _digest(self, name: str) -> str:
        if name in self.asked:
            return self.asked[name].digest()
        return digest({id: row["completion"] for id, row in sorted(self.rows[name].items())})

    def prompts(self, count: int) -> dict[str, Any]:
        """What is asked of each data set: `count` rendered prompts and the digest of all of them."""
        made = {}
        for name in self.names:
            prompts = self.asked[name].batches.shown(count) if name in self.asked else []
            if other := [prompt["id"] for prompt in prompts if not prompt["begins_the_training_row"]]:
                raise StageError(
                    f"{name}: training sees other tokens before the answer than evaluation asks with (ids "
                    f"{', '.join(other)}). Give a chat template whose prompt is the beginning of the whole"
                )
            made[name] = {"digest": self._digest(name), "rows": len(self.rows[name]), "prompts": prompts}
        return made
