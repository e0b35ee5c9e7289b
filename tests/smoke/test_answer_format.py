"""What is learned and what is read, for every chat template that TRL ships and for ours.

An oracle of its own looks at what each template makes of conversations of many shapes: every answer that counts is in
what is learned, nothing of others is, and the answer read back is the one that was to be learned. A stand-in that
writes every target to the letter is right in everything that is asked.

Tests: sft.data.tokens.answer_format, sft.data.tokens.row_checks, sft.data.tokens.shown, sft.evaluation.asked_rows
"""

import copy
import json
import re
from typing import Any

import pytest
import torch
from chats import with_template
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from sft.config.training_settings import Tokens
from sft.conversion.export import ends
from sft.data.tokens import masking, rendering
from sft.data.tokens.answer_format import Answer, AnswerFormat, written_text_of
from sft.data.tokens.tokenization import Tokenization
from sft.embedded.tiny_models import make_processor
from sft.evaluation.asked_rows import AskedRows
from sft.evaluation.scoring import METRICS, STRICT, marks
from sft.evaluation.targets import Targets
from sft.runtime.stage import StageError
from sft.terms import chat_templates

# The control tokens of the model families, so that templates meet a tokenizer that knows them as such.
CONTROL = (
    *("<|im_start|>", "<|im_end|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>", "<start_of_turn>"),
    *("<end_of_turn>", "<|turn>", "<turn|>", "<|tool_response>", "<|user|>", "<|assistant|>", "<|observation|>"),
    *("<|system|>", "<|return|>", "<|call|>", "<|start|>", "<|end|>", "<|channel|>", "<|message|>", "<|endoftext|>"),
    *("<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>", "<|END_OF_TURN_TOKEN|>", "<|END_RESPONSE|>"),
    *("<|CHATBOT_TOKEN|>", "<|eot|>", "<|eom|>", "<end_of_utterance>"),
)
PLAIN_TOKENS = ("<think>", "</think>", "<tool_call>", "</tool_call>")
HEADERS = (
    *("<|im_start|>assistant", "<|start|>assistant", "<|start_header_id|>assistant", "<start_of_turn>model"),
    *("<|turn>model", "<|assistant|>", "<｜Assistant｜>", "<|CHATBOT_TOKEN|>"),
)
WEATHER = {
    "name": "get_weather",
    "description": "What the weather is.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
        "required": ["city"],
    },
}
TOOLS = [{"type": "function", "function": WEATHER}]


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def says(text: str, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text} | more


def calls(*arguments: dict[str, Any]) -> dict[str, Any]:
    made = [{"type": "function", "function": {"name": "get_weather", "arguments": of}} for of in arguments]
    return {"tool_calls": made}


def row(*turns: dict[str, Any], identifier: str = "a", **more: Any) -> dict[str, Any]:
    tools = TOOLS if any("tool_calls" in turn or turn["role"] == "tool" for turn in turns) else None
    return {
        "id": identifier,
        "system": None,
        "prompt": turns[-2]["content"],
        "completion": turns[-1]["content"] or "(call)",
        "messages": json.dumps(turns),
        "tools": json.dumps(tools) if tools else None,
        "images": [],
        "choices": [],
        "answer": "",
    } | more


FIRST, SECOND, TOLD = (
    user("Quxone asks"),
    user("Quxtwo asks"),
    {"role": "tool", "name": "get_weather", "content": "Tolq"},
)
CZONE, CZTWO = {"city": "Czone"}, {"city": "Cztwo", "days": 3}
ONE, TWO = {"reasoning_content": "Thinkzq one."}, {"reasoning_content": "Thinkzq two."}
SHAPES = {
    "single": row(FIRST, says("Firstzq.")),
    "spaces": row(FIRST, says("  Firstzq.\n")),
    "multi": row(FIRST, says("Firstzq."), SECOND, says("Secondzq.")),
    "system": row({"role": "system", "content": "Syszq"}, FIRST, says("Firstzq."), SECOND, says("Secondzq.")),
    "tools": row(FIRST, says("", **calls(CZONE)), TOLD, says("Secondzq.")),
    "tools with text": row(FIRST, says("Lookzq.", **calls(CZONE)), TOLD, says("Secondzq.")),
    "ends in a call": row(FIRST, says("", **calls(CZTWO))),
    "ends in two calls": row(FIRST, says("", **calls(CZONE, CZTWO))),
    "ends in text and a call": row(FIRST, says("Lookzq.", **calls(CZONE))),
    "ends in reasoning and a call": row(FIRST, says("", **ONE, **calls(CZONE))),
    "reasons": row(FIRST, says("Firstzq.", **ONE)),
    "reasons last": row(FIRST, says("Firstzq."), SECOND, says("Secondzq.", **TWO)),
    "reasons first": row(FIRST, says("Firstzq.", **ONE), SECOND, says("Secondzq.")),
    "reasons twice": row(FIRST, says("Firstzq.", **ONE), SECOND, says("Secondzq.", **TWO)),
    "reasons within": row(FIRST, says("<think>\nThinkzq one.\n</think>\n\nFirstzq.")),
}


