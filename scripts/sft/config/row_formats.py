"""The formats of rows: which templates and keys each takes, and the scores that its rows have."""

from collections.abc import Sequence

# Which of prompt, completion and text a template can make.
TEMPLATES = {
    "multiple_choice": {"prompt"},
    "prompt_completion": {"prompt", "completion"},
    "language_modelling": {"text"},
    "conversation": set(),
    "sharegpt": set(),
    "alpaca": {"prompt", "completion"},
}


def metrics_of(name: str) -> tuple[str, ...]:
    """The scores that rows of a format have."""
    if name == "multiple_choice":
        return "accuracy_strict", "accuracy_lenient", "accuracy_likelihood"
    return ("accuracy_token",) if name == "language_modelling" else ("accuracy_strict", "accuracy_token")


def needed(name: str) -> Sequence[Sequence[str]]:
    """For a format, the keys it cannot do without; of several in one entry, any one."""
    return {
        "multiple_choice": (("prompt_key", "prompt_template"), ("choice_key",), ("answer_key",)),
        "prompt_completion": (("prompt_key", "prompt_template"), ("completion_key", "completion_template")),
        "language_modelling": (("text_key", "text_template"),),
        "conversation": (("messages_key", "prompt_key"), ("messages_key", "completion_key")),
        "sharegpt": (),
        "alpaca": (),
    }[name]
