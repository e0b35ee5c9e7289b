"""Predicting: every declared row gets an answer or an error, and the answer depends on nothing but row and model.

Tests: sft.evaluation.generation, sft.evaluation.likelihood, sft.evaluation.predictions,
sft.evaluation.prompt_batches, sft.evaluation.questions
"""

import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from small_runs import examples, finish, write_base, write_node, write_split
from transformers import GenerationConfig

from sft.data.read import pictures
from sft.data.tokens import rendering
from sft.evaluation import likelihood
from sft.evaluation.generation import generate, set_greedy
from sft.evaluation.prompt_batches import PromptBatches
from sft.evaluation.targets import Targets
from sft.models.loading import load_model, load_processor, tokenizer_of
from sft.runtime import manifest
from sft.runtime.code import SCRIPTS
from sft.runtime.stage import StageError

# One group: the small models and runs are made once per worker.
pytestmark = pytest.mark.slow


class Base:
    """A tiny base model of one family, loaded."""

    def __init__(self, root: Path, family: str):
        self.root = root
        self.processor_node, self.model_node = write_base(root, family)
        self.directory = self.model_node / "model"
        self.model = load_model(self.directory)

    def processor(self):
        return load_processor(self.processor_node / "processor")

    def answers(self, rows: list[dict], size: int = 4, max_new_tokens: int = 5) -> dict[str, tuple[str, list[float]]]:
        """{id: (text, log-likelihoods)} in the order in which the rows were asked."""
        batches = PromptBatches(rows, self.processor(), size)
        ends = sorted(Targets(rows[:1], batches.processor, 1).end_ids())
        set_greedy(self.model, batches.tokenizer, ends, max_new_tokens)
        letters = likelihood.letter_ids(batches.tokenizer, batches.texts[rows[0]["id"]], "ABCDEFGHIJ")
        found = {}
        for batch in batches:
            made = generate(self.model, batches.tokenizer, batch.inputs)
            values = likelihood.from_first_step(made.first_logits, letters).tolist()
            found |= dict(zip(batch.ids, zip(made.texts, values, strict=True), strict=True))
        return found


@pytest.fixture(scope="module")
def vision(tmp_path_factory) -> Base:
    torch.set_num_threads(1)
    return Base(tmp_path_factory.mktemp("vision"), "qwen2_5_vl")


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> Base:
    torch.set_num_threads(1)
    return Base(tmp_path_factory.mktemp("text"), "llama")


def of_many_lengths(rows: list[dict]) -> list[dict]:
    return [row | {"prompt": "Look. " * (i % 5) + row["prompt"]} for i, row in enumerate(rows)]


@pytest.mark.parametrize("family", ["vision", "text"])
def test_the_order_of_rows_changes_nothing(request, family):
    base = request.getfixturevalue(family)
    rows = of_many_lengths(examples(14, pictures=family == "vision"))
    expected = base.answers(rows)
    random.Random(1).shuffle(rows)
    assert base.answers(rows) == expected


@pytest.mark.parametrize("family", ["vision", "text"])
def test_padding_changes_rounding_only(request, family):
    base = request.getfixturevalue(family)
    rows = of_many_lengths(examples(10, pictures=family == "vision"))
    together, alone = base.answers(rows, size=10), base.answers(rows, size=1)
    for id, (answer, values) in together.items():
        assert answer == alone[id][0]
        assert values == pytest.approx(alone[id][1], abs=1e-4)


def test_rows_with_and_without_pictures_are_asked_together(vision):
    rows = [row if i % 2 else row | {"images": []} for i, row in enumerate(examples(6))]
    assert vision.answers(rows).keys() == {row["id"] for row in rows}


def test_letters_are_scored_as_the_model_would_continue(vision):
    rows = of_many_lengths(examples(4))
    processor = vision.processor()
    batches = PromptBatches(rows, processor, 4)
    letters = likelihood.letter_ids(batches.tokenizer, batches.texts["row-000"], "ABCDEFGHIJ")
    assert all(len(ids) == 1 for ids in letters)
    [batch] = batches
    set_greedy(vision.model, batches.tokenizer, [2], 1)
    first = likelihood.from_first_step(generate(vision.model, batches.tokenizer, batch.inputs).first_logits, letters)
    torch.testing.assert_close(likelihood.from_forward(vision.model, batch.inputs, letters), first, atol=1e-4, rtol=0)

    # Two tokens, against the whole text in one row without padding.
    pair = [letters[1][0], letters[7][0]]
    scored = likelihood.from_forward(vision.model, batch.inputs, [pair])[:, 0]
    for row, value in zip(batch.ids, scored.tolist(), strict=True):
        images = [[picture] for picture in _pictures(batches.rows[row])]
        whole = processor(
            text=[batches.texts[row] + "BH"], images=images, return_tensors="pt", add_special_tokens=False
        )
        assert whole["input_ids"][0, -2:].tolist() == pair
        with torch.inference_mode():
            logs = vision.model(**whole).logits[0].log_softmax(-1)
        expected = logs[-3, pair[0]] + logs[-2, pair[1]]
        assert value == pytest.approx(expected.item(), abs=1e-4)


