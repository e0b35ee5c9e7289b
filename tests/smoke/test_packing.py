"""Packs: every token once, and no row sees another, in losses and in gradients.

Tests: sft.training.packed
"""

from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from chats import chat, text, tokenised

from sft.data.tokens.packing import pack
from sft.embedded.tiny_models import make_processor
from sft.runtime.stage import StageError


@pytest.fixture(scope="module")
def llama() -> Any:
    return make_processor("llama")


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


@pytest.mark.parametrize("strategy", ["bfd_split", "wrapped"])
def test_parts_of_a_long_prompt_that_teach_nothing_are_no_packs(llama, strategy):
    """A step with such a pack alone would have no token to divide its loss by."""
    asked = [chat(("user", "0 " * 150), ("assistant", "1"), identifier=f"r{i}") for i in range(4)]
    rows, _ = tokenised(llama, asked, max_length=64, packing=strategy, loss_on="completion")
    packs, facts = pack(table(rows), 64, strategy)
    for one in packs.to_pylist():
        starts = {sum(one["seq_lengths"][:n]) for n in range(len(one["seq_lengths"]))}
        assert any(label != -100 and place not in starts for place, label in enumerate(one["labels"]))
    left_out = facts["tokens_of_packs_without_a_learned_one"]
    assert left_out > 64
    assert sum(len(one["input_ids"]) for one in packs.to_pylist()) + left_out == facts["tokens"]


def test_rows_with_pictures_are_not_packed(tmp_path):
    from types import SimpleNamespace

    import tokenize_dataset

    rows = {"id": ["a"], "input_ids": [[1]], "labels": [[1]], "images": [[b"x"]]}
    pyarrow.parquet.write_table(pyarrow.table(rows), tmp_path / "train.parquet")
    stage = SimpleNamespace(output=tmp_path.joinpath)
    settings = SimpleNamespace(max_length=64, packing="bfd_split")
    with pytest.raises(StageError, match=r"training\.packing: rows with pictures cannot be packed. Set it to none"):
        tokenize_dataset._pack(stage, settings)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_packed_and_unpacked_losses_and_gradients_agree(llama, attention):
    import torch

    from sft.embedded.tiny_models import make_model
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
    from sft.embedded.tiny_models import make_model
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
    """Give a bare model the output that TRL's head gives: log-probabilities of the labels, and which are likeliest."""
    plain = model.forward

    def forward(*args: Any, labels: Any, fused_lm_head: bool, **kwargs: Any) -> Any:
        made = plain(*args, **kwargs)
        kept = labels[:, 1:] != -100
        chosen = made.logits[:, :-1].log_softmax(-1).gather(2, labels[:, 1:].clamp(min=0)[:, :, None])[..., 0]
        made.log_probs = chosen[kept]
        made.is_top1, made.label_mask = (made.logits[:, :-1].argmax(-1) == labels[:, 1:])[kept], kept
        return made

    model.forward = forward
