"""What a row of each format says: from a published row to the prompt, the answer and the turns of a canonical example.

multiple_choice      a question, choices and the right one
prompt_completion    a question and its answer; each a column, or a template of several
language_modelling   text without roles
conversation         turns with roles: a column of them, or TRL's columns prompt and completion, both lists of turns
sharegpt             the same under ShareGPT's names: conversations of {from: human or gpt, value}
alpaca               instruction, input (may be empty) and output
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

from sft.config.nodes import PrepareSettings
from sft.data.read import conversations, multiple_choice
from sft.data.read.cells import Row
from sft.data.read.turns import content_text
from sft.runtime.stage import StageError

# Columns that each format reads besides the data set's ids, groups, pictures and what templates name.
KEYS = {
    "multiple_choice": ("prompt_key", "choice_key", "answer_key", "label_key"),
    "prompt_completion": ("prompt_key", "completion_key"),
    "language_modelling": ("text_key",),
    "conversation": ("messages_key", "prompt_key", "completion_key", "tools_key"),
    "sharegpt": ("messages_key", "tools_key"),
    "alpaca": (),
}
ALPACA = ("instruction", "input", "output")
SHAREGPT = {"messages_key": "conversations", "role_field": "from", "content_field": "value"}

Fields = dict[str, Any]


class Format:
    """Reads rows of one data set's format. ValueError for a template that is none."""

    def __init__(self, settings: PrepareSettings):
        # Imported here: the configuration reads this module's tables and is to be checked in a second.
        from sft.terms.row_templates import RowTemplate

        self.settings = settings
        self.name = settings.format
        templates = {
            "prompt": settings.prompt_template,
            "completion": settings.completion_template,
            "text": settings.text_template,
        }
        self.templates = {name: RowTemplate(text) for name, text in templates.items() if text is not None}
        read: dict[str, Callable[[Row, int], Fields]] = {
            "multiple_choice": self._multiple_choice,
            "prompt_completion": self._prompt_completion,
            "language_modelling": self._text,
            "conversation": self._conversation,
            "sharegpt": self._conversation,
            "alpaca": self._alpaca,
        }
        self._read = read[self.name]
        self.answers_given: dict[str, Any] = {}

    def columns(self) -> list[str]:
        """The names, ours where they are renamed, of all columns that the format and its templates read."""
        columns: Mapping[str, Any] = self.settings.columns
        if self.name == "sharegpt":
            columns = SHAREGPT | {name: column for name, column in columns.items() if column}
        replaced = {f"{name}_key" for name in self.templates}
        named = [columns[key] for key in KEYS[self.name] if columns.get(key) and key not in replaced]
        if self.name == "alpaca":
            named += ALPACA
        return [*named, *(column for template in self.templates.values() for column in template.columns)]

    def read(self, row: Row, pictures: int) -> Fields:
        """prompt, completion, choices, answer, messages and tools of a row with so many pictures; ValueError."""
        nothing: Fields = {"choices": [], "answer": "", "messages": None, "tools": None}
        return nothing | self._read(row, pictures)

    def _multiple_choice(self, row: Row, pictures: int) -> Fields:
        question = self._of("prompt", row)
        choices = multiple_choice.parse_choices(row.required("choice_key"))
        given = row.required("answer_key")
        if (labels := row.optional("label_key")) is not None:
            answer = multiple_choice.labelled_answer(given, labels, choices)
        else:
            answer = multiple_choice.parse_answer(given, choices)
            self._require_one_kind(multiple_choice.answer_kind(given, choices), given)
        return {
            "prompt": multiple_choice.render_question(question, choices, self.settings.choices_layout),
            "completion": multiple_choice.render_target(answer, choices, self.settings.target),
            "choices": choices,
            "answer": answer,
        }

    def _require_one_kind(self, kind: str, given: Any) -> None:
        """StageError where some answers are letters and some are numbers: where these count from is not said."""
        self.answers_given.setdefault(kind, given)
        if {"a letter", "an index"} <= self.answers_given.keys():
            letter, index = self.answers_given["a letter"], self.answers_given["an index"]
            raise StageError(
                f"answer_key: some answers are letters ({letter!r}) and some are numbers ({index!r}), so it is not "
                f"certain whether these count from 0 or from 1, or are labels of the row's own. Name the "
                f"column of these with label_key, or give all answers as letters or as the texts of the choices"
            )

    def _prompt_completion(self, row: Row, pictures: int) -> Fields:
        return {"prompt": self._of("prompt", row), "completion": self._of("completion", row)}

    def _text(self, row: Row, pictures: int) -> Fields:
        if pictures:
            raise ValueError("text without roles has no place for pictures. Use prompt_completion or conversation")
        return {"prompt": None, "completion": self._of("text", row)}

    def _alpaca(self, row: Row, pictures: int) -> Fields:
        named = Row(row.cells, {f"{name}_key": name for name in ALPACA}, {})
        if "prompt" in self.templates:
            prompt = self._of("prompt", row)
        else:
            prompt = named.text("instruction_key")
            given = named.optional("input_key")
            if isinstance(given, str) and given.strip():
                prompt = f"{prompt}\n\n{given}"
        completion = self._of("completion", row) if "completion" in self.templates else named.text("output_key")
        return {"prompt": prompt, "completion": completion}

    def _conversation(self, row: Row, pictures: int) -> Fields:
        sharegpt = self.name == "sharegpt"
        named = Row(row.cells, (SHAREGPT if sharegpt else {}) | _given(row.columns), {})
        padded = row.padded
        how = (
            padded,
            (conversations.SHAREGPT_ROLES if sharegpt else {}) | self.settings.roles,
            self.settings.role_field or (SHAREGPT["role_field"] if sharegpt else "role"),
            self.settings.content_field or (SHAREGPT["content_field"] if sharegpt else "content"),
        )
        if named.columns.get("messages_key"):
            turns = conversations.read_turns(named.required("messages_key"), *how)
        else:
            turns = conversations.read_turns(named.required("prompt_key"), *how)
            turns += conversations.read_turns(named.required("completion_key"), *how)
        tools = conversations.read_tools(named.optional("tools_key"), padded)
        if system := self.settings.system:
            if turns[0]["role"] == "system":
                raise ValueError("the conversation has a system turn, and the data set sets system. Remove one")
            turns = [{"role": "system", "content": system}, *turns]
        conversations.check(turns, tools, pictures)
        turns = conversations.place_pictures(turns, pictures)
        return {
            "prompt": content_text(turns[-2]),
            "completion": content_text(turns[-1]),
            "messages": json.dumps(turns, ensure_ascii=False),
            "tools": json.dumps(tools, ensure_ascii=False) if tools else None,
        }

    def _of(self, name: str, row: Row) -> str:
        """What a template makes of the row, or the text of its column."""
        if name not in self.templates:
            return row.text(f"{name}_key")
        made = self.templates[name].render(row.cells)
        if not made.strip():
            raise ValueError(f"{name}_template makes no text of it")
        return made


def is_conversation(name: str) -> bool:
    """Whether rows of a format bring their own system turn."""
    return name in ("conversation", "sharegpt")


def _given(columns: Mapping[str, Any]) -> dict[str, Any]:
    return {key: column for key, column in columns.items() if column}
