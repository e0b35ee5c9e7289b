"""Published conversations to the turns of a canonical example (sft/data/read/turns.py), strictly.

Read are lists of {"role", "content"} as the Hub's chat data sets have them, and, with other names for roles and
fields, ShareGPT's {"from", "value"}. Content is text or parts; tool calls are OpenAI's, their arguments an object or
its JSON text, or turns of their own as LLaMA-Factory and ms-swift write them. Who may speak when is checked here,
because chat templates do not: most render any order.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sft.data.read.rows import once

ROLES = ("system", "user", "assistant", "tool")
# ShareGPT's names; FastChat, Axolotl and LLaMA-Factory read the same ones.
SHAREGPT_ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "bard": "assistant",
    "bing": "assistant",
    "system": "system",
    "tool": "tool",
    "observation": "tool",
}
# Turns whose content is the JSON text of tool calls, and turns of what these return: LLaMA-Factory's and ms-swift's.
CALLING = ("function_call", "tool_call")
RETURNED = {"observation": "tool", "tool_response": "tool", "function_response": "tool"}
REASONING = ("reasoning_content", "reasoning", "thinking")
KEPT = ("name", "tool_call_id")

Turn = dict[str, Any]


def read_turns(
    value: Any,
    padded: bool = False,
    roles: Mapping[str, str] | None = None,
    role_field: str = "role",
    content_field: str = "content",
) -> list[Turn]:
    """The turns of a cell: a list of mappings, or its JSON text. ValueError names the turn that cannot be read.

    `padded`: mappings of the cell may have null entries that its table added; those of JSON text are the author's.
    """
    padded = padded and not isinstance(value, str)
    value = _parsed(value, "the conversation")
    if not isinstance(value, Sequence) or not value:
        raise ValueError(f"the conversation is {_what(value)}, not a list of turns")
    made: list[Turn] = []
    for number, published in enumerate(value, start=1):
        try:
            turn = _turn(published, roles or {}, role_field, content_field, padded)
        except ValueError as error:
            raise ValueError(f"turn {number}: {error}") from None
        if made and _only_calls(turn) and _only_calls(made[-1]):
            made[-1]["tool_calls"] += turn["tool_calls"]  # called at once, written as a turn each
        else:
            made.append(turn)
    return made


def _only_calls(turn: Turn) -> bool:
    return bool(turn.get("tool_calls")) and not turn["content"]


def read_tools(value: Any, padded: bool = False) -> list[dict[str, Any]]:
    """Tool definitions as {"type": "function", "function": {"name", "description", "parameters"}}, from any of the
    forms they are published in: those, bare functions, or JSON text. ValueError where one has no name.
    """
    padded = padded and not isinstance(value, str)
    value = _parsed(value, "the tools")
    if value is None:
        return []
    if not isinstance(value, Sequence):
        raise ValueError(f"the tools are {_what(value)}, not a list of definitions")
    made = []
    for number, published in enumerate(value, start=1):
        published = _without_padding(published, f"tool {number}", padded)
        function = published.get("function", published) if isinstance(published, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise ValueError(f"tool {number} is no definition: a mapping with a name (and description, parameters)")
        function = {name: entry for name, entry in function.items() if name != "type"}
        made.append({"type": "function", "function": dict(function)})
    return made


def check(turns: Sequence[Turn], tools: Sequence[Mapping[str, Any]], pictures: int) -> None:
    """ValueError unless the turns are a conversation that ends with an answer, its calls and pictures accounted for.

    system (once, first), then user and assistant in turns; tool results follow a call. Pictures have one place each,
    or none has a place and they stand before the first user's text.
    """
    roles = [turn["role"] for turn in turns]
    body = roles[1:] if roles[0] == "system" else roles
    first = len(roles) - len(body) + 1
    allowed: tuple[str, ...] = ("user",)
    for number, role in enumerate(body, start=first):
        if role not in allowed:
            before = "at the beginning" if number == first else f"after {roles[number - 2]}"
            raise ValueError(f"turn {number}: role {role} {before}; {' or '.join(allowed)} comes there")
        called = bool(turns[number - 1].get("tool_calls"))
        allowed = {
            "user": ("assistant",),
            "assistant": ("tool",) if called else ("user",),
            "tool": ("tool", "assistant"),
        }[role]
    if roles[-1] != "assistant":
        raise ValueError(f"the last turn is {roles[-1]}'s, so there is no answer to learn; assistant comes last")
    known = {tool["function"]["name"] for tool in tools}
    for number, turn in enumerate(turns, start=1):
        for call in turn.get("tool_calls") or ():
            if call["function"]["name"] not in known:
                listed = ", ".join(sorted(known)) or "none"
                raise ValueError(
                    f"turn {number}: calls the tool {call['function']['name']!r}, which is not defined (defined: "
                    f"{listed}). Name the column of the definitions with tools_key"
                )
    places = sum(part["type"] == "image" for turn in turns for part in _parts(turn))
    if places not in (0, pictures):
        raise ValueError(f"{places} places for pictures in the turns, {pictures} pictures in the row")


def place_pictures(turns: Sequence[Turn], pictures: int) -> list[Turn]:
    """The turns with `pictures` places before the first user's text, where no turn has one (as TRL places them)."""
    if not pictures or any(part["type"] == "image" for turn in turns for part in _parts(turn)):
        return list(turns)
    made, waiting = [], pictures
    for turn in turns:
        if waiting and turn["role"] == "user":
            text = turn["content"]
            parts = [{"type": "text", "text": text}] if isinstance(text, str) else list(text)
            turn = turn | {"content": [{"type": "image"}] * waiting + parts}
            waiting = 0
        made.append(turn)
    return made


