"""The comparison with published values: what is within tolerance passes, and each way of being off is named."""

import json
import math
from pathlib import Path

import pytest

from sft.reporting import expected
from sft.runtime.stage import StageError

ROOT = Path(__file__).resolve().parents[2]
PUBLISHED = [2.0, 1.5, 1.0, 0.5]
TOLERANCE = {"any_step": 1e-3, "mean": 1e-5}


def compared(changes: dict[int, float | None]) -> list[str]:
    measured = dict(enumerate(PUBLISHED, start=1)) | changes
    measured = {step: value for step, value in measured.items() if value is not None}
    return expected.faults(expected.differences(measured, PUBLISHED, "loss"), TOLERANCE)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({2: 1.502}, "loss is 1.502 at step 2, published 1.5 (difference 2.0e-03, allowed 1.0e-03)"),
        ({1: 2.0001, 2: 1.5001, 3: 1.0001, 4: 0.5001}, "loss is off by 1.0e-04 on average of all steps"),
        ({3: None}, "not both there for step 3"),
        ({5: 0.4}, "not both there for step 5"),
        ({1: None, 2: None, 3: None, 4: None}, "not both there for step 1, 2, 3, 4"),
        ({2: math.nan}, "loss is nan at step 2"),
    ],
)
def test_each_way_of_being_off_is_named(changes: dict[int, float | None], said: str) -> None:
    assert said in "; ".join(compared(changes))


def test_noise_on_both_sides_is_within_tolerance() -> None:
    assert compared({}) == []
    assert compared({1: 2.0009, 2: 1.4991, 3: 1.0009, 4: 0.4991}) == []


def test_the_published_reference_is_as_in_trl() -> None:
    published = expected.read(ROOT / "config/experiments/expected/trl_capybara.json")
    assert len(published["loss"]) == len(published["grad_norm"]) == 50
    assert (published["loss"][0], published["grad_norm"][0]) == pytest.approx((2.384222, 28.17089), abs=1e-5)
    assert (published["loss"][49], published["grad_norm"][49]) == pytest.approx((1.304236, 5.568997), abs=1e-5)
    assert published["tolerances"]["grad_norm"] == {"any_step": 0.1, "mean": 0.001}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"loss": [1.0, "x"]}, "loss is not a list of numbers"),
        ({"loss": []}, "loss is not a list of numbers"),
        ({"grad_norm": [1.0]}, "different numbers of steps"),
        ({"tolerances": {"loss": TOLERANCE}}, "tolerances.grad_norm needs the numbers any_step and mean"),
        ({"tolerances": None}, "no mapping with tolerances"),
    ],
)
def test_a_file_that_is_none_is_refused(tmp_path: Path, change: dict, said: str) -> None:
    sound = {"tolerances": {"loss": TOLERANCE, "grad_norm": TOLERANCE}, "loss": [1.0, 2.0], "grad_norm": [1.0, 2.0]}
    (tmp_path / "file.json").write_text(json.dumps(sound | change))
    with pytest.raises(StageError, match=said):
        expected.read(tmp_path / "file.json")
    (tmp_path / "file.json").write_text("loss")
    with pytest.raises(StageError, match="not JSON"):
        expected.read(tmp_path / "file.json")
