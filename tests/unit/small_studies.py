"""What tests of configurations and plans have in common."""

from typing import Any

# A data set that needs no file.
DIGITS: dict[str, Any] = {
    "source": {"package": "scikit-learn", "name": "digits"},
    "format": "multiple_choice",
    "prompt_key": "question",
    "choice_key": "choices",
    "answer_key": "answer",
    "split": {"validation": {"rows": 200}},
}
