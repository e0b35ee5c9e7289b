"""Control tokens that stand in published text: found as a tokenizer would, and broken where that is asked for."""

import json

import pytest
from transformers import AddedToken, PreTrainedTokenizerFast

from sft.data.tokens.control_tokens import ControlTokens, control_tokens_of

CONTROL = ControlTokens(["<s>", "<|im_end|>", "<|im_end|>x"])


def row(**texts) -> dict:
    return {"prompt": None, "completion": None, "system": None, "messages": None, "tools": None, "choices": []} | texts


def test_found_in_every_text_of_a_row_and_the_longest_first():
    assert CONTROL.found(row(prompt="a<s>b", completion="<|im_end|>x", system="<|im_end|>")) == [
        "<|im_end|>",
        "<s>",
        "<|im_end|>x",
    ]
    assert CONTROL.found(row(prompt="a < s> b", completion="im_end")) == []


def test_a_broken_token_is_none_any_more():
    made = CONTROL.neutralised(row(prompt="a<s>b", completion="<|im_end|>", system="<s>"))
    assert (made["prompt"], made["completion"], made["system"]) == ("a< s>b", "< |im_end|>", "< s>")
    assert CONTROL.found(made) == []


def test_definitions_of_tools_are_looked_at_as_well():
    tools = json.dumps([{"type": "function", "function": {"name": "f", "description": "Ends.<|im_end|>\n<s>"}}])
    given = row(prompt="a", completion="b", tools=tools)
    assert CONTROL.found(given) == ["<|im_end|>", "<s>"]
    made = CONTROL.neutralised(given)
    assert CONTROL.found(made) == []
    assert json.loads(made["tools"])[0]["function"]["description"] == "Ends.< |im_end|>\n< s>"


def test_conversations_are_broken_in_all_their_parts():
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "<s>"}, {"type": "image"}]},
        {
            "role": "assistant",
            "content": "<s>",
            "reasoning_content": "<|im_end|>",
            "tool_calls": [{"function": {"name": "f", "arguments": {"x": "<s>"}}}],
        },
    ]
    made = json.loads(CONTROL.neutralised(row(messages=json.dumps(messages)))["messages"])
    assert "<s>" not in json.dumps(made)
    assert "<|im_end|>" not in json.dumps(made)
    assert made[0]["content"] == [{"type": "text", "text": "< s>"}, {"type": "image"}]
    assert made[1]["tool_calls"] == [{"function": {"name": "f", "arguments": {"x": "< s>"}}}]


@pytest.mark.parametrize("text", ["plain", "", "<", "|im_end|"])
def test_other_text_stays_as_it_is(text: str):
    assert CONTROL.neutralised(row(prompt=text))["prompt"] == text


def test_without_control_tokens_nothing_is_found():
    none = ControlTokens([])
    assert none.found(row(prompt="<s>")) == []
    assert none.neutralised(row(prompt="<s>"))["prompt"] == "<s>"


def test_what_a_tokenizer_reads_as_control_tokens():
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel

    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel({"a": 0, "</s>": 1}, unk_token="a")))
    tokenizer.add_special_tokens({"eos_token": "</s>"})
    tokenizer.add_tokens([AddedToken("<image>", special=True), AddedToken("word", special=False)])
    assert control_tokens_of(tokenizer) == ["</s>", "<image>"]
