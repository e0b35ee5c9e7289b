"""What a run is trained with: a module per backend, each with the same functions, and nothing else imports its library.

    start(device)                        before anything else imports torch, transformers or PEFT
    refusal(settings, directory, device) why this backend cannot train the model in a directory, None where it can
    arguments(requested, device)         the trainer's arguments, under the names and values that this backend has
    load_model(directory, settings, n)   where LOADS_MODELS: the model, in float32, for rows of at most n tokens
    new_adapter(model, lora, seed)       with a fresh adapter
    stored_adapter(model, checkpoint)    with the adapter of a checkpoint

The trainer itself is TRL's SFTTrainer for both: Unsloth changes that class in place.
"""

from types import ModuleType


def backend(name: str) -> ModuleType:
    """The module of a backend, by the name that `training.backend` gives it."""
    if name == "unsloth":
        from sft.training.backends import unsloth

        return unsloth
    from sft.training.backends import trl

    return trl