@pytest.fixture(scope="module")
def tokenizer():
    made = copy.deepcopy(make_processor("llama"))
    made = getattr(made, "tokenizer", made)
    made.add_special_tokens({"additional_special_tokens": [t for t in CONTROL if t not in made.get_vocab()]})
    made.add_tokens(list(PLAIN_TOKENS))
    made.bos_token = "<|endoftext|>"
    return made


def tokenised(processor: Any, example: dict[str, Any], loss_on: str) -> tuple[list[int], list[int], Tokenization]:
    settings = {"max_length": 4096, "on_too_long": "error", "loss_on": loss_on, "control_tokens": "allow"}
    made = Tokenization(processor, Tokens.read_back(settings), "train")
    [one] = made.tokenise([example])
    return list(one["input_ids"]), list(one["labels"]), made


def runs(ids: list[int], labels: list[int]) -> list[tuple[int, list[int]]]:
    """(place, tokens) of what is learned, cut where it is interrupted."""
    found: list[tuple[int, list[int]]] = []
    for place, (number, label) in enumerate(zip(ids, labels, strict=True)):
        if label != -100:
            if not place or labels[place - 1] == -100:
                found.append((place, []))
            found[-1][1].append(number)
    return found


def faults(processor: Any, example: dict[str, Any], loss_on: str) -> list[str]:
    """What is wrong with what is learned of a row."""
    ids, labels, made = tokenised(processor, example, loss_on)
    parts = [processor.decode(part, skip_special_tokens=False) for _, part in runs(ids, labels)]
    learned = "|".join(parts)
    turns = json.loads(example["messages"])
    answers = [turn for turn in turns if turn["role"] == "assistant"]
    found = []
    for answer in answers if loss_on != "last" else answers[-1:]:
        wanted = [*answer["content"].split(), *answer.get("reasoning_content", "").split()]
        for call in answer.get("tool_calls", ()):
            wanted += [call["function"]["name"], call["function"]["arguments"]["city"]]
        # An opening <think> may stand in the prompt.
        found += [f"{word} is not learned" for word in wanted if word not in learned and word != "<think>"]
    asked = sum(len(answer.get("tool_calls", ())) for answer in answers)
    if loss_on == "assistant" and learned.count("get_weather") < asked:
        found.append("a call is not learned")
    if loss_on != "all":
        found += [f"{word} is learned" for word in ("Qux", "Syszq", "Tolq") if word in learned]
        asks = processor.apply_chat_template(turns[:-1], tools=TOOLS, tokenize=False, add_generation_prompt=True)
        # Behind a tool's answer Gemma's asks with nothing: there the answer begins the turn.
        if asks.endswith(HEADERS) or asks.rstrip().endswith((*HEADERS, "<think>", "</think>")):
            found += [f"{part[:30]!r} begins with what asks for it" for part in parts if part.startswith(HEADERS)]
    if not made.counts.ended:
        found.append("no end of turn is learned")
    return found


NAMES = [
    name for name in chat_templates.names() if name != "trl/glm4moe"
]  # writes no end of turn; audit_labels stops it


@pytest.mark.parametrize("name", NAMES)
def test_every_answer_is_learned_and_nothing_else(tokenizer, name: str):
    processor = with_template(tokenizer, chat_templates.text_of(name))
    wrong = {}
    for shape, example in SHAPES.items():
        for loss_on in ("assistant", "last", "all"):
            try:
                found = faults(processor, example, loss_on)
            except StageError as error:
                if not re.search(r"\. (Give|Set|Mend|This|Choose|The template)", str(error)):
                    wrong[shape, loss_on] = [f"no remedy is named: {error}"]
                continue
            if found:
                wrong[shape, loss_on] = found
    assert wrong == {}


CALLS = ("ends in a call", "ends in two calls", "ends in text and a call", "ends in reasoning and a call")
READS_CALLS = (
    *(
        "gemma4",
        "gptoss",
        "glm4moe",
        "lfm2_2_5",
        "lfm2_v2",
        "llama3_1",
        "llama3_2",
        "qwen2_5",
        "qwen3",
        "qwen3_5_think",
    ),
    *("qwen3_6", "qwen3_8", "qwen3_vl", "qwen3_instruct_2507", "nemotron_3_nano"),
)


