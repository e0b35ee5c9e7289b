"""Batches are what the processor itself would make; weights are what the files hold.

Tests: sft.models.loading, sft.training.probe
"""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import small_runs
import torch
from datasets import Dataset

from sft.models.loading import load_model, load_processor
from sft.models.weight_check import check_loaded, weights_digest
from sft.runtime.stage import StageError
from sft.training.collate import IGNORED, SAMPLE_IDS, Collator, PictureFeatures
from sft.training.probe import LARGEST_LOGITS, probe_inputs
from sft.training.token_rows import load_rows


def rows_of(nodes: dict[str, Path]) -> Dataset:
    return load_rows(nodes["tokens"], "train")


def test_text_rows_are_padded_right_and_masked(text_nodes) -> None:
    rows = sorted((rows_of(text_nodes)[i] for i in range(8)), key=lambda row: len(row["input_ids"]))
    batch = Collator(load_processor(text_nodes["processor"] / "processor"))(rows)
    assert set(batch) == {SAMPLE_IDS, "input_ids", "attention_mask", "labels"}
    assert batch[SAMPLE_IDS] == [row["id"] for row in rows]
    for i, row in enumerate(rows):
        n = len(row["input_ids"])
        assert batch["input_ids"][i, :n].tolist() == row["input_ids"]
        assert batch["labels"][i, :n].tolist() == row["labels"]
        assert batch["attention_mask"][i].tolist() == [1] * n + [0] * (batch["labels"].shape[1] - n)
        assert (batch["labels"][i, n:] == IGNORED).all()
    assert batch["attention_mask"][0, -1] == 0, "the shortest row must be padded for this test to say anything"


def test_vision_rows_are_what_the_processor_makes(vision_nodes) -> None:
    processor = load_processor(vision_nodes["processor"] / "processor")
    rows = [rows_of(vision_nodes)[i] for i in range(6)]
    examples = {row["id"]: row for row in small_runs.examples(52)}
    expected = small_runs.train_batch(processor, [examples[row["id"]] for row in rows])
    collator = Collator(processor)
    for _ in range(2):  # the second time from memory
        batch = collator(rows)
        assert set(batch) == {SAMPLE_IDS, "labels", *expected}
        assert "mm_token_type_ids" in batch
        for name, value in expected.items():
            assert torch.equal(batch[name], value), name


def test_rows_without_pictures_may_stand_beside_rows_with_them(vision_nodes) -> None:
    rows = [rows_of(vision_nodes)[i] for i in range(3)]
    image = Collator(load_processor(vision_nodes["processor"] / "processor")).image_token_id
    rows[1] = rows[1] | {"images": [], "input_ids": [token for token in rows[1]["input_ids"] if token != image]}
    rows[1]["labels"] = rows[1]["labels"][-len(rows[1]["input_ids"]) :]
    batch = Collator(load_processor(vision_nodes["processor"] / "processor"))(rows)
    assert batch["image_grid_thw"].shape[0] == 2
    assert batch["mm_token_type_ids"].sum(1).tolist() == [4, 0, 4]


def test_memory_for_pictures_is_bounded(vision_nodes) -> None:
    processor = load_processor(vision_nodes["processor"] / "processor")
    row = rows_of(vision_nodes)[0]
    one = sum(tensor.nbytes for tensor in PictureFeatures(processor)("a", row["images"]).values())
    features = PictureFeatures(processor, memory_bytes=2 * one)
    for name in "abcd":
        features(name, row["images"])
    assert set(features._kept) == {"a", "b"}


def test_unreadable_picture_is_named(vision_nodes) -> None:
    features = PictureFeatures(load_processor(vision_nodes["processor"] / "processor"))
    with pytest.raises(StageError, match="row r7: 3 bytes that are no readable picture"):
        features("r7", [b"abc"])


def test_processor_that_marks_something_else_is_refused(vision_nodes) -> None:
    processor = load_processor(vision_nodes["processor"] / "processor")

    class Odd:
        image_processor, tokenizer, image_token_id = processor.image_processor, processor.tokenizer, 6
        apply_chat_template = processor.apply_chat_template

        def __call__(self, **arguments: Any) -> dict[str, torch.Tensor]:
            made = processor(**arguments)
            return {**made, "token_type_ids": torch.ones_like(made["input_ids"])}

    with pytest.raises(StageError, match="emits token_type_ids, which does not mark its picture tokens"):
        Collator(Odd())


@pytest.mark.parametrize("nodes_of", ["text", "vision"])
def test_loaded_weights_are_compared_with_the_files(nodes, tmp_path: Path, nodes_of: str) -> None:
    directory = nodes[nodes_of]["model"] / "model"
    model = load_model(directory)
    before = weights_digest(model.state_dict())
    assert check_loaded(model, directory) > 10
    assert weights_digest(load_model(directory).state_dict()) == before
    name, parameter = list(model.named_parameters())[5]
    with torch.no_grad():
        parameter.view(-1)[0] += 1e-6
    assert weights_digest(model.state_dict()) != before
    with pytest.raises(StageError, match="1 with another value"):
        check_loaded(model, directory)
    assert name  # the one that was changed


def test_weights_of_another_shape_of_model_are_refused(nodes) -> None:
    with pytest.raises(StageError, match="not in the"):
        check_loaded(load_model(nodes["text"]["model"] / "model"), nodes["vision"]["model"] / "model")


def test_probe_takes_fewer_rows_of_a_large_vocabulary() -> None:
    rows = [{"id": str(i), "input_ids": [1] * length, "labels": [1] * length} for i, length in enumerate([900, 90, 80])]
    collator = Collator(SimpleNamespace(pad_token_id=0))
    small = probe_inputs(rows, collator, vocabulary=320, avoid={0}, seed=0)
    assert small["inputs/input_ids"].shape == (3, 900)
    large = probe_inputs(rows, collator, vocabulary=152_000, avoid={0}, seed=0)
    assert large["inputs/input_ids"].shape == (2, 90)
    assert LARGEST_LOGITS >= 2 * 90 * 152_000
    assert large["random/input_ids"].min() > 0
    assert torch.equal(small["random/input_ids"], probe_inputs(rows, collator, 320, {0}, 0)["random/input_ids"])
