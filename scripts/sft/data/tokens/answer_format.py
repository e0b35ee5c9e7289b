"""How a chat template writes an answer, and how a generated one is read back: the one place that knows.

What stands around an answer is taken from the template itself, by rendering marks: what is written between the
generation prompt and the answer (an empty <think></think> by Qwen3's), and what opens and closes reasoning. Tool calls
are read by the library's response parsing (`parse_response`), for templates that carry it or that TRL knows.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from sft.data.read import turns
from sft.data.tokens.masking import closing_ids
from sft.terms import chat_templates

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, ProcessorMixin

    from sft.data.tokens.masking import MaskedTokens

# Marks that no template holds and none changes.
ASKED, SAID, REASONED = "q0123456789abcdef", "a0123456789abcdef", "r0123456789abcdef"
THOUGHT = ("<think>", "</think>")


@dataclass(frozen=True)
class Answer:
    """What an answer says. `calls`: {"name", "arguments"} of each tool call; `finished`: its reasoning has an end."""

    content: str
    reasoning: str = ""
    calls: tuple[dict[str, Any], ...] = ()
    finished: bool = True

    def says_the_same(self, other: Answer) -> bool:
        """Whether content and calls are the same; how either was reasoned does not count."""
        return self.finished and (self.content, self.calls) == (other.content, other.calls)


class AnswerFormat:
    """Of a processor: how its chat template writes answers.

    `head`: what stands between the generation prompt and an answer without reasoning. `opening`, `closing`: what stands
    before and behind reasoning; `closing` is "" where the template writes none. `end`: what stands behind an answer.
    """

    def __init__(self, processor: ProcessorMixin | PreTrainedTokenizerBase):
        self._processor = processor
        self.tokenizer = getattr(processor, "tokenizer", processor)
        self._typed = hasattr(processor, "image_processor")
        self.prompt = self._rendered([], asking=True) or ""
        bare = self._rendered([], asking=False) or ""
        self.turn = self.prompt.removeprefix(bare).strip()
        plain = self._target({"role": "assistant", "content": SAID})
        self.head, _, behind = (plain or "").partition(SAID) if plain and SAID in plain else ("", "", "")
        self.end = behind.strip()
        reasoned = self._target({"role": "assistant", "content": SAID, "reasoning_content": REASONED}) or ""
        self.opening, found, behind = reasoned.partition(REASONED)
        self.closing = behind.partition(SAID)[0] if found and SAID in behind else ""
        if not self.closing.strip():
            # DeepSeek-R1's prompt opens reasoning that its template does not write.
            opens = self.prompt.rstrip().endswith(THOUGHT[0])
            self.opening, self.closing = ("", THOUGHT[1]) if opens else ("", "")

    @property
    def end_id(self) -> int | None:
        """The token that the template ends an answer with; None where it writes none."""
        closing = closing_ids(self.tokenizer)
        ids = self.tokenizer(text=self.end, add_special_tokens=False)["input_ids"]
        return next((number for number in ids if number in closing), None)

    @cached_property
    def _parser(self) -> PreTrainedTokenizerBase | None:
        # Made where there are calls to read: it imports TRL, which takes seconds.
        return _parser(self.tokenizer, getattr(self._processor, "chat_template", None))

    def read(self, text: str, prompt: str, tools: list[dict[str, Any]] | None = None, calls: bool = False) -> Answer:
        """What an answer says.

        `text`: what was written behind `prompt`, control tokens and all, up to the token that ended the turn. `calls`:
        read tool calls, typed by the definitions `tools`. ValueError where they cannot be read.
        """
        if calls:
            return self._parsed(text, prompt, tools)
        # Behind a tool's answer some templates ask with nothing, and the answer itself begins the turn.
        text = text.strip().removeprefix(self.turn).strip()
        opening, closing = self.opening.strip(), self.closing.strip()
        if closing and closing in text:
            reasoning, _, content = text.partition(closing)
            return Answer(content.strip(), reasoning.strip().removeprefix(opening or THOUGHT[0]).strip())
        # An empty opening stands in the prompt: the model reasons from its first token on.
        opened = text.startswith(opening) if opening else prompt.endswith(self.prompt[-len(THOUGHT[0]) :])
        if closing and opened:
            return Answer("", text.removeprefix(opening).strip(), finished=False)
        return Answer(text.removeprefix(self.head.strip()).strip())

    def expected(self, row: Mapping[str, Any], target: str, prompt: str) -> Answer:
        """What the answer of a row says, in the form that `read` gives. `target`: it as the template writes it.

        ValueError where it is not read back: a model that has learned it by heart would be called wrong.
        """
        said = self.said(row)
        found = self.read(target, prompt, turns.tools(row), calls=bool(said.calls))
        # Templates differ in whether they look for reasoning within the content; a row is meant as it is written.
        within = self.read(said.content, "") if self.closing.strip() in said.content and not said.reasoning else said
        for one in (said, within):
            if found.says_the_same(one):
                return one
        raise ValueError(
            f"the answer as the chat template writes it ({target[:80]!r}) is read back as {found.content[:60]!r} and "
            f"not as {said.content[:60]!r}, so a model that writes it could not be scored"
        )

    def said(self, row: Mapping[str, Any]) -> Answer:
        """What the answer of a row says by itself."""
        turn = turns.answer(row)
        return Answer(written(turn), (turn.get("reasoning_content") or "").strip(), calls_of(turn))

    def _parsed(self, text: str, prompt: str, tools: list[dict[str, Any]] | None) -> Answer:
        if self._parser is None:
            raise ValueError("this chat template's tool calls cannot be read back")
        try:
            try:
                made = self._parser.parse_response(text, prefix=prompt, tools=tools)
            except ValueError:
                # Llama's knows the end of a call by the end of the turn; gpt-oss's takes that for a part of the call.
                made = self._parser.parse_response(text + self.end, prefix=prompt, tools=tools)
            found = calls_of(made or {})
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"no tool call can be read ({error})") from error
        reasoning = made.get("reasoning_content") or made.get("thinking") or ""
        return Answer((made.get("content") or "").strip(), reasoning.strip(), found)

    def _target(self, answer: turns.Turn) -> str | None:
        """What the template writes behind the generation prompt; None where it writes that prompt otherwise."""
        whole = self._rendered([answer], asking=False)
        return whole.removeprefix(self.prompt) if whole and whole.startswith(self.prompt) else None

    def _rendered(self, behind: Sequence[turns.Turn], asking: bool) -> str | None:
        from jinja2 import TemplateError

        asked: list[turns.Turn] = [{"role": "user", "content": ASKED}, *behind]
        if self._typed:
            asked = [turn | {"content": [{"type": "text", "text": turn["content"]}]} for turn in asked]
        try:
            return self._processor.apply_chat_template(asked, tokenize=False, add_generation_prompt=asking)
        except (TemplateError, TypeError, ValueError):
            return None  # of rows, which may have what it wants, it is told


def written_text_of(tokenizer: PreTrainedTokenizerBase, masked: MaskedTokens) -> str:
    """What a row's last answer is as a text, control tokens and all, up to the token that ends the turn."""
    first, behind = masked.answers[-1]
    end = masked.ends[-1]
    return decoded(tokenizer, masked.ids[first : behind if end is None else end])


