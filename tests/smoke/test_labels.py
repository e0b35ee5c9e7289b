"""What is learned of conversations, texts and packs, looked at token by token; planted faults of labels are found."""

import json
import random
from copy import deepcopy
from typing import Any

import pyarrow
import pytest

from sft.data import label_audit, label_page, rendering
from sft.data.packing import pack
from sft.data.tokenization import Tokenization
from sft.models import chat_templates
from sft.models.tiny_models import make_processor
from sft.stage import StageError

POLICY = {"max_length": 256, "on_too_long": "error", "loss_on": "assistant"}
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


TWO = chat(("system", "S"), ("user", "1?"), ("assistant", "One."), ("user", "2?"), ("assistant", "Two."))


def tokenised(processor: Any, examples: list[dict[str, Any]], **policy: Any) -> tuple[list[dict], dict[str, Any]]:
    tokenization = Tokenization(processor, POLICY | policy, "train")
    return list(tokenization.tokenise(examples)), tokenization.facts()


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
        marked = rendering._marked_spans(training, row, turns, len(spans))
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
    (both,), _ = tokenised(with_template(llama, marked), [row])
    assert learned(llama, both) == "One.<|im_end|>|<hm>Two.<|im_end|>"


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


# Packs


def table(rows: list[dict[str, Any]]) -> pyarrow.Table:
    return pyarrow.Table.from_pylist([{name: row[name] for name in ("id", "input_ids", "labels")} for row in rows])


@pytest.mark.parametrize("strategy", ["bfd_split", "bfd", "wrapped"])
def test_packs_hold_every_token_and_label_once(llama, strategy):
    policy = {"max_length": 64, "packing": strategy, "on_too_long": "drop" if strategy == "bfd" else "error"}
    rows, _ = tokenised(llama, [text("0 " * (5 + 7 * i), f"r{i}") for i in range(12)], **policy)
    packs, facts = pack(table(rows), 64, strategy)
    made = packs.to_pylist()
    assert sorted(n for one in made for n in one["input_ids"]) == sorted(n for row in rows for n in row["input_ids"])
    assert all(len(one["input_ids"]) == sum(one["seq_lengths"]) <= 64 for one in made)
    assert facts["rows"] == len(rows)
    assert facts["fill_rate"] == sum(len(row["input_ids"]) for row in rows) / (64 * len(made))
    by_row: dict[str, list[int]] = {}
    for one in made:
        place = 0
        for name, length in zip(one["id"].split(" + "), one["seq_lengths"], strict=True):
            by_row.setdefault(name, []).extend(one["labels"][place : place + length])
            place += length
    assert {name: len(labels) for name, labels in by_row.items()} == {row["id"]: len(row["labels"]) for row in rows}


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_packed_and_unpacked_losses_and_gradients_agree(llama, attention):
    import torch

    from sft.models.tiny_models import make_model
    from sft.training.collate import REAL_TOKENS, SAMPLE_IDS, Collator
    from sft.training.packed import unpacked

    source = {"initialise": "llama", "hidden_size": 64, "num_layers": 2, "initializer_range": 0.1, "seed": 0}
    model = make_model(source, llama)
    model.set_attn_implementation(attention)
    rows, _ = tokenised(
        llama, [chat(("user", "0 " * i), ("assistant", "7 " * (9 - i)), identifier=f"r{i}") for i in range(1, 9)]
    )
    packs = pack(table(rows), 64, "bfd_split")[0].to_pylist()
    assert max(len(one["seq_lengths"]) for one in packs) > 1
    found = []
    for batch in ([packs], [[row] for one in packs for row in unpacked(one)]):
        model.zero_grad()
        total = 0.0
        for part in batch:
            inputs = {k: v for k, v in Collator(llama)(part).items() if k not in (SAMPLE_IDS, REAL_TOKENS)}
            labels = inputs.pop("labels")[:, 1:]
            logits = model(**inputs, use_cache=False).logits[:, :-1]
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")
            loss.backward()
            total += float(loss.detach())
        norm = torch.linalg.vector_norm(torch.stack([p.grad.norm() for p in model.parameters()]))
        found.append((total, float(norm)))
    assert found[0] == pytest.approx(found[1], rel=1e-5)


