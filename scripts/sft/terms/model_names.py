"""Names of the files of a model as people publish it: which ones are taken, and which are refused."""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
# What makes a tokenizer or a processor, and what makes the model. `config.json` is in both, since it says which classes
# they are. Only the top of a repository counts: below it lie other formats and precisions.
PROCESSOR_FILES = (
    "config.json",
    "tokenizer*.json",
    "*preprocessor_config.json",
    "processor_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.*",
    "additional_chat_templates/*",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "*.model",
)
HUB_FILES = ("config.json", "generation_config.json", WEIGHTS, "model-*.safetensors", INDEX)
MODEL_FILES = (*HUB_FILES, *PROCESSOR_FILES[1:])


def model_files(names: Iterable[str], patterns: Sequence[str] | None = None) -> list[str]:
    """Those of `names` that match a pattern, sorted; without patterns all that make a model and its processor."""
    if patterns is not None:
        return sorted(name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns))
    at_top = [n for n in names if "/" not in n or n.startswith("additional_chat_templates/")]
    return sorted(name for name in at_top if any(fnmatchcase(name, pattern) for pattern in MODEL_FILES))


def at_top(names: Iterable[str]) -> dict[str, str]:
    """`{name below the model's directory: name}` of the files of an archive, which may put all into a folder.

    The directory is that of the config.json nearest to the top; the names as they are where there is none.
    """
    every = list(names)
    configs = sorted((name for name in every if PurePosixPath(name).name == "config.json"), key=lambda n: n.count("/"))
    above = configs[0].removesuffix("config.json") if configs else ""
    return {name.removeprefix(above): name for name in every if name.startswith(above)}


def is_pickle(name: str) -> bool:
    """Whether a file of that name runs code when it is read as weights."""
    return PurePosixPath(name).suffix in PICKLES


def has_weights(names: Iterable[str]) -> bool:
    """Whether safetensors are among them, whole or by their index."""
    return bool({WEIGHTS, INDEX} & set(names))
