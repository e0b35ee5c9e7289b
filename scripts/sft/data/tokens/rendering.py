"""From an example to chat text and tokens, the one way that training and evaluation share.

Pictures stand where the turns place them; in a row of one question they come first, then the prompt. A processor
(with pictures) and a tokenizer (without) are both accepted as `processor`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os.path import commonprefix
from typing import TYPE_CHECKING, Any

from sft.data.read import turns
from sft.data.tokens.shown import require_learned, require_shown
from sft.runtime.stage import StageError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, ProcessorMixin

Span = tuple[int, int]
OPENED = "<think>\n"


@dataclass(frozen=True)
class Rendered:
    """A row as text: the whole of it, the prompt that it begins with, and where its answers are.

    `answers`: spans of characters of the turns that the loss counts, each with what the template puts behind it.
    `contents`: what is written in those turns.
    """

    full: str
    prompt: str
    answers: tuple[Span, ...]
    contents: tuple[str, ...]


def takes_pictures(processor: ProcessorMixin | PreTrainedTokenizerBase) -> bool:
    """Whether the processor has an image processor."""
    return hasattr(processor, "image_processor")


def messages(example: Mapping[str, Any], typed: bool) -> list[dict[str, Any]]:
    """The messages before the answer. `typed`: content as [{"type": "image"}, ..., {"type": "text"}].

    Templates of models that take pictures read typed content; those of text models read strings.
    """
    return _messages(example, typed)[:-1]


def _messages(example: Mapping[str, Any], typed: bool) -> list[dict[str, Any]]:
    """The messages of a row, its answer last."""
    made = [turn | {"content": _content(turn["content"], typed)} for turn in turns.turns(example)]
    if typed and not example.get("messages"):
        made[-2]["content"] = [{"type": "image"}] * len(example["images"]) + made[-2]["content"]
    return made


def prompt_text(processor: ProcessorMixin | PreTrainedTokenizerBase, example: Mapping[str, Any]) -> str:
    """The rendered prompt up to where the assistant's answer starts; one placeholder for each picture."""
    return _render(processor, [(example, messages(example, takes_pictures(processor)))], add_generation_prompt=True)[0]


def texts(processor: ProcessorMixin | PreTrainedTokenizerBase, example: Mapping[str, Any]) -> tuple[str, str]:
    """(prompt, prompt + completion + end of turn), rendered. StageError when the first does not begin the second."""
    made = rendered(processor, example, "last")
    return made.prompt, made.full


def rendered(processor: ProcessorMixin | PreTrainedTokenizerBase, example: Mapping[str, Any], loss_on: str) -> Rendered:
    """One row as text; see `rendered_rows`."""
    return rendered_rows(processor, [example], loss_on)[0]


def rendered_rows(
    processor: ProcessorMixin | PreTrainedTokenizerBase, examples: Sequence[Mapping[str, Any]], loss_on: str
) -> list[Rendered]:
    """Rows as text, with the turns that are learned: the last answer, or all of assistant's.

    With loss_on "completion" a conversation must have one answer only: which ones count is to be said. With "all"
    the last answer is given, because that is where the end of a turn is looked for. StageError where the template
    does not show what is learned, or shows it otherwise than when it was asked for.
    """
    typed = takes_pictures(processor)
    made: list[Rendered | None] = [None] * len(examples)
    chats: list[tuple[int, Mapping[str, Any], list[dict[str, Any]]]] = []
    for number, example in enumerate(examples):
        if turns.is_text(example):
            text = example["completion"]
            made[number] = Rendered(text, "", ((0, len(text)),), (text,))
            continue
        every = _messages(example, typed)
        answers = sum(turn["role"] == "assistant" for turn in every)
        if loss_on == "completion" and answers > 1:
            raise StageError(
                f"id {example['id']}: {answers} turns of assistant, and training.loss_on is completion. Set it to "
                f"assistant (all of them) or last"
            )
        chats.append((number, example, every))
    fulls = _render(processor, [(example, every) for _, example, every in chats])
    prompts = _render(processor, [(example, every[:-1]) for _, example, every in chats], add_generation_prompt=True)
    spans = _spans(processor, [(example, every) for _, example, every in chats], fulls, prompts, loss_on)
    for (number, example, every), full, prompt, of_row in zip(chats, fulls, prompts, spans, strict=True):
        learned = [turn for turn in every if turn["role"] == "assistant"] if len(of_row) > 1 else every[-1:]
        require_shown(example, every, full)
        for turn, (start, end) in zip(learned, of_row, strict=True):
            # A prompt may hold the beginning of what is said: an opening <think>.
            require_learned(example, every, turn, full[max(0, start - len(OPENED)) : end])
        if loss_on == "all":
            for turn in every[:-1]:
                if turn["role"] == "assistant":
                    require_learned(example, every, turn, full)
        made[number] = Rendered(full, prompt, tuple(of_row), tuple(turns.content_text(turn) for turn in learned))
    return [one for one in made if one is not None]


