"""The lines that a person watches."""

import pytest

from sft.runtime import training_log
from sft.runtime.training_log import TrainingLog


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(training_log.time, "monotonic", lambda: now[0])
    return now


def test_a_line_every_few_seconds_and_the_last(clock: list[float]) -> None:
    said: list[str] = []
    log = TrainingLog(said.append, total=20, first=0)
    for step in range(1, 21):
        clock[0] += 2.0
        log.step(step, loss=1 / step, tokens=100, seconds=2.0)
    assert [line.split()[1] for line in said] == ["1/20", "4/20", "7/20", "10/20", "13/20", "16/20", "19/20", "20/20"]
    assert said[0] == "step 1/20  loss 1.0000  50 tokens/s  38 s left"


def test_time_left_counts_from_where_the_attempt_started(clock: list[float]) -> None:
    said: list[str] = []
    log = TrainingLog(said.append, total=5000, first=1000)
    log.step(1001, loss=1.0, tokens=10, seconds=2.0)
    assert said[0].endswith("2 h 13 min left")
