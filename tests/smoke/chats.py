"""Rows without pictures, and what becomes of them when they are tokenised, in a line each."""

import json
from copy import deepcopy
from typing import Any

from sft.config.training_settings import Tokens
from sft.data.tokens.tokenization import Tokenization

POLICY = {"max_length": 256, "on_too_long": "error", "loss_on": "assistant"}


def with_template(tokenizer: Any, template: str) -> Any:
    other = deepcopy(tokenizer)
    other.chat_template = template
    return other


def chat(*said: tuple[str, str], identifier: str = "a", tools: Any = None, images: tuple = ()) -> dict[str, Any]:
    turns = [{"role": role, "content": content} for role, content in said]
    return {
        "id": identifier,
        "prompt": said[-2][1],
        "completion": said[-1][1],
        "messages": json.dumps(turns),
        "tools": json.dumps(tools) if tools else None,
        "images": list(images),
        "system": None,
    }


def text(content: str, identifier: str = "a") -> dict[str, Any]:
    return {"id": identifier, "prompt": None, "completion": content, "messages": None, "images": [], "system": None}


def tokenised(processor: Any, examples: list[dict[str, Any]], **policy: Any) -> tuple[list[dict], dict[str, Any]]:
    tokenization = Tokenization(processor, Tokens.read_back(POLICY | policy), "train")
    rows = [
        row | {name: list(row[name]) for name in ("input_ids", "labels")} for row in tokenization.tokenise(examples)
    ]
    return rows, tokenization.facts()
