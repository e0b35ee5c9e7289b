"""The rows of one split, prepared once: what is asked, what is expected, and how an answer to it is read."""

from collections.abc import Mapping, Sequence
from typing import Any

from sft.data.read.multiple_choice import LETTERS, answers_by_text
from sft.data.read.turns import is_text, tools
from sft.data.tokens.answer_format import Answer, AnswerFormat
from sft.evaluation import likelihood
from sft.evaluation.answers import named_choice, named_letter
from sft.evaluation.generation import generate, set_greedy
from sft.evaluation.likelihood import choice_ids, letter_ids
from sft.evaluation.prompt_batches import PromptBatches
from sft.evaluation.targets import Targets
from sft.runtime.canonical import canonical, digest
from sft.runtime.stage import StageError

Row = Mapping[str, Any]


class AskedRows:
    """Rows that are asked for an answer. `size`: rows of a batch; `where`: what they are called in an error.

    StageError for rows that cannot be asked or scored together, and where an answer as the template writes it is not
    read back as what its row says: a model that has learned it would be called wrong.
    """

    def __init__(self, rows: Sequence[Row], processor: Any, size: int, where: str, expected: Targets):
        self.where = where
        self.expected = expected
        self.batches = PromptBatches(rows, processor, size)
        self.format = AnswerFormat(processor)
        # Rows whose tool calls are read back; those of others are compared as the template writes them.
        self.read_calls: set[str] = set()
        self.gold = {row["id"]: self._expected(row) for row in rows}
        by_text = {answers_by_text(row["completion"], row["answer"], row["choices"]) for row in rows}
        if len(by_text) > 1:
            raise StageError(f"{where}: some answers are letters and some are texts. Make them two data sets")
        self.by_text = by_text.pop()
        eos = self.batches.tokenizer.eos_token_id
        self.ends = sorted(self.expected.end_ids() | (set() if eos is None else {eos}))
        # Choices are scored where the model was trained to write them, which may not be right behind the prompt.
        self.behind_head: PromptBatches | None = None
        self.letters: list[list[int]] = []
        if any(row["choices"] for row in rows):
            try:
                if head := self.expected.head({id: one.content for id, one in self.gold.items()}, self.format.head):
                    self.behind_head = PromptBatches(rows, processor, size, behind=head)
                self.letters = self._letters(rows)
            except ValueError as error:
                raise StageError(f"{where}: {error}. End the template's generation prompt with a newline") from None
        self.unread = self.unfinished = 0

    def _expected(self, row: Row) -> Answer:
        id, said = row["id"], self.format.said(row)
        try:
            answer = self.format.expected(row, self.expected.text(id), self.expected.rendered[id].prompt)
        except ValueError as error:
            if not said.calls:
                raise StageError(
                    f"{self.where}, id {id}: {error}. Give another template with model.chat_template"
                ) from None
            return said
        if answer.calls:
            self.read_calls.add(id)
        return answer

    def _letters(self, rows: Sequence[Row]) -> list[list[int]]:
        """The tokens of the choices' letters, or texts; ValueError where they cannot be told apart."""
        asked = self.behind_head or self.batches
        prompt = asked.texts[min(asked.texts)]
        if not self.by_text:
            return letter_ids(asked.tokenizer, prompt, LETTERS[: max(len(row["choices"]) for row in rows)])
        texts = rows[0]["choices"]
        if other := [row["id"] for row in rows if row["choices"] != texts]:
            raise StageError(
                f"{self.where}: answers are texts of choices, and row {other[0]} has other choices than the first"
            )
        return choice_ids(asked.tokenizer, prompt, texts)

    def answers(self, model: Any, device: str, max_new_tokens: int) -> tuple[dict[str, dict[str, Any]], int]:
        """What was answered, by id, without the rows that could not be asked; how many answers did not end in time."""
        set_greedy(model, self.batches.tokenizer, self.ends, max_new_tokens)
        answered: dict[str, dict[str, Any]] = {}
        unended = 0
        behind = self._likelihoods_behind_head(model, device)
        for batch in self.batches:
            inputs = {key: value.to(device) for key, value in batch.inputs.items()}
            made = generate(model, self.batches.tokenizer, inputs)
            unended += made.ended.count(False)
            values: list[list[float]]
            if not self.letters:
                values = [[] for _ in batch.ids]
            elif self.behind_head is not None:
                values = [behind[id] for id in batch.ids]
            elif all(len(letter) == 1 for letter in self.letters):
                values = likelihood.from_first_step(made.first_logits, self.letters).tolist()
            else:
                values = likelihood.from_forward(model, inputs, self.letters).tolist()
            told = zip(batch.ids, made.texts, made.written, values, batch.prompt_tokens, strict=True)
            for id, text, written, of_row, tokens in told:
                choices = self.batches.rows[id]["choices"]
                answered[id] = {
                    "raw_text": text,
                    **self._said(id, written),
                    "choice_log_likelihoods": of_row[: len(choices)],
                    "prompt_tokens": tokens,
                    "error": None,
                }
        return answered, unended

    def _said(self, id: str, written: str) -> dict[str, Any]:
        """What an answer says; of one whose tool calls cannot be read, its text."""
        row = self.batches.rows[id]
        try:
            said = self.format.read(written, self.batches.texts[id], tools(row), calls=id in self.read_calls)
        except ValueError:
            self.unread += 1
            said = Answer(written.strip())
        self.unfinished += not said.finished
        return {
            "said": said.content,
            "called": canonical(said.calls),
            "reasoned": said.reasoning,
            "is_target": written.strip() == self.expected.text(id).strip(),
            "parsed": (named_choice if self.by_text else named_letter)(said.content, row["choices"]),
        }

    def expects(self, id: str) -> dict[str, Any]:
        """What a row's answer should say and call."""
        return {"gold_said": self.gold[id].content, "gold_called": canonical(self.gold[id].calls)}

    def _likelihoods_behind_head(self, model: Any, device: str) -> dict[str, list[float]]:
        found: dict[str, list[float]] = {}
        for batch in self.behind_head or ():
            inputs = {key: value.to(device) for key, value in batch.inputs.items()}
            found |= dict(zip(batch.ids, likelihood.behind_prompts(model, inputs, self.letters).tolist(), strict=True))
        return found

    def likelihood_of(self) -> str:
        """What the log-likelihoods of the choices are of: they mean nothing without it."""
        if not self.letters:
            return "nothing"
        whole = "first token of the choice" if all(len(one) == 1 for one in self.letters) else "choice"
        return whole if self.by_text else "letter"

    def digest(self) -> str:
        """The digest of all that is asked."""
        asked = self.batches.prompts_digest()
        return asked if self.behind_head is None else digest([asked, self.behind_head.prompts_digest()])


def require_one_kind(rows: Sequence[Row], where: str) -> bool:
    """Whether all rows are text without roles; StageError where some are."""
    texts = sum(is_text(row) for row in rows)
    if texts not in (0, len(rows)):
        raise StageError(f"{where}: {texts} of {len(rows)} rows are text without roles. Make them two data sets")
    return bool(texts)
