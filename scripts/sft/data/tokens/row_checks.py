"""What has to hold of every row before it is learned: it is asked as it was trained, and read as it is written.

Two faults that no loss shows. A tokenizer may read the end of a prompt otherwise when an answer follows; evaluation,
which renders the prompt alone, would then ask with other tokens. And an answer as the template writes it may not be
read back as what the row says; a model that has learned it by heart would be scored as wrong.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Mapping
from typing import Any

from sft.data.read import turns
from sft.data.tokens.answer_format import AnswerFormat, written_text_of
from sft.data.tokens.control_tokens import control_tokens_of
from sft.data.tokens.masking import MaskedTokens
from sft.data.tokens.rendering import Rendered, remedy
from sft.runtime.stage import StageError

# So many rows have their answer read back.
ROWS_READ_BACK = 200
# Characters before an answer in which its last control token is looked for first. What is between is the same in most
# rows, and is remembered.
WINDOW = 256


class RowChecks:
    """Checks the rows of one split, one after the other."""

    def __init__(self, processor: Any):
        self.tokenizer = getattr(processor, "tokenizer", processor)
        self.format = AnswerFormat(processor)
        texts = sorted(control_tokens_of(self.tokenizer), key=len, reverse=True)
        self._control = re.compile("|".join(map(re.escape, texts))) if texts else None
        self._known: dict[str, array] = {}
        self._read_back = 0

    def check(self, row: Mapping[str, Any], text: Rendered, masked: MaskedTokens) -> None:
        """StageError for a row that would be asked, or read, otherwise than it is trained on."""
        for (start, _), (first, _) in zip(text.answers, masked.answers, strict=True):
            alone = self._alone(text.full, start)
            if masked.ids[max(0, first - len(alone)) : first] != alone:
                raise StageError(
                    f"id {row['id']}: the prompt alone has other tokens than before its answer "
                    f"(…{text.full[max(0, start - 20) : start + 20]!r}…), so the model would be asked with another "
                    f"prompt than it was trained with. {remedy(text.full[:start])}"
                )
        if self._read_back >= ROWS_READ_BACK or turns.answer(row).get("tool_calls"):
            return  # calls that are not read back are compared as the template writes them
        self._read_back += 1
        try:
            self.format.expected(row, written_text_of(self.tokenizer, masked), text.prompt)
        except ValueError as error:
            raise StageError(f"id {row['id']}: {error}. Give another template with model.chat_template") from None

    def _alone(self, full: str, end: int) -> array:
        """The tokens of the end of a prompt, from its last control token on: what comes before that cannot join it."""
        start = self._last_control_token(full, end)
        asked = full[start:end]
        known = self._known.get(asked)
        if known is None:
            known = array("i", self.tokenizer(text=asked, add_special_tokens=False)["input_ids"])
            if len(asked) <= WINDOW:
                self._known[asked] = known
        return known

    def _last_control_token(self, full: str, end: int) -> int:
        if self._control is None:
            return 0
        for begin in dict.fromkeys((max(0, end - WINDOW), 0)):
            if found := [match.start() for match in self._control.finditer(full, begin, end)]:
                return found[-1]
        return 0
