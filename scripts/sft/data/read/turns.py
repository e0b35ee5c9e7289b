"""The turns of a canonical example (sft/data/read/examples.py): who says what, in the form chat templates read.

A row of one question and one answer has `system`, `prompt` and `completion`. A conversation has all its turns in
`messages`, JSON text of a list of

    {"role": "system" | "user" | "assistant" | "tool", "content": text or parts, ...}

with `tool_calls`, `reasoning_content`, `name` and `tool_call_id` where the published row has them. Parts are
{"type": "text", "text": ...} and {"type": "image"}, the pictures of `images` in order; its last turn is the
assistant's. Text without roles (language modelling) has no `prompt` and is all `completion`.
"""

import json
from collections.abc import Mapping
from typing import Any

Turn = dict[str, Any]


def is_text(row: Mapping[str, Any]) -> bool:
    """Whether a row is text without roles."""
    return row["prompt"] is None


def turns(row: Mapping[str, Any]) -> list[Turn]:
    """All turns of a row, the answer to learn last; ValueError for text without roles."""
    if row.get("messages"):
        return json.loads(row["messages"])
    return [*asked(row), answer(row)]


def asked(row: Mapping[str, Any]) -> list[Turn]:
    """The turns before the answer to learn; pictures are not yet placed where `prompt` is the only user turn."""
    if is_text(row):
        raise ValueError("text without roles has no turns")
    if row.get("messages"):
        return json.loads(row["messages"])[:-1]
    system = [{"role": "system", "content": row["system"]}] if row.get("system") else []
    return [*system, {"role": "user", "content": row["prompt"]}]


def answer(row: Mapping[str, Any]) -> Turn:
    """The turn to learn."""
    if row.get("messages"):
        return json.loads(row["messages"])[-1]
    return {"role": "assistant", "content": row["completion"]}


def tools(row: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """The definitions (JSON Schema) of the tools that the assistant may call; None for none."""
    return json.loads(row["tools"]) if row.get("tools") else None


def content_text(turn: Turn) -> str:
    """What is written in a turn: its text parts, what was reasoned, and the tool calls as JSON."""
    content = turn.get("content") or ""
    if isinstance(content, str) and not (turn.get("reasoning_content") or turn.get("tool_calls")):
        return content
    parts = [content] if isinstance(content, str) else [part["text"] for part in content if part["type"] == "text"]
    parts += [turn["reasoning_content"]] if turn.get("reasoning_content") else []
    parts += [json.dumps(call, ensure_ascii=False, sort_keys=True) for call in turn.get("tool_calls") or []]
    return "\n".join(part for part in parts if part)


def asked_text(row: Mapping[str, Any]) -> str:
    """All that is written before the answer, one turn after the other: what a model is shown when it is asked."""
    return "" if is_text(row) else "\n".join(content_text(turn) for turn in asked(row))


def written_text(row: Mapping[str, Any]) -> str:
    """All that is written in a row, answer included: what a leak would show."""
    return row["completion"] if is_text(row) else "\n".join(content_text(turn) for turn in turns(row))
