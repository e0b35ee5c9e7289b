"""Planted faults of labels are found, told and shown; allowed ones are not.

Tests: sft.config.label_audit_settings, sft.data.audit.label_page, sft.data.audit.label_verdict,
sft.data.tokens.label_counts
"""

from copy import deepcopy
from typing import Any

import pytest
from chats import chat, tokenised

from sft.config.label_audit_settings import LabelAudit
from sft.data.audit import label_page, label_verdict
from sft.data.tokens import rendering
from sft.embedded.tiny_models import make_processor


@pytest.fixture(scope="module")
def llama() -> Any:
    return make_processor("llama")


UNCLOSED = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
GOOD = [chat(("user", "1?"), ("assistant", "One."), identifier=f"g{i}") for i in range(200)]
LONG_ANSWER = [chat(("user", "1?"), ("assistant", "7" * 300), identifier=f"l{i}") for i in range(3)]
LONG_PROMPT = [chat(("user", "7" * 300), ("assistant", "One."), identifier="p")]


def labels(processor: Any, rows: list[dict[str, Any]], **policy: Any) -> dict[str, Any]:
    from sft.data.tokens.tokenization import special_token_ids

    _, facts = tokenised(processor, rows, **policy)
    added = rendering.text_added_by_the_template(processor)
    return {
        "splits": {"train": facts},
        "special_token_ids": special_token_ids(processor),
        "added_by_the_template": added,
    }


PLANTED = {
    "nothing": (None, GOOD, {}, None),
    "cut answers": (
        None,
        GOOD + LONG_ANSWER,
        {"on_too_long": "truncate"},
        "train: 3 of 203 answers are cut.*ids l0, l1",
    ),
    "nothing to learn": (
        None,
        GOOD + LONG_PROMPT,
        {"on_too_long": "truncate"},
        "1 of 201 rows have no token to learn .ids p",
    ),
    "no end of turn": (UNCLOSED, GOOD, {}, "the end of the turn is learned in 0 of 200 rows"),
    "two beginnings": ("{{ bos_token }}{{ bos_token }}", GOOD, {}, "200 of 200 rows begin with two beginning-of-text"),
}


@pytest.mark.parametrize(("template", "rows", "policy", "reason"), PLANTED.values(), ids=PLANTED)
def test_planted_faults_of_labels_are_found(llama, template, rows, policy, reason):
    processor = deepcopy(llama)
    if template and template.startswith("{{ bos"):
        processor.bos_token = "<|endoftext|>"
        template += llama.chat_template
    processor.chat_template = template or llama.chat_template
    made = labels(processor, rows, **policy)
    found = label_verdict.judged(made, LabelAudit())
    complaint = label_verdict.complaint(found)
    page = label_page.page("Labels", made, found, {})
    if reason is None:
        assert complaint == ""
        assert "All thresholds are held" in page
        assert "<b>One.&lt;|im_end|&gt;\n</b>" in page
    else:
        import re

        assert re.search(reason, complaint), complaint
        assert "Training is stopped" in page
    allowed = LabelAudit(
        maximum_truncated_answers=1, maximum_fully_masked=999, minimum_end_of_turn=0, maximum_double_bos=999
    )
    assert label_verdict.complaint(label_verdict.judged(made, allowed)) == ""
