"""The metrics stream over kills and resumes."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from sft.runtime.stage import StageError
from sft.training import metrics_stream
from sft.training.metrics_stream import MetricsStream


def row(step: int, loss: float = 1.0, **more: Any) -> dict[str, Any]:
    return {"step": step, "split": "train", "loss_sum": 4 * loss, "loss_tokens": 4, "samples": f"s{step}", **more}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "metrics.jsonl"


def write(path: Path, continue_from: int | None, steps: range, attempt: int = 1, loss: float = 1.0) -> MetricsStream:
    stream = MetricsStream(path, continue_from, attempt)
    for step in steps:
        stream.append(row(step, loss, time=attempt))
    stream.close()
    return stream


def test_last_row_of_a_step_counts(path: Path) -> None:
    write(path, None, range(1, 6))
    write(path, 3, range(4, 8), attempt=2)
    assert len(metrics_stream.read_lines(path)) == 9
    rows = metrics_stream.read(path)
    assert [step for step, _ in rows] == list(range(1, 8))
    assert rows[4, "train"]["attempt"] == 2
    assert rows[3, "train"]["attempt"] == 1


def test_torn_last_line_is_skipped_and_cut_off(path: Path) -> None:
    write(path, None, range(1, 4))
    with path.open("a") as file:
        file.write('{"step": 4, "spl')
    assert list(metrics_stream.read(path)) == [(1, "train"), (2, "train"), (3, "train")]
    write(path, 3, range(4, 5), attempt=2)
    assert list(metrics_stream.read(path))[-1] == (4, "train")


def test_other_damage_is_an_error(path: Path) -> None:
    write(path, None, range(1, 4))
    path.write_text(path.read_text().replace('"step": 2', '"step": '))
    with pytest.raises(StageError, match="line 2 is damaged"):
        metrics_stream.read(path)


def test_fresh_start_drops_what_was_there(path: Path) -> None:
    write(path, None, range(1, 9))
    write(path, None, range(1, 3), attempt=2)
    assert list(metrics_stream.read(path)) == [(1, "train"), (2, "train")]


def test_replayed_steps_are_compared(path: Path) -> None:
    write(path, None, range(1, 6))
    same = write(path, 3, range(4, 6), attempt=2)
    assert (same.replayed, same.replayed_equal) == (2, 2)
    other = write(path, 3, range(4, 6), attempt=3, loss=2.0)
    assert (other.replayed, other.replayed_equal) == (2, 0)


def test_other_samples_in_a_replayed_step_are_an_error(path: Path) -> None:
    write(path, None, range(1, 6))
    stream = MetricsStream(path, 3, 2)
    with pytest.raises(StageError, match="step 4: the samples"):
        stream.append(row(4) | {"samples": "other"})


def test_infinity_is_refused(path: Path) -> None:
    with pytest.raises(ValueError, match="Out of range"):
        MetricsStream(path, None, 1).append(row(1, float("inf")))


def test_tidy_table_holds_exact_ratios_and_nothing_of_the_execution(path: Path, tmp_path: Path) -> None:
    stream = MetricsStream(path, None, 1)
    stream.append(row(1, 0.5, grad_norm=2.0, tokens_per_second=9, peak_memory_mib=5, time=1.0))
    stream.append({"step": 1, "split": "validation", "loss_sum": 3.0, "loss_tokens": 6, "correct_tokens": 3})
    metrics_stream.write_tidy(metrics_stream.read(path), tmp_path / "m.parquet")
    assert pq.read_table(tmp_path / "m.parquet").to_pylist() == [
        {"step": 1, "split": split, "metric": metric, "numerator": above, "denominator": below, "value": value}
        for split, metric, above, below, value in (
            ("train", "loss", 2.0, 4.0, 0.5),
            ("train", "grad_norm", None, None, 2.0),
            ("validation", "loss", 3.0, 6.0, 0.5),
            ("validation", "token_accuracy", 3.0, 6.0, 0.5),
        )
    ]