def encode(
    processor: ProcessorMixin | PreTrainedTokenizerBase, rendered: Sequence[str], images: Sequence[Sequence[Any]]
) -> list[list[int]]:
    """Token ids of rendered texts, the picture placeholders expanded by the processor as it does for the model.

    `images`: the decoded pictures (PIL) of each text. No special tokens are added: the template wrote them.
    ValueError when a text holds another number of placeholders than it has pictures.
    """
    encoded: list[list[int]] = [[] for _ in rendered]
    for has_pictures in (True, False):
        rows = [i for i, of_row in enumerate(images) if bool(of_row) is has_pictures]
        if rows:
            arguments: dict[str, Any] = {"text": [rendered[i] for i in rows], "add_special_tokens": False}
            if has_pictures:
                arguments["images"] = [list(images[i]) for i in rows]
            for i, ids in zip(rows, processor(**arguments)["input_ids"], strict=True):
                encoded[i] = list(ids)
    return encoded


def text_added_by_the_template(processor: ProcessorMixin | PreTrainedTokenizerBase) -> str:
    """What the template writes before the first user's text besides role names, where no system message is given.

    SmolLM2's and Qwen2.5's templates add a system message of their own; "" where nothing is added.
    """
    from jinja2 import TemplateError

    typed = takes_pictures(processor)
    mark = "0123456789abcdef"
    try:
        turn = {"role": "user", "content": _content(mark, typed)}
        text = processor.apply_chat_template([turn], tokenize=False, add_generation_prompt=True)
    except (TemplateError, TypeError, ValueError) as error:
        return f"(the template refuses one user turn: {error})"
    before = text.partition(mark)[0]
    for token in _special(processor):
        before = before.replace(token, " ")
    words = [word for word in before.split() if word.lower() not in ("system", "user", "human", "[inst]")]
    return " ".join(words) if len(words) > 2 else ""


def _special(processor: Any) -> list[str]:
    tokenizer = getattr(processor, "tokenizer", processor)
    return [str(token) for token in tokenizer.added_tokens_decoder.values()]


Chat = tuple[Mapping[str, Any], list[dict[str, Any]]]


def _spans(
    processor: Any, chats: Sequence[Chat], fulls: Sequence[str], prompts: Sequence[str], loss_on: str
) -> list[list[Span]]:
    """Where the learned turns of each chat are in its text: between what asks for them and what the rest goes on from.

    That needs no marks in the template, so it also serves templates for which TRL has no training variant. Where a
    template shows earlier turns otherwise than when they were the last, the marks of `{% generation %}` are used.
    """
    found: list[list[Span]] = []
    for (example, _), full, prompt in zip(chats, fulls, prompts, strict=True):
        if not full.startswith(prompt):
            raise StageError(
                f"id {example['id']}: the chat template renders the prompt otherwise when an answer follows "
                f"(…{prompt[-60:]!r} is not in …{full[-120:]!r}), so the answer cannot be told from it. "
                f"{remedy(prompt)}"
            )
        found.append([(len(prompt), len(full))])
    if loss_on != "assistant":
        return found
    earlier = [
        (number, (example, every), place)
        for number, (example, every) in enumerate(chats)
        for place, turn in enumerate(every[:-1])
        if turn["role"] == "assistant"
    ]
    befores = _render(processor, [(e, every[:place]) for _, (e, every), place in earlier], add_generation_prompt=True)
    afters = _render(processor, [(e, every[: place + 1]) for _, (e, every), place in earlier])
    changed = set()
    for (number, _, _), before, after in zip(earlier, befores, afters, strict=True):
        full = fulls[number]
        if not (full.startswith(before) and full.startswith(after) and len(before) < len(after)):
            changed.add(number)
        found[number].insert(-1, (len(before), len(after)))
    for number in changed:
        asked = [before for (of, _, _), before in zip(earlier, befores, strict=True) if of == number]
        found[number] = _marked_spans(processor, *chats[number], [*asked, prompts[number]])
    return found


def remedy(prompt: str) -> str:
    """What to do about a prompt that an answer does not simply follow."""
    if prompt.endswith(OPENED):
        return (
            "This chat template asks for reasoning: give the rows reasoning_content, or take one that asks for none "
            "with model.chat_template (trl/qwen3_5_nothink_training for its family)"
        )
    if prompt.rstrip().endswith("</think>"):
        return (
            "This chat template asks for answers without reasoning: leave reasoning_content out, or take one that asks "
            "for it with model.chat_template (trl/qwen3_5_think_training for its family)"
        )
    return "Give another template with model.chat_template, whose prompt ends with a newline or a control token"