def read_back(processor: Any, example: dict[str, Any]) -> Answer:
    made = rendering.rendered(processor, example, "last")
    [masked] = masking.mask_rows(processor, [("a", made)], masking.closing_ids(processor))
    return AnswerFormat(processor).expected(example, written_text_of(processor, masked), made.prompt)


@pytest.mark.parametrize("name", chat_templates.names())
def test_what_is_written_is_read_back(tokenizer, name: str):
    """Text and reasoning always; calls where the library reads them, and else they are compared as they are written."""
    processor = with_template(tokenizer, chat_templates.text_of(name))
    for shape, example in SHAPES.items():
        try:
            found = read_back(processor, example)
        except StageError:
            continue  # not shown by the template, and said so
        except ValueError:
            assert shape in CALLS, shape
            # gpt-oss turns text beside a call into reasoning, which is not what the row says.
            assert not name.removeprefix("trl/").removesuffix("_training").startswith(READS_CALLS) or (
                name.startswith("trl/gptoss") and shape == "ends in text and a call"
            )
            continue
        said = json.loads(example["messages"])[-1]
        assert len(found.calls) == len(said.get("tool_calls", ()))
        for read, call in zip(found.calls, said.get("tool_calls", ()), strict=True):
            assert read == {key: call["function"][key] for key in ("name", "arguments")}
        if shape == "reasons":
            assert (found.content, found.reasoning) == ("Firstzq.", "Thinkzq one.")


def test_an_answer_that_only_reasons_says_nothing(tokenizer):
    for name, cut in (("trl/qwen3", "<think>\nSo"), ("trl/qwen3_5_think", "So"), ("trl/nemotron_3_nano", "So")):
        made = AnswerFormat(with_template(tokenizer, chat_templates.text_of(name)))
        found = made.read(cut, made.prompt)
        assert (found.content, found.reasoning, found.finished) == ("", "So", False), name
    # Without a template that reasons, a text is a text.
    plain = AnswerFormat(with_template(tokenizer, chat_templates.text_of("chatml")))
    assert plain.read("<think>\nSo", plain.prompt) == Answer("<think>\nSo")


def test_an_answer_that_cannot_be_read_back_stops_before_training(tokenizer):
    """A template that ends an answer with a thought: what is read is what stands behind it, which is nothing."""
    backwards = chat_templates.text_of("trl/qwen3").replace("content.split('</think>')", "content.split('</thought>')")
    odd = with_template(tokenizer, backwards)
    with pytest.raises(StageError, match=r"id a: .*read back as .*could not be scored.*model\.chat_template"):
        tokenised(odd, row(FIRST, says("Firstzq.</think>")), "last")


