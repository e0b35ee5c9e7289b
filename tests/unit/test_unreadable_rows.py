"""Whatever one row makes happen is that row's fault: named with file, row and reason, and left out where asked."""

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_formats import config, picture, preparation

from sft.runtime.stage import StageError

DEEP = "[" * 200_000 + "]" * 200_000
CHAT = config("conversation", messages_key="m", tools_key="t")
ASKED = config("prompt_completion", prompt_key="p", completion_key="c")
CHOICES = config("multiple_choice", prompt_key="p", choice_key="c", answer_key="a")
GOOD = {
    "conversation": {"m": [{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}], "t": None},
    "prompt_completion": {"p": "?", "c": "!"},
    "multiple_choice": {"p": "?", "c": ["x", "y"], "a": "x"},
}


def calling(arguments: Any) -> dict[str, Any]:
    call = {"function": {"name": "f", "arguments": arguments}}
    said = [{"role": "user", "content": "?"}, {"role": "assistant", "content": None, "tool_calls": [call]}]
    return {"m": said, "t": [{"name": "f"}]}


# name -> (data set, the row as a line of JSON, reason)
LINES: dict[str, tuple[dict[str, Any], str, str]] = {
    "half a surrogate pair in an answer": (ASKED, '{"p": "?", "c": "\\ud83d"}', "half of a surrogate pair"),
    "half a surrogate pair in a turn": (
        CHAT,
        json.dumps({"m": [{"role": "user", "content": "\ud83d"}, {"role": "assistant", "content": "!"}], "t": None}),
        "half of a surrogate pair",
    ),
    "half a surrogate pair in a choice": (
        CHOICES,
        '{"p": "?", "c": ["x", "\\udc00"], "a": "x"}',
        "half of a surrogate pair",
    ),
    "NaN as an answer": (CHOICES, '{"p": "?", "c": ["x", "y"], "a": NaN}', "answer nan is not an index"),
    "infinity as an answer": (CHOICES, '{"p": "?", "c": ["x", "y"], "a": Infinity}', "answer inf is not an index"),
    "an index beyond the choices": (CHOICES, '{"p": "?", "c": ["x", "y"], "a": 1e300}', "is not an index"),
    "a key that is there twice": (ASKED, '{"p": "?", "c": "!", "c": "no"}', "the key 'c' is there twice"),
    "a key twice within": (
        CHAT,
        '{"m": [{"role": "user", "role": "tool"}], "t": null}',
        "the key 'role' is there twice",
    ),
    "a number of 10,000 digits": (ASKED, f'{{"p": "?", "c": {"1" * 10_000}}}', "digits"),
    "nesting without end": (ASKED, f'{{"p": "?", "c": {DEEP}}}', "recursion|not text"),
    "nesting within a text": (CHAT, json.dumps({"m": DEEP, "t": None}), "neither a list nor its JSON text|turn 1"),
    "a role that is a list": (CHAT, '{"m": [{"role": ["user"], "content": "?"}], "t": null}', "role is a list"),
    "a role that is nothing": (CHAT, '{"m": [{"role": null, "content": "?"}], "t": null}', "role is empty"),
    "a turn that is a number": (CHAT, '{"m": [1], "t": null}', "turn 1: a int"),
    "a conversation that is a mapping": (CHAT, '{"m": {"role": "user"}, "t": null}', "turn 1|not a list of turns"),
    "tools that are a mapping": (CHAT, json.dumps(GOOD["conversation"] | {"t": {"name": "f"}}), "tool"),
    "arguments that are a list": (CHAT, json.dumps(calling([1])), "the arguments of f are a list"),
    "arguments that are no JSON": (CHAT, json.dumps(calling("{")), "the arguments of a tool call"),
    "a line that is a list": (ASKED, "[1]", "is a list, not an object"),
    "a line that is cut": (ASKED, '{"p": "?", "c', "is not JSON"),
    "a bool as a choice": (CHOICES, '{"p": "?", "c": "[true, false]", "a": 0}', "true and false are no texts"),
}


def faults(folder: Path, how: dict[str, Any]) -> str:
    with pytest.raises(StageError) as found:
        list(preparation(how, folder).examples())
    return str(found.value)


