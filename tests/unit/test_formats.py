"""Rows of every format to canonical examples, by the real preparation; and what is refused, with its reason.

Tests: sft.config.row_formats, sft.data.read.cells, sft.data.read.columns, sft.data.read.conversations,
sft.data.read.preparation, sft.data.read.turns, sft.terms.row_templates
"""

import io
import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from sft.config.nodes import PrepareSettings
from sft.data.read import turns
from sft.data.read.preparation import Preparation
from sft.runtime.stage import StageError
from sft.terms.row_templates import RowTemplate

KEYS = ("prompt", "choice", "answer", "completion", "id", "group", "text", "messages", "tools", "system")
WEATHER = {"name": "weather", "description": "The weather of a place.", "parameters": {"type": "object"}}


def config(format: str, **settings: Any) -> dict[str, Any]:
    columns = {f"{key}_key": settings.pop(f"{key}_key", None) for key in KEYS}
    columns["image_keys"] = settings.pop("image_keys", [])
    layout = {"choices_layout": "lines", "target": "letter", "image_transform": "none"}
    return {"format": format, "columns": columns, **layout, **settings}


def preparation(how: dict[str, Any], folder: Path) -> Preparation:
    return Preparation(PrepareSettings.read_back(how), folder)


def prepared(folder: Path, rows: list[dict[str, Any]], how: dict[str, Any]) -> list[dict[str, Any]]:
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return list(preparation(how, folder).examples())


def picture(side: int = 8) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (side, side)).save(buffer, format="PNG")
    return buffer.getvalue()


def chat(*turns: tuple[str, str]) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in turns]


def test_language_modelling(tmp_path):
    (row,) = prepared(tmp_path, [{"text": " A text.\n"}], config("language_modelling", text_key="text"))
    assert turns.is_text(row)
    assert row["completion"] == turns.written_text(row) == " A text.\n"


def test_conversation(tmp_path):
    said = chat(("system", "Be brief."), ("user", "1?"), ("assistant", "One."), ("user", "2?"), ("assistant", "Two."))
    (row,) = prepared(tmp_path, [{"messages": said}], config("conversation", messages_key="messages"))
    assert turns.turns(row) == said
    assert (row["prompt"], row["completion"], row["system"]) == ("2?", "Two.", None)
    assert turns.asked_text(row) == "Be brief.\n1?\nOne.\n2?"


def test_conversation_in_two_columns(tmp_path):
    row = {"prompt": chat(("user", "1?")), "completion": chat(("assistant", "One."))}
    how = config("conversation", prompt_key="prompt", completion_key="completion", system="Be kind.")
    (made,) = prepared(tmp_path, [row], how)
    assert turns.turns(made) == chat(("system", "Be kind."), ("user", "1?"), ("assistant", "One."))


def test_sharegpt(tmp_path):
    said = [{"from": "system", "value": "S"}, {"from": "human", "value": "1?"}, {"from": "gpt", "value": "One."}]
    (row,) = prepared(tmp_path, [{"conversations": said}], config("sharegpt"))
    assert turns.turns(row) == chat(("system", "S"), ("user", "1?"), ("assistant", "One."))


@pytest.mark.parametrize(("given", "prompt"), [("", "Add."), (None, "Add."), ("1 and 2", "Add.\n\n1 and 2")])
def test_alpaca(tmp_path, given, prompt):
    (row,) = prepared(tmp_path, [{"instruction": "Add.", "input": given, "output": "3"}], config("alpaca"))
    assert (row["prompt"], row["completion"], row["messages"]) == (prompt, "3", None)


def test_templates_read_columns_by_our_names(tmp_path):
    how = config(
        "prompt_completion",
        prompt_template="### Instruction:\n{{ asked | trim }}\n{% if hint %}({{ hint }})\n{% endif %}\n### Response:\n",
        completion_template="{{ solution.text }}",
        renamed={"asked": "meta.question", "solution": "answer"},
    )
    rows = [{"meta": {"question": " 1+1? "}, "answer": {"text": "2"}, "hint": None}]
    (row,) = prepared(tmp_path, rows, how)
    assert row["prompt"] == "### Instruction:\n1+1?\n\n### Response:\n"
    assert row["completion"] == "2"


