"""Control tokens (`<|im_end|>`, `<s>`, `<image>`) that published text holds as if it were text.

A tokenizer reads them as what they are: a user's text could end the turn, or open another one. By default such rows
stop the run; `allow` trains on them as they are read, `neutralise` puts a space behind their first character
everywhere (`<|im_end|>` becomes `< |im_end|>`), in training and in evaluation alike.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from sft.data.read.turns import Turn, tools, turns, written_text


class ControlTokens:
    """The control tokens of a tokenizer, looked for in the text of rows."""

    def __init__(self, texts: list[str]):
        self.texts = sorted(texts)
        longest_first = sorted(texts, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first))) if texts else None

    def found(self, row: Mapping[str, Any]) -> list[str]:
        """The control tokens in a row's own text, in the order they come."""
        if not self._pattern:
            return []
        defined = json.dumps(tools(row), ensure_ascii=False) if tools(row) else ""
        return self._pattern.findall(written_text(row)) + self._pattern.findall(defined)

    def neutralised(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The row with all its texts neutralised."""
        made = dict(row)
        for key in ("prompt", "completion", "system"):
            if isinstance(row.get(key), str):
                made[key] = self._broken(row[key])
        if row.get("messages"):
            made["messages"] = json.dumps([self._turn(turn) for turn in turns(row)], ensure_ascii=False)
        if tools(row):
            made["tools"] = self._broken(json.dumps(tools(row), ensure_ascii=False))
        return made

    def _turn(self, turn: Turn) -> Turn:
        content = turn["content"]
        if isinstance(content, str):
            content = self._broken(content)
        else:
            content = [part | {"text": self._broken(part["text"])} if "text" in part else part for part in content]
        made = turn | {"content": content}
        if "reasoning_content" in turn:
            made["reasoning_content"] = self._broken(turn["reasoning_content"])
        if "tool_calls" in turn:
            made["tool_calls"] = json.loads(self._broken(json.dumps(turn["tool_calls"], ensure_ascii=False)))
        return made

    def _broken(self, text: str) -> str:
        return self._pattern.sub(lambda match: f"{match[0][0]} {match[0][1:]}", text) if self._pattern else text


def control_tokens_of(tokenizer: Any) -> list[str]:
    """The texts that a tokenizer reads as control tokens, wherever they stand."""
    special = {str(token) for token in tokenizer.all_special_tokens}
    special |= {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    return sorted(text for text in special if text.strip())