@pytest.mark.parametrize("name", LINES)
def test_a_line_is_named_and_can_be_left_out(tmp_path: Path, name: str):
    how, line, reason = LINES[name]
    good = json.dumps(GOOD[how["format"]])
    (tmp_path / "rows.jsonl").write_text(f"{good}\n{line}\n{good}\n")
    told = faults(tmp_path, how)
    assert told.startswith("1 rows cannot be read with certainty:\n  rows.jsonl, row 1: ")
    assert re.search(reason, told), told
    told.encode()  # can be printed
    made = preparation(how | {"on_bad_row": "drop"}, tmp_path)
    assert len(list(made.examples())) == 2
    assert made.facts()["rows_dropped"] == {"rows.jsonl": 1}


# What no text can hold, and a columnar table can.
CELLS: dict[str, tuple[dict[str, Any], list[dict[str, Any]], str]] = {
    "a time among arguments": (
        CHAT,
        [calling({"when": datetime(2026, 1, 2, tzinfo=UTC)}), calling({"when": None})],
        "datetime",
    ),
    "a float with a hole": (CHOICES, [GOOD["multiple_choice"] | {"a": v} for v in (float("nan"), 0.0)], "answer nan"),
    "infinity": (CHOICES, [GOOD["multiple_choice"] | {"a": v} for v in (float("inf"), 1.0)], "answer inf"),
    "a picture that was cut": (
        ASKED | {"columns": ASKED["columns"] | {"image_keys": ["i"]}},
        [{"p": "?", "c": "!", "i": picture(40)[:60]}, {"p": "?", "c": "!", "i": picture(40)}],
        "column 'i': 60 bytes that are no picture",
    ),
}


@pytest.mark.parametrize("name", CELLS)
def test_a_cell_is_named_and_can_be_left_out(tmp_path: Path, name: str):
    how, rows, reason = CELLS[name]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "rows.parquet")
    told = faults(tmp_path, how)
    assert "rows.parquet, row 0: " in told
    assert reason in told
    assert len(list(preparation(how | {"on_bad_row": "drop"}, tmp_path).examples())) == len(rows) - 1


def test_a_damaged_page_costs_its_row_group_alone(tmp_path: Path):
    rows = [{"p": f"? {n} " + "x" * 300, "c": "!"} for n in range(300)]
    path = tmp_path / "rows.parquet"
    pyarrow.parquet.write_table(
        pyarrow.Table.from_pylist(rows), path, row_group_size=100, compression="zstd", use_dictionary=False
    )
    column = pyarrow.parquet.ParquetFile(path).metadata.row_group(1).column(0)
    whole = bytearray(path.read_bytes())
    start = column.data_page_offset
    whole[start + 20 : start + column.total_compressed_size - 4] = b"\x5a" * (column.total_compressed_size - 24)
    path.write_bytes(bytes(whole))
    assert "rows.parquet, row 100: row group 1 of the file is damaged" in faults(tmp_path, ASKED)
    made = preparation(ASKED | {"on_bad_row": "drop"}, tmp_path)
    kept = [example["prompt"] for example in made.examples()]
    assert kept == [row["p"] for row in (*rows[:100], *rows[200:])]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["x", "0", "user"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["role", "content", "name", "arguments", "function", "type", "x"]), inner)
    ),
    max_leaves=8,
)


@pytest.mark.slow
@pytest.mark.parametrize("name", GOOD)
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_row_is_read_or_named(tmp_path: Path, name: str, data: Any):
    """A thousand rows of each format, each a good one with anything in one or all of its cells."""
    how = {"conversation": CHAT, "prompt_completion": ASKED, "multiple_choice": CHOICES}[name]
    rows = [dict(GOOD[name]) for _ in range(10)]
    for row in rows:
        for cell in data.draw(st.sets(st.sampled_from(sorted(row)), min_size=1)):
            row[cell] = data.draw(JSON)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in (GOOD[name], *rows)))
    made = preparation(how | {"on_bad_row": "drop"}, tmp_path)
    try:
        found = list(made.examples())
    except StageError as error:
        assert "some answers are letters" in str(error)  # noqa: PT017 (what is uncertain for all rows)
        return
    assert len(found) + made.facts()["rows_dropped"].get("rows.jsonl", 0) == 11
    assert json.dumps(made.facts()).encode()
    for example in found:
        assert all(value.encode() is not None for value in example.values() if isinstance(value, str))
