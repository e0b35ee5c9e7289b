"""What is learned of conversations and texts, looked at token by token.

Tests: sft.data.tokens.masking, sft.data.tokens.rendering, sft.terms.chat_templates
"""

import json
import random
from typing import Any

import pytest
from chats import POLICY, chat, text, tokenised, with_template

from sft.config.training_settings import Tokens
from sft.data.tokens import rendering, tokenization
from sft.embedded.tiny_models import make_processor
from sft.runtime.stage import StageError
from sft.terms import chat_templates

# As the model is published (HuggingFaceTB/SmolLM2-135M-Instruct, tokenizer_config.json, Apache-2.0).
SMOLLM2 = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou "
    "are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + "
    "message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# Shows earlier answers without what is between < and >, as Qwen3 and DeepSeek-R1 do with what was reasoned.
FORGETFUL = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if loop.last or m.role != 'assistant' %}{{ m.content }}"
    "{% else %}{{ m.content.split('>')[-1] }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="module")
def llama() -> Any:
    return make_processor("llama")


TWO = chat(("system", "S"), ("user", "1?"), ("assistant", "One."), ("user", "2?"), ("assistant", "Two."))


def learned(tokenizer: Any, row: dict[str, Any]) -> str:
    """What is learned of a row, the parts between masks set apart."""
    parts: list[list[int]] = [[]]
    for label in row["labels"]:
        if label != -100:
            parts[-1].append(label)
        elif parts[-1]:
            parts.append([])
    return "|".join(tokenizer.decode(part) for part in parts if part)


@pytest.mark.parametrize(
    ("loss_on", "expected"),
    [
        ("assistant", "One.<|im_end|>\n|Two.<|im_end|>\n"),
        ("last", "Two.<|im_end|>\n"),
        (
            "all",
            "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\n1?<|im_end|>\n<|im_start|>assistant\nOne.<|im_end|>\n"
            "<|im_start|>user\n2?<|im_end|>\n<|im_start|>assistant\nTwo.<|im_end|>\n",
        ),
    ],
)
def test_loss_on(llama, loss_on, expected):
    (row,), facts = tokenised(llama, [TWO], loss_on=loss_on)
    assert learned(llama, row) == expected
    assert facts["end_of_turn_supervised"] == 1


def test_which_answers_count_is_to_be_said(llama):
    with pytest.raises(StageError, match=r"id a: 2 turns of assistant, and training.loss_on is completion"):
        tokenised(llama, [TWO], loss_on="completion")


def random_chats(count: int) -> list[list[tuple[str, str]]]:
    draw = random.Random(0)
    words = ["One.", " two\n", "ünï 文字", "A 0", "<b>", "\n\nx", "assistant", "user\n"]
    chats = []
    for _ in range(count):
        said = [("system", draw.choice(words))] if draw.random() < 0.5 else []
        for _ in range(draw.randint(1, 4)):
            said += [(role, "".join(draw.choices(words, k=draw.randint(1, 5)))) for role in ("user", "assistant")]
        chats.append(said)
    return chats


def test_the_training_template_of_smollm2_writes_what_its_own_writes(llama):
    """And its marks enclose exactly the turns that are found without marks in the published template."""
    published = with_template(llama, SMOLLM2)
    training = with_template(llama, chat_templates.text_of("smollm2_training"))
    for said in random_chats(200):
        row = chat(*said)
        turns = json.loads(row["messages"])
        for asked, prompt in ((turns, False), (turns[:-1], True)):
            how = {"tokenize": False, "add_generation_prompt": prompt}
            assert training.apply_chat_template(asked, **how) == published.apply_chat_template(asked, **how)
        spans = rendering.rendered(published, row, "assistant").answers
        places = [place for place, turn in enumerate(turns) if turn["role"] == "assistant"]
        prompts = [training.apply_chat_template(turns[:n], tokenize=False, add_generation_prompt=True) for n in places]
        marked = rendering._marked_spans(training, row, turns, prompts)
        assert list(spans) == marked


def test_a_system_message_of_the_template_is_named(llama):
    added = rendering.text_added_by_the_template(with_template(llama, SMOLLM2))
    assert added == "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
    assert rendering.text_added_by_the_template(llama) == ""


def test_a_template_that_shows_earlier_answers_otherwise_is_refused_unless_it_has_marks(llama):
    row = chat(("user", "1?"), ("assistant", "<hm>One."), ("user", "2?"), ("assistant", "<hm>Two."))
    forgetful = with_template(llama, FORGETFUL)
    with pytest.raises(StageError, match=r"shows earlier turns otherwise.*trl/<family>_training.*loss_on to last"):
        tokenised(forgetful, [row])
    (last,), _ = tokenised(forgetful, [row], loss_on="last")
    assert learned(llama, last) == "<hm>Two.<|im_end|>\n"
    marked = FORGETFUL.replace(
        "{{ m.content }}{% else %}",
        "{% if m.role == 'assistant' %}{% generation %}{{ m.content }}"
        "<|im_end|>{% endgeneration %}{% else %}{{ m.content }}<|im_end|>{% endif %}{% else %}{% generation %}",
    ).replace(
        "{{ m.content.split('>')[-1] }}{% endif %}<|im_end|>",
        "{{ m.content.split('>')[-1] }}<|im_end|>{% endgeneration %}{% endif %}",
    )
    # What it shows otherwise would not be learned: the first answer is not what was said.
    with pytest.raises(StageError, match=r"shows answer 1 changed.*loss_on to last"):
        tokenised(with_template(llama, marked), [row])