def reads_newlines_together() -> PreTrainedTokenizerFast:
    """A tokenizer of GPT-2's kind: of newlines before a word the last one stands alone, at the end of a text none."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    made.train_from_iterator(["\n\n\n", "\n\n"] * 9, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<|end|>", pad_token="<|end|>")


def test_a_prompt_that_is_read_otherwise_is_found_in_any_row():
    """The tokens border where prompt and answer do, and yet the prompt alone has others; also in a late row."""
    tokenizer = reads_newlines_together()
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}\n{% endfor %}"
    settings = {"max_length": 99, "on_too_long": "error", "loss_on": "last"}
    rows = [row(user(f"Quxone {n}?"), says("A"), identifier=f"r{n}") for n in range(6)]
    assert len(list(Tokenization(tokenizer, Tokens.read_back(settings), "train").tokenise(rows))) == 6
    rows.append(row(user("Which digit is shown?\n\n"), says("A. 1"), identifier="late"))
    with pytest.raises(StageError, match=r"id late: .*(share a token|other tokens than before)"):
        list(Tokenization(tokenizer, Tokens.read_back(settings), "train").tokenise(rows))


class Parrot(torch.nn.Module):
    """A model that has learned every row by heart: behind what it knows, the next token is the likeliest."""

    def __init__(self, known: list[list[int]], vocabulary: int):
        super().__init__()
        self.known = known
        self.vocabulary = vocabulary

    def _next(self, seen: list[int]) -> int:
        return next((one[len(seen)] for one in self.known if one[: len(seen)] == seen and len(one) > len(seen)), 0)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **_: Any) -> Any:
        logits = torch.zeros(*input_ids.shape, self.vocabulary)
        for i, (ids, mask) in enumerate(zip(input_ids.tolist(), attention_mask.tolist(), strict=True)):
            start = mask.index(1)
            for end in range(start, len(ids)):
                logits[i, end, self._next(ids[start : end + 1])] = 9.0
        return type("Output", (), {"logits": logits})

    def generate(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, logits_processor: list[Any]) -> Any:
        settings = self.generation_config
        logits_processor[0](input_ids, self(input_ids, attention_mask).logits[:, -1])
        made = []
        for ids, mask in zip(input_ids.tolist(), attention_mask.tolist(), strict=True):
            seen = ids[mask.index(1) :]
            new: list[int] = []
            while len(new) < settings.max_new_tokens and (not new or new[-1] not in settings.eos_token_id):
                new.append(self._next(seen + new))
            made.append(ids + new + [settings.pad_token_id] * (settings.max_new_tokens - len(new)))
        return torch.tensor(made)


# Templates that want pictures, or whose prompt asks for reasoning that they do not write.
NOT_ASKED = ("idefics3", "llava_next", "smolvlm", "deepseek")
COLOURS = ["red", "green", "blue"]
ASKED = {
    "text": [row(user(f"Colour {n}?"), says(COLOURS[n] + "."), identifier=f"r{n}") for n in range(3)],
    "letters": [
        row(user(f"Letter {n}?"), says("ABC"[n]), identifier=f"r{n}", choices=COLOURS, answer="ABC"[n])
        for n in range(3)
    ],
    "choices": [
        row(user(f"Choice {n}?"), says(COLOURS[n]), identifier=f"r{n}", choices=COLOURS, answer="ABC"[n])
        for n in range(3)
    ],
    # Parts of control tokens: of <think> and of <|im_end|>.
    "short choices": [
        row(user(f"Part {n}?"), says("ind"[n]), identifier=f"r{n}", choices=list("ind"), answer="ABC"[n])
        for n in range(3)
    ],
    "short texts": [row(user(f"Short {n}?"), says(("end", "i", "think")[n]), identifier=f"r{n}") for n in range(3)],
    "calls": [row(user(f"Call {n}?"), says("", **calls({"city": COLOURS[n]})), identifier=f"r{n}") for n in range(3)],
    "reasoning": [
        row(user(f"Why {n}?"), says(COLOURS[n], reasoning_content=f"It is {n}."), identifier=f"r{n}") for n in range(3)
    ],
}


@pytest.mark.parametrize("name", chat_templates.names())
def test_a_model_that_knows_every_target_is_right(tokenizer, name: str):
    processor = with_template(tokenizer, chat_templates.text_of(name))
    asked_of = 0
    for kind, rows in ASKED.items():
        try:
            expected = Targets(rows, processor, 2)
            asked = AskedRows(rows, processor, 2, kind, expected)
        except StageError:
            continue
        asked_of += 1
        if name == "trl/glm4moe":
            continue  # nothing ends its turn, so no model can learn to stop; audit_labels refuses it
        parrot = Parrot([list(one.ids) for one in expected.masked.values()], len(processor))
        answered, unended = asked.answers(parrot, "cpu", 200)
        assert unended == 0
        predicted = [
            {"step": 1, "dataset": "d", "id": one["id"], "answer": one["answer"], "gold_text": one["completion"]}
            | {"target_tokens": 1, "target_right": 1}
            | asked.expects(one["id"])
            | answered[one["id"]]
            for one in rows
        ]
        for mark in marks("d", predicted, rows):
            wanted = METRICS if kind in ("letters", "choices", "short choices") else (STRICT,)
            assert {metric for metric in METRICS if mark[metric]} == set(wanted), (kind, answered)
    assert asked_of or name.removeprefix("trl/").startswith(NOT_ASKED)


def test_the_end_of_a_turn_is_known_to_what_generates(tokenizer):
    """An exported model stops where its template ends a turn, whatever its base's settings know."""
    for name, end in (("trl/qwen3", "<|im_end|>"), ("trl/llama3_1", "<|eot_id|>"), ("trl/gptoss", "<|return|>")):
        processor = with_template(tokenizer, chat_templates.text_of(name))
        number = processor.convert_tokens_to_ids(end)
        made = [ends(processor, known) for known in (990, [990, 991], None)]
        assert made == [[number, 990], [number, 990, 991], [number]]
        assert ends(processor, [990, number]) == [990, number]
    assert ends(with_template(tokenizer, chat_templates.text_of("trl/glm4moe")), 2) == 2
    assert ends(with_template(tokenizer, None), 2) == 2