def test_tool_calls(tmp_path):
    call = {"type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}
    said = [
        *chat(("user", "Is it raining in Oslo?")),
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "name": "weather", "content": "rain"},
        {"role": "assistant", "content": "Yes.", "reasoning_content": "The tool says rain."},
    ]
    how = config("conversation", messages_key="messages", tools_key="tools")
    (row,) = prepared(tmp_path, [{"messages": said, "tools": json.dumps([WEATHER])}], how)
    made = turns.turns(row)
    assert made[1]["tool_calls"][0]["function"] == {"name": "weather", "arguments": {"city": "Oslo"}}
    assert made[-1]["reasoning_content"] == "The tool says rain."
    assert turns.tools(row) == [{"type": "function", "function": WEATHER}]
    assert "Oslo" in turns.written_text(row)


def test_nulls_that_a_table_puts_into_calls_are_no_arguments(tmp_path):
    """A column of structs gives every call the arguments of all others, as null."""
    calls = [{"name": "weather", "arguments": {"city": "Oslo"}}, {"name": "weather", "arguments": {"zip": "0150"}}]
    rows = [
        {
            "messages": [
                {"role": "user", "content": "?", "tool_calls": None},
                {"role": "assistant", "content": "", "tool_calls": [call]},
            ],
            "tools": [WEATHER],
        }
        for call in calls
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "rows.parquet")
    made = list(
        Preparation(
            PrepareSettings.read_back(config("conversation", messages_key="messages", tools_key="tools")), tmp_path
        ).examples()
    )
    arguments = [turns.answer(row)["tool_calls"][0]["function"]["arguments"] for row in made]
    assert arguments == [{"city": "Oslo"}, {"zip": "0150"}]


def test_pictures_stand_where_the_turns_say_or_first(tmp_path):
    image = {"type": "image"}
    placed = [{"role": "user", "content": [{"type": "text", "text": "This"}, image]}, *chat(("assistant", "is A."))]
    rows = [
        {"messages": placed, "images": [{"bytes": picture(), "path": None}]},
        {
            "messages": chat(("user", "Both?"), ("assistant", "Yes.")),
            "images": [{"bytes": picture(), "path": None}] * 2,
        },
        {"messages": chat(("user", "None?"), ("assistant", "No.")), "images": []},
    ]
    pyarrow.parquet.write_table(
        pyarrow.table(
            {
                "messages": pyarrow.array([json.dumps(row["messages"]) for row in rows]),
                "images": pyarrow.array([row["images"] for row in rows]),
            }
        ),
        tmp_path / "rows.parquet",
    )
    made = list(
        Preparation(
            PrepareSettings.read_back(config("conversation", messages_key="messages", image_keys=["images"])), tmp_path
        ).examples()
    )
    assert [len(row["images"]) for row in made] == [1, 2, 0]
    assert turns.turns(made[0])[0]["content"] == [{"type": "text", "text": "This"}, image]
    assert turns.turns(made[1])[0]["content"] == [image, image, {"type": "text", "text": "Both?"}]
    assert turns.turns(made[2])[0]["content"] == "None?"


SAID = chat(("user", "1?"), ("assistant", "One."))
CALL = {"role": "assistant", "content": None, "tool_calls": [{"name": "rain", "arguments": {}}]}

BAD_CONVERSATIONS = {
    "starts with the assistant": (SAID[1:], "turn 1: role assistant at the beginning; user comes there"),
    "two users": ([SAID[0], *SAID], "turn 2: role user after user; assistant comes there"),
    "a late system turn": ([*SAID, *chat(("system", "S")), *SAID], "turn 3: role system after assistant"),
    "no answer": (SAID[:1], "the last turn is user's, so there is no answer to learn"),
    "nobody": (chat(("narrator", "x")), r"turn 1: role 'narrator' is unknown. Say what it is with roles: {narrator"),
    "an empty answer": ([SAID[0], *chat(("assistant", " "))], "turn 2: the content is empty"),
    "no content": ([{"role": "user"}], "turn 1: no content; its fields are role. Set role_field and content_field"),
    "no turns": ([], "the conversation is empty"),
    "a number": ([3], "turn 1: a int, not a mapping"),
    "an unknown part": ([{"role": "user", "content": [{"type": "video"}]}], "turn 1: a part is a dict of type 'video'"),
    "a place without a picture": ([{"role": "user", "content": [{"type": "image"}]}, SAID[1]], "1 places for pictures"),
    "a call without definition": (
        [SAID[0], CALL],
        "turn 2: calls the tool 'rain', which is not defined .defined: none",
    ),
    "a result without a call": ([SAID[0], *chat(("tool", "x")), SAID[1]], "turn 2: role tool after user"),
    "arguments that are no object": (
        [SAID[0], {"role": "assistant", "content": "", "tool_calls": [{"name": "f", "arguments": "[1]"}]}],
        "turn 2: the arguments of f are a list, not an object",
    ),
}