def test_masks_are_those_of_trl(llama):
    """Those of assistant_only_loss with TRL's template of Qwen2.5, which also learns the newline before an answer."""
    tokenizer = with_template(llama, chat_templates.text_of("trl/qwen2_5_training"))
    turns = json.loads(TWO["messages"])
    made = tokenizer.apply_chat_template(turns, return_dict=True, return_assistant_tokens_mask=True)
    (row,), _ = tokenised(tokenizer, [TWO])
    assert row["input_ids"] == made["input_ids"]
    ours = [label != -100 for label in row["labels"]]
    newline = llama.encode("\n")[0]
    theirs = [bool(mark) for mark in made["assistant_masks"]]
    first = [i for i, mark in enumerate(theirs) if mark and not theirs[i - 1]]
    assert [row["input_ids"][i] for i in first] == [newline] * 2
    assert ours == [mark and i not in first for i, mark in enumerate(theirs)]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (
            chat(("user", "1?"), ("assistant", "One."), tools=[{"function": {"name": "f"}}]),
            "does not show the tool 'f'",
        ),
        (
            chat(("user", "1?"), ("assistant", "One."))
            | {
                "messages": json.dumps(
                    [
                        {"role": "user", "content": "1?"},
                        {"role": "assistant", "content": "One.", "reasoning_content": "hm"},
                    ]
                )
            },
            "does not show reasoning_content",
        ),
    ],
)
def test_what_the_template_leaves_out_is_an_error(llama, row, reason):
    with pytest.raises(StageError, match=f"id a: the chat template {reason}"):
        tokenised(llama, [row])


def test_a_template_that_drops_or_changes_text_is_refused(llama):
    template = (
        "{% for m in messages %}{% if m.role != 'system' %}<|im_start|>{{ m.content }}<|im_end|>{% endif %}{% endfor %}"
    )
    with pytest.raises(StageError, match="does not show what system says"):
        tokenised(with_template(llama, template), [TWO], loss_on="last")
    upper = llama.chat_template.replace("{{ m.content }}", "{{ m.content | upper }}")
    with pytest.raises(StageError, match=r"does not show what system says|shows the answer changed"):
        tokenised(with_template(llama, upper), [chat(("user", "1?"), ("assistant", "One."))], loss_on="last")


def test_a_template_that_fails_names_the_row(llama):
    template = "{% if messages | length > 2 %}{{ raise_exception('too many') }}{% endif %}" + llama.chat_template
    with pytest.raises(StageError, match=r"id a: the chat template fails on it \(too many\)"):
        tokenised(with_template(llama, template), [TWO])


def test_text_without_roles_is_learned_whole_and_closed(llama):
    (row,), facts = tokenised(llama, [text("A 0 B 1")], loss_on="completion")
    assert row["input_ids"] == row["labels"] == [*llama.encode("A 0 B 1"), llama.eos_token_id]
    assert facts["end_of_turn_supervised"] == 1


def test_plain_is_one_text_behind_the_other(llama):
    plain = with_template(llama, chat_templates.text_of("plain"))
    row = {"id": "a", "system": None, "prompt": "### Response:\n", "completion": "One.", "images": []}
    (made,), facts = tokenised(plain, [row], loss_on="completion")
    assert llama.decode(made["input_ids"]) == "### Response:\nOne.<|im_end|>"
    assert learned(llama, made) == "One.<|im_end|>"
    assert facts["end_of_turn_supervised"] == 1


def test_truncation_on_the_left_keeps_the_answer(llama):
    row = chat(("user", "0" * 300), ("assistant", "One."))
    with pytest.raises(StageError, match="no row is left"):
        tokenised(llama, [row], on_too_long="truncate")
    (left,), cut = tokenised(llama, [row], on_too_long="truncate", truncation_side="left")
    assert len(left["input_ids"]) == 256
    assert learned(llama, left) == "One.<|im_end|>\n"
    assert (cut["rows_truncated"], cut["rows_answer_truncated"]) == (1, 0)


def test_texts_that_were_read_are_kept_up_to_a_number_of_tokens(llama, monkeypatch):
    """A hundred thousand long conversations must not be held in memory for the sake of those that come again."""
    monkeypatch.setattr(tokenization, "TOKENS_KEPT", 2000)
    monkeypatch.setattr(tokenization, "ROWS_PER_BATCH", 10)
    made = tokenization.Tokenization(llama, Tokens.read_back(POLICY), "train")
    rows = [chat(("user", f"{n}?"), ("assistant", "7 " * 40), identifier=f"r{n % 50}") for n in range(400)]
    kept = []
    for row in made.tokenise(iter(rows)):
        kept.append(sum(len(masked.ids) for _, _, masked in made._masked.values()))
        assert llama.decode(list(row["input_ids"])).endswith("7 <|im_end|>\n")
    assert len(kept) == 400
    assert max(kept) < 2000 + 20 * 100
