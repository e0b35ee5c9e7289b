"""Whether a chat template shows what a row says: what is asked, and all of every answer that is learned."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from sft.data.read import turns
from sft.runtime.stage import StageError


def require_shown(example: Mapping[str, Any], every: list[dict[str, Any]], full: str) -> None:
    """StageError when the template leaves out what is asked, or the tools that may be called."""
    for turn in every:
        content = turns.content_text({"content": turn["content"]}).strip()
        if turn["role"] != "assistant" and not _is_in(content, full):
            raise StageError(
                f"id {example['id']}: the chat template does not show what {turn['role']} says ({content[:60]!r}…). "
                f"Give another template with model.chat_template"
            )
    calls = [call["function"]["name"] for turn in every for call in turn.get("tool_calls") or ()]
    defined = [tool["function"]["name"] for tool in turns.tools(example) or ()]
    if unseen := [name for name in (*calls, *defined) if name not in full]:
        raise StageError(
            f"id {example['id']}: the chat template does not show the tool {unseen[0]!r}; it knows no tools. Give "
            f"another template with model.chat_template"
        )


def require_learned(example: Mapping[str, Any], every: list[dict[str, Any]], turn: dict[str, Any], shown: str) -> None:
    """StageError when what an answer says is not all in `shown`, which is what would be learned of it."""
    number = sum(one["role"] == "assistant" for one in every[: _place(every, turn) + 1])
    last = turn is every[-1]
    which = "the answer" if last else f"answer {number}"
    other = "" if last else ", or set training.loss_on to last"
    advice = f"Give another template with model.chat_template{other}"
    if not _is_in(turn.get("reasoning_content") or "", shown):
        raise StageError(
            f"id {example['id']}: the chat template does not show reasoning_content of {which}, so it would not be "
            f"learned. {advice}, or write the reasoning into the content"
        )
    content = turns.content_text({"content": turn["content"]}).strip()
    if not _is_in(content, shown):
        raise StageError(
            f"id {example['id']}: the chat template shows {which} changed ({content[:60]!r}… is not in it). {advice}"
        )
    if lost := _lost_call(turn, shown):
        raise StageError(
            f"id {example['id']}: the chat template does not show all of the call of {lost!r} in {which}, so it would "
            f"not be learned. {advice}"
        )


def _place(every: list[dict[str, Any]], turn: dict[str, Any]) -> int:
    return next(place for place, one in enumerate(every) if one is turn)


def _lost_call(turn: dict[str, Any], shown: str) -> str:
    """The name of the first tool call of which something is not in `shown`; "" where all are.

    Templates write calls in their own ways, so what is looked for are names, as often as they are called, and the
    longest word of each text among the arguments.
    """
    calls = [call["function"] for call in turn.get("tool_calls") or ()]
    for name in dict.fromkeys(call["name"] for call in calls):
        if shown.count(name) < sum(call["name"] == name for call in calls):
            return name
    for call in calls:
        words = (max(re.findall(r"\w+", text, re.ASCII), key=len, default="") for text in _texts(call.get("arguments")))
        if any(word not in shown for word in words):
            return call["name"]
    return ""


def _texts(value: Any) -> Iterator[str]:
    """All texts within a JSON value, keys as well."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from (key, *_texts(inner))
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)


def _is_in(content: str, full: str) -> bool:
    """Whether a template shows a text; it may set its white space anew, as Qwen3's does around what is reasoned."""
    return content in full or "".join(content.split()) in "".join(full.split())
