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


AREA = {"name": "area", "parameters": {"type": "object", "properties": {"side": {"type": "number"}}}}
SIDE = json.dumps({"name": "area", "arguments": {"side": 3, "unit": None}})


@pytest.mark.parametrize(
    ("how", "said"),
    [
        # LLaMA-Factory's form of ShareGPT, and ms-swift's of messages.
        (
            config("sharegpt", tools_key="tools"),
            {
                "conversations": [
                    ("human", "How large?"),
                    ("function_call", SIDE),
                    ("observation", "9"),
                    ("gpt", "9."),
                ]
            },
        ),
        (
            config("conversation", messages_key="m", tools_key="tools"),
            {"m": [("user", "How large?"), ("tool_call", SIDE), ("tool_response", "9"), ("assistant", "9.")]},
        ),
        (
            config("sharegpt", tools_key="tools", roles={"function_call": "assistant"}),
            {
                "conversations": [
                    ("human", "How large?"),
                    ("function_call", SIDE),
                    ("observation", "9"),
                    ("gpt", "9."),
                ]
            },
        ),
        (
            config("sharegpt", tools_key="tools"),
            {
                "conversations": [
                    ("human", "How large?"),
                    ("function_call", f"[{SIDE}]"),
                    ("tool", "9"),
                    ("gpt", "9."),
                ]
            },
        ),
    ],
)
def test_calls_that_are_turns_of_their_own(tmp_path, how, said):
    (column, listed), *_ = said.items()
    names = ("from", "value") if column == "conversations" else ("role", "content")
    made = [dict(zip(names, turn, strict=True)) for turn in listed]
    (row,) = prepared(tmp_path, [{column: made, "tools": json.dumps([AREA])}], how)
    read = turns.turns(row)
    assert [turn["role"] for turn in read] == ["user", "assistant", "tool", "assistant"]
    assert read[1]["content"] == ""
    assert read[1]["tool_calls"][0]["function"] == {"name": "area", "arguments": {"side": 3, "unit": None}}
    assert turns.tools(row) == [{"type": "function", "function": AREA}]


def test_calls_at_once_are_one_turn(tmp_path):
    said = [
        ("user", "Both?"),
        ("tool_call", SIDE),
        ("tool_call", SIDE),
        ("tool_response", "9"),
        ("tool_response", "9"),
    ]
    made = [{"role": role, "content": content} for role, content in [*said, ("assistant", "9 and 9.")]]
    how = config("conversation", messages_key="m", tools_key="tools")
    (row,) = prepared(tmp_path, [{"m": made, "tools": [AREA]}], how)
    assert [len(turn.get("tool_calls", ())) for turn in turns.turns(row)] == [0, 2, 0, 0, 0]


@pytest.mark.parametrize(
    ("content", "reason"),
    [("not json", "turn 2: the function_call: neither"), ("[]", "turn 2: the function_call calls nothing")],
)
def test_a_call_that_is_none_is_named(tmp_path, content, reason):
    said = [{"from": "human", "value": "?"}, {"from": "function_call", "value": content}, {"from": "gpt", "value": "!"}]
    with pytest.raises(StageError, match=reason):
        prepared(tmp_path, [{"conversations": said, "tools": [AREA]}], config("sharegpt", tools_key="tools"))


def test_nulls_that_are_written_are_meant(tmp_path):
    """In JSON lines nothing pads a mapping, and JSON text within a table is as its author wrote it."""
    definition = AREA | {"parameters": {"type": "object", "properties": {"side": {"default": None}}}}
    given = {"name": "area", "arguments": {"side": None}}
    how = config("conversation", messages_key="m", tools_key="tools")

    def said(call: Any) -> list[dict[str, Any]]:
        return [{"role": "user", "content": "?"}, {"role": "assistant", "content": "", "tool_calls": [call]}]

    lines = tmp_path / "lines"
    lines.mkdir()
    forms = [said(given), said(given | {"arguments": json.dumps(given["arguments"])}), json.dumps(said(given))]
    made = prepared(lines, [{"m": one, "tools": [definition]} for one in forms], how)
    texts = [{"m": json.dumps(said(given)), "tools": json.dumps([definition])}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(texts), tmp_path / "rows.parquet")
    (tmp_path / "lines/rows.jsonl").unlink()
    made += list(preparation(how, tmp_path).examples())
    assert len(made) == 4
    for row in made:
        assert turns.answer(row)["tool_calls"][0]["function"]["arguments"] == {"side": None}
        assert turns.tools(row) == [{"type": "function", "function": definition}]


def test_answers_that_are_letters_and_numbers_are_not_guessed(tmp_path):
    """As ARC has them: "1" is the first choice there, and would be the second one by its index."""
    rows = [{"p": f"{n}?", "c": ["iron", "wood", "wool"], "a": answer} for n, answer in enumerate(["A", "1", "wood"])]
    how = config("multiple_choice", prompt_key="p", choice_key="c", answer_key="a")
    for on_bad_row in ("error", "drop"):
        with pytest.raises(
            StageError, match=r"some answers are letters \('A'\) and some are numbers \('1'\).*as letters"
        ):
            prepared(tmp_path, rows, how | {"on_bad_row": on_bad_row})
    with pytest.raises(StageError, match=r"^rows\.jsonl, row 1: answer_key"):
        prepared(tmp_path, rows, how)
    labelled = [
        {"p": "0?", "c": ["iron", "wood"], "a": "B", "l": ["A", "B"]},
        {"p": "1?", "c": ["iron", "wood"], "a": "1", "l": ["1", "2"]},
        {"p": "2?", "c": ["iron", "wood"], "a": 2, "l": [1, 2]},
    ]
    own = how | {"columns": how["columns"] | {"label_key": "l"}}
    assert [row["answer"] for row in prepared(tmp_path, labelled, own)] == ["B", "A", "B"]
    for change, reason in (({"a": "C"}, "none of the labels A, B"), ({"l": ["A", "A"]}, "not one for each of the 2")):
        with pytest.raises(StageError, match=reason):
            prepared(tmp_path, [labelled[0] | change], own)
    assert [row["answer"] for row in prepared(tmp_path, rows[:1] + rows[2:], how)] == ["A", "B"]
    assert [row["answer"] for row in prepared(tmp_path, rows[1:], how)] == ["B", "B"]


def test_rows_without_ids_are_named_by_file_and_number(tmp_path):
    how = config("prompt_completion", prompt_key="p", completion_key="c", id_key="id")
    (tmp_path / "other.jsonl").write_text(json.dumps({"id": "own", "p": "?", "c": "!"}) + "\n")
    (tmp_path / "rows.jsonl").write_text(json.dumps({"p": "?", "c": "!"}) + "\n")
    made = preparation(how, tmp_path)
    assert [row["id"] for row in made.examples()] == ["own", "rows-0000000"]
    assert made.facts()["ids"] == "file name and row number: no column 'id' in rows.jsonl"
    # A column that is named and is not there is an error; so is a row without an id among rows with one.
    with pytest.raises(StageError, match="no column 'key'"):
        list(preparation(how | {"columns": how["columns"] | {"id_key": "key"}}, tmp_path).examples())
    (tmp_path / "rows.jsonl").write_text('{"id": 1, "p": "?", "c": "!"}\n{"p": "?", "c": "!"}\n')
    with pytest.raises(StageError, match=r"rows\.jsonl, row 1: no column 'id'"):
        list(preparation(how, tmp_path).examples())


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