def _turn(published: Any, roles: Mapping[str, str], role_field: str, content_field: str, padded: bool) -> Turn:
    if not isinstance(published, Mapping):
        raise ValueError(f"{_what(published)}, not a mapping with {role_field} and {content_field}")
    for field in (role_field, content_field):
        if field not in published:
            raise ValueError(f"no {field}; its fields are {', '.join(published)}. Set role_field and content_field")
    name = published[role_field]
    if not isinstance(name, str):
        raise ValueError(f"{role_field} is {_what(name)}, not a name")
    calling = name in CALLING and roles.get(name, "assistant") == "assistant"
    role = "assistant" if calling else roles.get(name, RETURNED.get(name, name if name in ROLES else None))
    if role not in ROLES:
        raise ValueError(f"role {name!r} is unknown. Say what it is with roles: {{{name}: user}}")
    made: Turn = {"role": role}
    published_calls = published[content_field] if calling else published.get("tool_calls")
    padded = padded and not isinstance(published_calls, str)
    listed = _parsed(published_calls, f"the {name}" if calling else "tool_calls") or ()
    calls = [_call(call, padded) for call in ([listed] if isinstance(listed, Mapping) else listed)]
    if calling and not calls:
        raise ValueError(f"the {name} calls nothing")
    made["content"] = "" if calling else _content(published[content_field], may_be_empty=bool(calls))
    if calls:
        if role != "assistant":
            raise ValueError(f"role {role} calls a tool; only assistant does")
        made["tool_calls"] = calls
    reasoning = next((published[field] for field in REASONING if published.get(field)), None)
    if reasoning is not None:
        if role != "assistant" or not isinstance(reasoning, str):
            raise ValueError("what is reasoned is a text of assistant's")
        made["reasoning_content"] = reasoning
    return made | {field: published[field] for field in KEPT if published.get(field) is not None}


def _content(value: Any, may_be_empty: bool) -> str | list[dict[str, str]]:
    if value is None and may_be_empty:
        return ""
    if isinstance(value, str):
        if not value.strip() and not may_be_empty:
            raise ValueError("the content is empty")
        return value
    if not isinstance(value, Sequence) or not value:
        raise ValueError(f"the content is {_what(value)}, not text or a list of parts")
    made = []
    for part in value:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind == "text" and isinstance(part.get("text"), str):
            made.append({"type": "text", "text": part["text"]})
        elif kind in ("image", "image_url"):
            # The picture itself comes from the row's picture columns, in this order.
            made.append({"type": "image"})
        else:
            raise ValueError(f"a part is {_what(part)} of type {kind!r}; text and image are read")
    return made


def _call(published: Any, padded: bool) -> dict[str, Any]:
    padded = padded and not isinstance(published, str)
    published = _parsed(published, "a tool call")
    function = published.get("function", published) if isinstance(published, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise ValueError(f"a tool call is {_what(published)}, not {{function: {{name, arguments}}}}")
    arguments = _without_padding(function.get("arguments"), "the arguments of a tool call", padded)
    if not isinstance(arguments, Mapping) and arguments is not None:
        raise ValueError(f"the arguments of {function['name']} are {_what(arguments)}, not an object")
    made = {"type": "function", "function": {"name": function["name"], "arguments": arguments or {}}}
    return made | ({"id": published["id"]} if published.get("id") else {})


def _parts(turn: Turn) -> Sequence[Mapping[str, Any]]:
    return () if isinstance(turn["content"], str) else turn["content"]


def _parsed(value: Any, what: str) -> Any:
    """`value`, read where it is JSON text."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value, object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{what}: neither a list nor its JSON text ({error})") from None


def _without_padding(value: Any, what: str, padded: bool) -> Any:
    """`value`, read where it is JSON text; of one that a table padded, mappings without their null entries.

    A column of a table gives every mapping the fields of all others; a null that is written in JSON text is meant.
    """
    return _without_nulls(value) if padded and not isinstance(value, str) else _parsed(value, what)


def _without_nulls(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _without_nulls(entry) for name, entry in value.items() if entry is not None}
    return [_without_nulls(entry) for entry in value] if isinstance(value, list) else value


def _what(value: Any) -> str:
    return "empty" if value is None or value in ("", [], {}) else f"a {type(value).__name__}"