def decoded(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """Tokens as text, control tokens and spaces as they are."""
    return tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)


def written(turn: turns.Turn) -> str:
    """What is written in an answer itself, without what was reasoned and the calls."""
    content = turn.get("content") or ""
    parts = [content] if isinstance(content, str) else [part["text"] for part in content if part["type"] == "text"]
    return "\n".join(part for part in parts if part).strip()


def calls_of(turn: Mapping[str, Any]) -> tuple[dict[str, Any], ...]:
    """The tool calls of a turn as {"name", "arguments"}; ValueError where one is no call."""
    found = []
    for call in turn.get("tool_calls") or ():
        function = call.get("function", call)
        name, arguments = function.get("name"), function.get("arguments")
        if isinstance(arguments, str):
            arguments = json.loads(arguments)
        arguments = {} if arguments is None else arguments
        if not isinstance(name, str) or not isinstance(arguments, dict):
            raise ValueError(f"{function!r} is no call of a tool: it needs a name and arguments")
        found.append({"name": name, "arguments": arguments})
    return tuple(found)


def _parser(tokenizer: PreTrainedTokenizerBase, template: str | None) -> PreTrainedTokenizerBase | None:
    """A tokenizer whose `parse_response` reads what `template` writes; None where none is known."""
    if getattr(tokenizer, "response_template", None) is not None:
        return tokenizer
    known = chat_templates.published(template or "")
    if known is None:
        return None
    from trl.chat_template_utils import add_response_schema

    made = copy.copy(tokenizer)
    made.chat_template = known
    try:
        return add_response_schema(made)
    except ValueError:
        return None