@pytest.mark.parametrize(("said", "reason"), BAD_CONVERSATIONS.values(), ids=BAD_CONVERSATIONS)
def test_bad_conversations_are_refused(tmp_path, said, reason):
    with pytest.raises(StageError, match=f"rows.jsonl, row 0.*{reason}"):
        prepared(tmp_path, [{"m": said}], config("conversation", messages_key="m"))


def test_two_system_messages_are_refused(tmp_path):
    said = chat(("system", "S"), ("user", "1?"), ("assistant", "One."))
    with pytest.raises(StageError, match="has a system turn, and the data set sets system"):
        prepared(tmp_path, [{"m": said}], config("conversation", messages_key="m", system="T"))


def test_bad_rows_are_dropped_and_counted_when_that_is_said(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"text": "a"}\n{"text": \n{"text": ""}\n{"other": 1}\n{"text": "b"}\n')
    how = config("language_modelling", text_key="text", on_bad_row="drop")
    made = preparation(how, tmp_path)
    assert [row["completion"] for row in made.examples()] == ["a", "b"]
    facts = made.facts()
    assert facts["rows_dropped"] == {"rows.jsonl": 3}
    assert "rows.jsonl, row 1: line 2 is not JSON" in facts["rows_dropped_shown"][0]
    assert "row 2: column 'text' is empty" in facts["rows_dropped_shown"][1]
    with pytest.raises(StageError, match=r"3 rows cannot be read(.|\n)*row 1: line 2 is not JSON"):
        list(preparation(how | {"on_bad_row": "error"}, tmp_path).examples())


def test_no_row_left_is_an_error(tmp_path):
    how = config("language_modelling", text_key="text", on_bad_row="drop")
    with pytest.raises(StageError, match="no row is left: all 1 rows were dropped"):
        prepared(tmp_path, [{"text": " "}], how)


def test_a_gigantic_picture_is_refused_before_it_is_decoded(tmp_path):
    (tmp_path / "big.png").write_bytes(picture(300))
    how = config("prompt_completion", prompt_key="p", completion_key="c", image_keys=["i"], maximum_pixels=80_000)
    with pytest.raises(StageError, match=r"a picture of 300 x 300 pixels; at most 80000 are read.*set maximum_pixels"):
        prepared(tmp_path, [{"p": "?", "c": "!", "i": "big.png"}], how)


def test_a_missing_picture_is_an_error_unless_pictures_are_optional(tmp_path):
    how = config("prompt_completion", prompt_key="p", completion_key="c", image_keys=["i"])
    with pytest.raises(StageError, match="a NoneType is no picture"):
        prepared(tmp_path, [{"p": "?", "c": "!", "i": None}], how)
    assert prepared(tmp_path, [{"p": "?", "c": "!", "i": None}], how | {"images_optional": True})[0]["images"] == []


BAD_TEMPLATES = {
    "{{ a ": "no Jinja template",
    "{% include 'x' %}": "cannot have include",
    "{% macro m() %}{% endmacro %}": "cannot have macro",
    "{% for i in a %}{% for i in a %}{% for i in a %}{% endfor %}{% endfor %}{% endfor %}": "at most 2 loops",
    "{{ a | center(1000000000) }}": "no filter named 'center'|No filter named 'center'",
    "x" * 10_001: "10000 are allowed",
}


@pytest.mark.parametrize(("source", "reason"), BAD_TEMPLATES.items(), ids=[key[:30] for key in BAD_TEMPLATES])
def test_templates_that_do_more_than_write_are_refused(source, reason):
    with pytest.raises(ValueError, match=reason):
        RowTemplate(source)


BAD_RENDERINGS = {
    "{{ b }}": "'b' is undefined",
    "{{ 'x' * 10000000000 }}": "small numbers only",
    "{{ 9 ** 9999 }}": "small numbers only",
    "{{ a.ljust(1000000000) }}": "unsafe",
    "{{ ''.__class__.__mro__ }}": "unsafe",
    "{{ range(10) }}": "'range' is undefined",
    "{{ '%1000000000d' % 3 }}": "small numbers only",
    "{% for x in many %}{% for y in many %}{{ x }}{{ y }}{% endfor %}{% endfor %}": "more than 1000000 characters",
    "{{ a + 1 }}": "the template fails",
}


@pytest.mark.parametrize(("source", "reason"), BAD_RENDERINGS.items(), ids=list(BAD_RENDERINGS))
def test_templates_cannot_leave_the_row_or_grow_without_end(source, reason):
    with pytest.raises(ValueError, match=reason):
        RowTemplate(source).render({"a": "text", "many": ["0123456789"] * 2000})
