"""A requested training argument that the libraries changed stops the run; one in effect is recorded."""

from typing import Any

import pytest

from sft.runtime.stage import StageError
from sft.training.effective import effective_arguments


class Arguments:
    """The one thing that is asked of transformers' TrainingArguments here: its values after its own rules."""

    def __init__(self, **values: Any):
        self.values = values

    def to_dict(self) -> dict[str, Any]:
        return self.values


def test_what_is_in_effect_is_recorded_beside_what_was_asked() -> None:
    made = effective_arguments({"learning_rate": 2e-3}, Arguments(learning_rate=2e-3, warmup_steps=10))
    assert made["requested"] == {"learning_rate": 2e-3}
    assert made["effective"] == {"learning_rate": 2e-3, "warmup_steps": 10}


@pytest.mark.parametrize(
    ("requested", "found"), [({"max_length": None}, 1024), ({"bf16": False}, True), ({"optim": "sgd"}, "adamw_torch")]
)
def test_a_changed_value_is_named_with_both_readings(requested: dict[str, Any], found: Any) -> None:
    name, value = next(iter(requested.items()))
    with pytest.raises(StageError) as caught:
        effective_arguments(requested, Arguments(**{name: found}))
    assert f"{name}: requested {value!r}, in effect {found!r}" in str(caught.value)


def test_a_value_that_the_library_does_not_know_any_more_is_named() -> None:
    with pytest.raises(StageError, match="packing: requested False, in effect None"):
        effective_arguments({"packing": False}, Arguments())