def test_rows_that_see_each_other_stop_a_packed_run(llama):
    from sft.models.tiny_models import make_model
    from sft.training.collate import Collator
    from sft.training.packed import require_separate_rows

    class Blind(Collator):
        """Forgets where the rows of a pack begin, as an attention without packing would."""

        def __call__(self, rows):
            batch = super().__call__(rows)
            batch.pop("position_ids", None)
            return batch

    source = {"initialise": "llama", "hidden_size": 64, "num_layers": 2, "initializer_range": 0.1, "seed": 0}
    model = make_model(source, llama)
    log_probs(model)
    rows, _ = tokenised(llama, [chat(("user", "0 1"), ("assistant", "7 8"), identifier=f"r{i}") for i in range(4)])
    packs = pack(table(rows), 64, "bfd_split")[0].to_pylist()
    found = require_separate_rows(model, Collator(llama), packs, dict, "float32")
    assert found["packed_loss"] == pytest.approx(found["loss_of_rows_alone"], rel=1e-5)
    with pytest.raises(StageError, match="rows of a pack see each other"):
        require_separate_rows(model, Blind(llama), packs, dict, "float32")


def log_probs(model: Any) -> None:
    """Give a bare model the output that TRL's head gives: the log-probabilities of the labels."""
    plain = model.forward

    def forward(*args: Any, labels: Any, fused_lm_head: bool, **kwargs: Any) -> Any:
        made = plain(*args, **kwargs)
        kept = labels[:, 1:] != -100
        chosen = made.logits[:, :-1].log_softmax(-1).gather(2, labels[:, 1:].clamp(min=0)[:, :, None])[..., 0]
        made.log_probs = chosen[kept]
        return made

    model.forward = forward


# The label audit

LIMITS = {
    "maximum_truncated_answers": 0.01,
    "maximum_fully_masked": 0,
    "minimum_end_of_turn": 0.99,
    "maximum_double_bos": 0,
}
UNCLOSED = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
GOOD = [chat(("user", "1?"), ("assistant", "One."), identifier=f"g{i}") for i in range(200)]
LONG_ANSWER = [chat(("user", "1?"), ("assistant", "7" * 300), identifier=f"l{i}") for i in range(3)]
LONG_PROMPT = [chat(("user", "7" * 300), ("assistant", "One."), identifier="p")]


def labels(processor: Any, rows: list[dict[str, Any]], **policy: Any) -> dict[str, Any]:
    from sft.data.tokenization import special_token_ids

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
    found = label_audit.judged(made, LIMITS)
    complaint = label_audit.complaint(found)
    page = label_page.page("Labels", made, found, {})
    if reason is None:
        assert complaint == ""
        assert "All thresholds are held" in page
        assert "<b>One.&lt;|im_end|&gt;\n</b>" in page
    else:
        import re

        assert re.search(reason, complaint), complaint
        assert "Training is stopped" in page
    allowed = {
        "maximum_truncated_answers": 1,
        "maximum_fully_masked": 999,
        "minimum_end_of_turn": 0,
        "maximum_double_bos": 999,
    }
    assert label_audit.complaint(label_audit.judged(made, allowed)) == ""


def test_target_scores_are_the_loss_of_the_same_labels(llama):
    """In batches and with padding as row by row: log-likelihood, tokens, and how many of them are the likeliest."""
    import torch

    from sft.evaluation.targets import Targets
    from sft.models.tiny_models import make_model

    source = {"initialise": "llama", "hidden_size": 64, "num_layers": 2, "initializer_range": 0.1, "seed": 0}
    model = make_model(source, llama).eval()
    rows = [chat(("user", "0 " * n), ("assistant", "7 " * (4 - n)), identifier=f"r{n}") for n in range(1, 4)]
    rows += [text("A 0 B 1", "t")]
    found = Targets(rows, llama, 3).score(model, "cpu", without={"r2"})
    assert set(found) == {"r1", "r3", "t"}
    for row in rows:
        if row["id"] not in found:
            continue
        (made,), _ = tokenised(llama, [row], loss_on="last")
        ids, labels = torch.tensor([made["input_ids"]]), torch.tensor([made["labels"]])
        with torch.no_grad():
            logits = model(ids).logits[0, :-1]
        counts = labels[0, 1:] != -100
        loss = torch.nn.functional.cross_entropy(logits[counts], labels[0, 1:][counts], reduction="sum")
        score = found[row["id"]]
        assert score.tokens == int(counts.sum())
        assert score.right == int((logits[counts].argmax(-1) == labels[0, 1:][counts]).sum())
        assert score.log_likelihood == pytest.approx(-float(loss), rel=1e-5)
