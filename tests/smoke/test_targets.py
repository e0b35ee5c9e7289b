"""Scores of what was to be said, token by token."""

from typing import Any

import pytest
from chats import chat, text, tokenised

from sft.embedded.tiny_models import make_processor


@pytest.fixture(scope="module")
def llama() -> Any:
    return make_processor("llama")


def test_target_scores_are_the_loss_of_the_same_labels(llama):
    """In batches and with padding as row by row: log-likelihood, tokens, and how many of them are the likeliest."""
    import torch

    from sft.embedded.tiny_models import make_model
    from sft.evaluation.targets import Targets

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