def _pictures(row: dict) -> list:
    return [pictures.decode(image) for image in row["images"]]


def test_a_letter_that_joins_the_prompt_is_refused(text):
    tokenizer = tokenizer_of(text.processor())
    # "assistant" is one token of this tokenizer.
    with pytest.raises(ValueError, match="the letter t joins the last token"):
        likelihood.letter_ids(tokenizer, "assistan", ["t"])


def test_a_models_own_generation_settings_do_not_count(vision):
    rows = examples(4)
    expected = vision.answers(rows)
    vision.model.generation_config = GenerationConfig(
        do_sample=True, temperature=5.0, repetition_penalty=9.0, max_new_tokens=50, eos_token_id=300
    )
    assert vision.answers(rows) == expected


def test_answers_end_with_the_turn(vision, text):
    for base in (vision, text):
        processor = base.processor()
        end = tokenizer_of(processor).convert_tokens_to_ids("<|im_end|>")
        assert Targets(examples(3, base is vision), processor, 1).end_ids() == {end}


def test_pictures_are_prepared_once_for_all_models(vision):
    batches = PromptBatches(examples(8), vision.processor(), 4)
    first = list(batches)
    assert all(one is other for one, other in zip(first, batches, strict=True))
    # With no memory for them they are made again, equal.
    again = PromptBatches(examples(8), vision.processor(), 4, memory_bytes=0)
    for one, other in zip(first, again, strict=True):
        assert torch.equal(one.inputs["pixel_values"], other.inputs["pixel_values"])
    assert next(iter(again)) is not next(iter(again))


def test_the_prompt_is_the_one_of_training(vision):
    [shown] = PromptBatches(examples(1), vision.processor(), 4).shown(3)
    assert shown["prompt"] == rendering.prompt_text(vision.processor(), examples(1)[0])
    assert shown["prompt"].endswith("<|im_start|>assistant\n")
    assert shown["begins_the_training_row"]


def converted(base: Base, directory: Path) -> Path:
    """A conversion made by hand: two steps, the second with other weights than the base."""
    for step in (10, 20):
        shutil.copytree(base.directory, directory / f"step-{step}")
    model = load_model(base.directory)
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(1.5)
    model.save_pretrained(directory / "step-20")
    return finish(directory, {"dtype": "float32", "method": "full", "steps": "all"})


