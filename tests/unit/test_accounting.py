"""Counts that survive a resume."""

from pathlib import Path

from sft.training.accounting import Accounting, samples_digest


def test_counts_and_window_survive_saving(tmp_path: Path) -> None:
    before = Accounting()
    before.add_step(tokens=100, supervised=7, rows=4, loss=1 / 3)
    before.save(tmp_path)
    after = Accounting.load(tmp_path)
    assert after == before
    for accounting in (before, after):
        accounting.add_step(tokens=90, supervised=3, rows=4, loss=0.1)
    # Bit for bit: the part of the window from before the resume is the same number.
    assert before.take_window() == after.take_window()
    assert (after.tokens_seen, after.supervised_tokens_seen, after.rows_seen) == (190, 10, 8)
    assert after.take_window() == (0.0, 0)


def test_loss_of_a_window_is_weighted_by_tokens() -> None:
    accounting = Accounting()
    accounting.add_step(tokens=10, supervised=1, rows=1, loss=4.0)
    accounting.add_step(tokens=10, supervised=3, rows=1, loss=2.0)
    assert accounting.take_window() == (10.0, 4)


def test_a_change_of_code_is_remembered_once() -> None:
    accounting = Accounting()
    for step, code in ((0, "a"), (4, "a"), (8, "b"), (12, "b")):
        accounting.note_code(step, code, {"torch": "2"})
    assert [(entry["from_step"], entry["code"]) for entry in accounting.codes] == [(0, "a"), (8, "b")]


def test_digest_tells_the_order() -> None:
    assert samples_digest(["a", "b"]) != samples_digest(["b", "a"])
    assert len(samples_digest(["a"])) == 16