def _marked_spans(
    processor: Any, example: Mapping[str, Any], every: list[dict[str, Any]], asked: list[str]
) -> list[Span]:
    """Where the template's own marks say that the answers are. `asked`: the prompt before each of them."""
    from transformers.utils.chat_template_utils import render_jinja_template

    template = processor.chat_template
    advice = (
        "Choose a training template with model.chat_template (trl/<family>_training), or set training.loss_on to last"
    )
    if not re.search(r"{%-?\s*generation\s*-?%}", template):
        raise StageError(
            f"id {example['id']}: the chat template shows earlier turns otherwise than when they were asked, and has "
            f"no {{% generation %}} marks, so assistant's turns cannot be told apart. {advice}"
        )
    tokenizer = getattr(processor, "tokenizer", processor)
    [full], marks = render_jinja_template(
        [every],
        tools=turns.tools(example),
        chat_template=template,
        return_assistant_tokens_mask=True,
        **tokenizer.special_tokens_map,
    )
    # Marks that meet are one answer: Phi-3's template marks the end of the text apart from the last answer.
    spans: list[Span] = []
    for start, end in marks[0]:
        if spans and spans[-1][1] == start and len(marks[0]) > len(asked):
            spans[-1] = spans[-1][0], end
        else:
            spans.append((start, end))
    if len(spans) != len(asked):
        raise StageError(
            f"id {example['id']}: the chat template marks {len(spans)} of {len(asked)} assistant turns. Set "
            f"training.loss_on to last, or give another template with model.chat_template"
        )
    openings = _generation_prompts(processor, example, every, asked)
    return [
        (_behind_opening(example, full, span, opening), span[1]) for span, opening in zip(spans, openings, strict=True)
    ]


def _generation_prompts(
    processor: Any, example: Mapping[str, Any], every: list[dict[str, Any]], asked: list[str]
) -> list[str]:
    """What the template adds to ask for each answer: `<|im_start|>assistant` and a newline in ChatML."""
    places = [place for place, turn in enumerate(every) if turn["role"] == "assistant"]
    without = _render(processor, [(example, every[:place]) for place in places])
    # Where a template closes a text that ends here, the prompt goes on from what both begin with.
    shared = [len(commonprefix(pair)) for pair in zip(asked, without, strict=True)]  # noqa: RUF071 (texts, no paths)
    return [prompt[length:] for prompt, length in zip(asked, shared, strict=True)]


def _behind_opening(example: Mapping[str, Any], full: str, span: Span, opening: str) -> int:
    """Where an answer begins: behind what asks for it, of which a mark may hold a part; StageError where it is not."""
    start, end = span
    for inside in range(min(len(opening), end - start) + 1):
        split = len(opening) - inside
        if full[start:].startswith(opening[split:]) and full[:start].endswith(opening[:split]):
            return start + inside
    raise StageError(
        f"id {example['id']}: an earlier answer ({full[start : start + 40]!r}…) does not follow what the chat template "
        f"asks for it with ({opening!r}), so another prompt would be learned. Set training.loss_on to last, or give "
        f"another template with model.chat_template"
    )


def _render(processor: Any, chats: Sequence[Chat], add_generation_prompt: bool = False) -> list[str]:
    """Chats as text, those with the same tools in one call; StageError names the row that the template fails on."""
    from jinja2 import TemplateError

    def render(tools: str | None, of: list[list[dict[str, Any]]]) -> list[str]:
        given = turns.tools({"tools": tools})
        return processor.apply_chat_template(
            of, tools=given, tokenize=False, add_generation_prompt=add_generation_prompt
        )

    by_tools: dict[str | None, list[int]] = {}
    for number, (example, _) in enumerate(chats):
        by_tools.setdefault(example.get("tools"), []).append(number)
    made = [""] * len(chats)
    failures = (TemplateError, TypeError, ValueError)
    for tools, numbers in by_tools.items():
        try:
            texts = render(tools, [chats[number][1] for number in numbers])
        except failures:
            for number in numbers:
                try:
                    render(tools, [chats[number][1]])
                except failures as error:
                    raise StageError(
                        f"id {chats[number][0]['id']}: the chat template fails on it ({error}). Mend the row, or give "
                        f"another template with model.chat_template"
                    ) from None
            raise
        for number, text in zip(numbers, texts, strict=True):
            made[number] = text
    return made


def _content(content: Any, typed: bool) -> Any:
    """Content as a model's template reads it: a list of parts (`typed`), or text."""
    if typed:
        return [{"type": "text", "text": content}] if isinstance(content, str) else content
    return content if isinstance(content, str) else turns.content_text({"content": content})