def run_script(name: str, node: Path, *options: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(SCRIPTS / f"{name}.py"), str(node), "--threads", "1", *options]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_scripts_keep_every_row(vision, tmp_path):
    rows = examples(12)
    rows[3]["images"] = [b"\x89PNG no picture"]
    # One placeholder more than pictures.
    rows[7]["prompt"] += "<|image_pad|>"
    inputs = {
        "converted": converted(vision, tmp_path / "converted"),
        "model": vision.model_node,
        "processor": vision.processor_node,
        "test-0": write_split(tmp_path / "first", rows),
        "test-1": write_split(tmp_path / "second", examples(5, prefix="other")),
    }
    config = {
        "max_new_tokens": 4,
        "batch_size": 8,
        "steps": "all",
        "prompts_stored": 3,
        "datasets": ["first", "second"],
    }
    node = write_node(tmp_path / "predictions", "predict", config, inputs)
    done = run_script("predict", node, "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert "51 answers of 3 models on 2 data sets; 6 rows failed" in done.stdout

    table = pq.read_table(node / "predictions.parquet").to_pylist()
    asked = {(row["step"], row["dataset"], row["id"]) for row in table}
    assert len(asked) == len(table) == 3 * (12 + 5)
    assert {row["step"] for row in table} == {0, 10, 20}
    assert manifest.read(node)["facts"]["likelihood_of"] == {"first": "letter", "second": "letter"}
    failed = {row["id"]: row["error"] for row in table if row["error"] is not None}
    assert failed.keys() == {"row-003", "row-007"}
    assert "no readable picture" in failed["row-003"]
    assert "the processor refuses the row" in failed["row-007"]
    by_step = {step: [row["choice_log_likelihoods"] for row in table if row["step"] == step] for step in (0, 10, 20)}
    assert by_step[0] == by_step[10] != by_step[20]
    assert all(len(row["choice_log_likelihoods"]) == 10 for row in table if row["error"] is None)
    prompts = json.loads((node / "prompts.json").read_text())
    assert [len(prompts[name]["prompts"]) for name in config["datasets"]] == [3, 3]
    assert not {"peft", "trl", "pandas"} & manifest.read(node)["versions"].keys()

    scored = write_node(
        tmp_path / "scores",
        "score",
        {"datasets": config["datasets"]},
        {"predictions": node, "test-0": inputs["test-0"], "test-1": inputs["test-1"]},
    )
    done = run_script("score", scored)
    assert done.returncode == 0, done.stderr
    scores = pq.read_table(scored / "scores.parquet").to_pylist()
    assert {(s["dataset"], s["denominator"], s["errors"]) for s in scores} == {("first", 12, 2), ("second", 5, 0)}


def test_free_completions_have_no_choices(text, tmp_path):
    rows = [row | {"choices": [], "answer": "", "completion": "seven"} for row in examples(5, pictures=False)]
    inputs = {
        "converted": converted(text, tmp_path / "converted"),
        "model": text.model_node,
        "processor": text.processor_node,
        "test-0": write_split(tmp_path / "split", rows),
    }
    config = {"max_new_tokens": 3, "batch_size": 8, "steps": "last", "prompts_stored": 3, "datasets": ["free"]}
    node = write_node(tmp_path / "predictions", "predict", config, inputs)
    done = run_script("predict", node, "--device", "cpu")
    assert done.returncode == 0, done.stderr
    table = pq.read_table(node / "predictions.parquet").to_pylist()
    assert {row["step"] for row in table} == {0, 20}
    assert {(row["parsed"], len(row["choice_log_likelihoods"])) for row in table} == {("", 0)}


def test_pictures_for_a_text_model_are_refused(text):
    with pytest.raises(StageError, match="the model takes text only"):
        PromptBatches(examples(2), text.processor(), 4)


WORDS = ["act", "food", "plant"]


def named_rows(count: int) -> list[dict]:
    """Rows whose answer is the text of a choice that the prompt does not list."""
    return [
        row | {"choices": WORDS, "answer": "ABC"[i % 3], "completion": WORDS[i % 3], "prompt": f"thing {i}"}
        for i, row in enumerate(examples(count, pictures=False))
    ]


def test_choices_are_answered_and_scored_by_their_texts(text, tmp_path):
    inputs = {
        "converted": converted(text, tmp_path / "converted"),
        "model": text.model_node,
        "processor": text.processor_node,
        "test-0": write_split(tmp_path / "words", named_rows(7)),
    }
    config = {"max_new_tokens": 4, "batch_size": 4, "steps": "last", "prompts_stored": 1, "datasets": ["words"]}
    node = write_node(tmp_path / "predictions", "predict", config, inputs)
    done = run_script("predict", node, "--device", "cpu")
    assert done.returncode == 0, done.stderr
    table = pq.read_table(node / "predictions.parquet").to_pylist()
    assert all(len(row["choice_log_likelihoods"]) == 3 for row in table)
    assert {row["parsed"] for row in table} <= {"", "A", "B", "C"}
    assert manifest.read(node)["facts"]["likelihood_of"] == {"words": "first token of the choice"}

    # By hand: the first token of each word, behind the prompt; the words begin differently.
    tokenizer = tokenizer_of(text.processor())
    row = named_rows(1)[0]
    prompt = rendering.prompt_text(text.processor(), row)
    before = tokenizer(text=prompt, add_special_tokens=False)["input_ids"]
    firsts = [tokenizer(text=prompt + w, add_special_tokens=False)["input_ids"][len(before)] for w in WORDS]
    assert len(set(firsts)) == 3
    with torch.inference_mode():
        logs = text.model(input_ids=torch.tensor([before])).logits[0, -1].log_softmax(-1)
    found = next(one for one in table if one["step"] == 0 and one["id"] == row["id"])["choice_log_likelihoods"]
    assert found == pytest.approx([logs[token].item() for token in firsts], abs=1e-4)

    scored = write_node(
        tmp_path / "scores", "score", {"datasets": ["words"]}, {"predictions": node, "test-0": inputs["test-0"]}
    )
    assert run_script("score", scored).returncode == 0
    scores = pq.read_table(scored / "scores.parquet").to_pylist()
    assert {s["metric"] for s in scores} == {"accuracy_strict", "accuracy_lenient", "accuracy_likelihood"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"completion": "B"}, "some answers are letters and some are texts"),
        ({"choices": ["act", "plant", "food"], "completion": "plant"}, "row row-001 has other choices"),
    ],
)
def test_texts_that_cannot_be_compared_are_refused(text, tmp_path, change, message):
    rows = named_rows(3)
    rows[1] |= change
    inputs = {
        "converted": converted(text, tmp_path / "converted"),
        "model": text.model_node,
        "processor": text.processor_node,
        "test-0": write_split(tmp_path / "words", rows),
    }
    config = {"max_new_tokens": 4, "batch_size": 4, "steps": "last", "prompts_stored": 1, "datasets": ["words"]}
    done = run_script("predict", write_node(tmp_path / "predictions", "predict", config, inputs), "--device", "cpu")
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
