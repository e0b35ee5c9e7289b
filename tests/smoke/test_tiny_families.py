"""The small models of other families: batches are what their processors make, and pictures reach the answer.

Tests: sft.embedded.tiny_mllama, sft.embedded.tiny_models, sft.embedded.tiny_tokenizer, sft.training.cross_attention
"""

import io
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from sft.data.tokens import rendering
from sft.embedded.tiny_models import make_model, make_processor
from sft.evaluation import likelihood
from sft.training.collate import SAMPLE_IDS, Collator

SOURCE = {"hidden_size": 64, "num_layers": 2, "initializer_range": 0.1, "seed": 0}


def picture(width: int, height: int, colour: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def mllama() -> SimpleNamespace:
    processor = make_processor("mllama")
    return SimpleNamespace(
        processor=processor, model=make_model(SOURCE | {"initialise": "mllama"}, processor.tokenizer)
    )


def rows(processor, pictures: list[list[bytes]]) -> tuple[list[str], list[dict]]:
    texts, made = [], []
    for number, images in enumerate(pictures):
        example = {"id": f"r{number}", "prompt": "What is shown? " * (number + 1), "completion": "A", "images": images}
        _, full = rendering.texts(processor, example | {"system": None, "messages": None})
        decoded = [Image.open(io.BytesIO(image)) for image in images]
        [ids] = rendering.encode(processor, [full], [decoded])
        texts.append(full)
        made.append({"id": f"r{number}", "input_ids": ids, "labels": ids, "images": images})
    return texts, made


@pytest.mark.parametrize("counts", [(1, 1, 1), (2, 1, 3)])
def test_rows_of_cross_attention_are_what_the_processor_makes(mllama, counts) -> None:
    shapes = [(16, 16, "red"), (40, 20, "blue"), (10, 60, "green")]
    pictures = [[picture(*shapes[(n + i) % 3]) for i in range(count)] for n, count in enumerate(counts)]
    texts, made = rows(mllama.processor, pictures)
    batch = Collator(mllama.processor)(made)
    decoded = [[Image.open(io.BytesIO(image)) for image in images] for images in pictures]
    mllama.processor.tokenizer.padding_side = "right"
    expected = mllama.processor(text=texts, images=decoded, padding=True, return_tensors="pt", add_special_tokens=False)
    assert set(batch) == {SAMPLE_IDS, "labels", *expected}
    assert "cross_attention_mask" in batch
    for name, value in expected.items():
        assert torch.equal(batch[name], value), name


def test_a_row_without_a_picture_may_stand_beside_one(mllama) -> None:
    _, made = rows(mllama.processor, [[picture(16, 16, "red")], []])
    together, alone = Collator(mllama.processor)(made), Collator(mllama.processor)(made[1:])
    assert "pixel_values" not in alone
    assert not together["cross_attention_mask"][1].any()
    with torch.no_grad():
        given = {name: value for name, value in together.items() if name not in (SAMPLE_IDS, "labels")}
        beside = mllama.model(**given).logits[1]
        on_its_own = mllama.model(input_ids=alone["input_ids"], attention_mask=alone["attention_mask"]).logits[0]
    assert torch.isfinite(beside).all()
    assert beside.shape == on_its_own.shape


def test_the_picture_changes_the_answer_and_longer_letters_still_see_it(mllama) -> None:
    found = []
    for colour in ("red", "blue"):
        texts, _ = rows(mllama.processor, [[picture(16, 16, colour)]])
        image = [[Image.open(io.BytesIO(picture(16, 16, colour)))]]
        inputs = mllama.processor(text=texts, images=image, return_tensors="pt", add_special_tokens=False)
        found.append(likelihood.from_forward(mllama.model, inputs, [[5], [5, 6]]))
    assert (found[0] - found[1]).abs().min() > 1e-3


def test_qwen2_has_the_default_system_message_and_biases() -> None:
    tokenizer = make_processor("qwen2")
    model = make_model(SOURCE | {"initialise": "qwen2"}, tokenizer)
    assert type(model).__name__ == "Qwen2ForCausalLM"
    assert any(name.endswith("q_proj.bias") for name, _ in model.named_parameters())
    turn = {"role": "user", "content": "a"}
    text = tokenizer.apply_chat_template([turn], tokenize=False)
    assert text.startswith("<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\na")
    own = tokenizer.apply_chat_template([{"role": "system", "content": "b"}, turn], tokenize=False)
    assert own.startswith("<|im_start|>system\nb<|im_end|>")
