"""The files of a Hugging Face model directory: which ones count, which are refused, and the digest of the weights."""

import hashlib
import json
import shutil
from pathlib import Path

from sft import local_files
from sft.stage import StageError

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
INDEX = "model.safetensors.index.json"
# Every file that may ask transformers to import the code that lies beside it.
WITH_REMOTE_CODE = ("config.json", "tokenizer_config.json", "processor_config.json", "preprocessor_config.json")
# Of a repository on the hub: what makes a tokenizer or a processor, and what makes the model. `config.json` is in both,
# since it says which classes they are. Only the top of a repository counts: below it lie other formats and precisions.
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
HUB_FILES = ("config.json", "generation_config.json", "model.safetensors", "model-*.safetensors", INDEX)


def needs_safetensors(repository: str, listed: list[str]) -> None:
    """StageError when a repository's files are no model of transformers, before any of them is fetched."""
    if "config.json" not in listed:
        below = sorted(name for name in listed if name.endswith("/config.json"))
        hint = f" (there is {below[0]}; only the top counts)" if below else ""
        raise StageError(f"source {repository}: no config.json at its top{hint}: no model that transformers loads")
    if INDEX in listed or "model.safetensors" in listed:
        return
    pickles = [name for name in listed if Path(name).suffix in PICKLES]
    found = f"pickles ({', '.join(pickles[:3])}), which run code when read" if pickles else "no weights at its top"
    raise StageError(
        f"source {repository}: no model.safetensors and no {INDEX}, but {found}. Name a revision that has safetensors: "
        f"the hub offers its own conversion as revision: refs/pr/<n>, in the discussions of the repository"
    )


def copy_model(source: Path, target: Path) -> None:
    """Take over the weights (safetensors, linked: they are large) and configuration (copied), nothing else.

    StageError for a directory that has no such.
    """
    refuse_remote_code(source)
    weights = weight_files(source)
    target.mkdir(parents=True)
    settings = [source / name for name in ("config.json", "generation_config.json", INDEX)]
    if INDEX not in {path.name for path in weights} and len(weights) == 1:
        settings.pop()
    for path in weights:
        local_files.place(path, target / path.name)
    for path in {*settings} - {*weights}:
        if path.is_file():
            shutil.copyfile(path, target / path.name)


def weight_files(directory: Path) -> list[Path]:
    """The safetensors files of a model, sorted; StageError for none, for pickles only and for missing shards."""
    if not (directory / "config.json").is_file():
        raise StageError(
            f"{directory} holds no config.json: not a Hugging Face model directory. Check model.source.path"
        )
    index = directory / INDEX
    if index.is_file():
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        missing = [name for name in names if not (directory / name).is_file()]
        if missing:
            raise StageError(f"{index} names files that are not there: {', '.join(missing)}. Fetch the model again")
        return [directory / name for name in names]
    if (directory / "model.safetensors").is_file():
        return [directory / "model.safetensors"]
    pickles = sorted(path.name for path in directory.iterdir() if path.suffix in PICKLES)
    if pickles:
        raise StageError(
            f"{directory} has its weights as pickles only ({', '.join(pickles[:3])}), which run code when read. Give "
            f"a directory with safetensors; save_pretrained of transformers writes them"
        )
    raise StageError(f"{directory} holds no model.safetensors and no {INDEX}. Check model.source.path")


def refuse_remote_code(directory: Path) -> None:
    """StageError when a configuration file names code of the model's author (auto_map)."""
    if not directory.is_dir():
        raise StageError(f"{directory} is no directory. Check model.source.path")
    for name in WITH_REMOTE_CODE:
        path = directory / name
        if path.is_file() and "auto_map" in json.loads(path.read_text(encoding="utf-8")):
            raise StageError(
                f"{path}: auto_map asks to run the model author's own code, which is not done here. Give a model "
                f"whose class is part of transformers"
            )


def weights_digest(directory: Path) -> str:
    """sha256 over name, type, shape and bytes of every tensor, by name: the same however the tensors are sharded."""
    from safetensors import safe_open

    where = {}
    for path in weight_files(directory):
        with safe_open(path, framework="pt") as file:
            where |= dict.fromkeys(file.keys(), path)
    whole = hashlib.sha256()
    for name in sorted(where):
        with safe_open(where[name], framework="pt") as file:
            tensor = file.get_tensor(name).contiguous()
        whole.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        # bfloat16 has no numpy type; its bytes have.
        whole.update(memoryview(tensor.view(-1).view(_uint8()).numpy()))
    return whole.hexdigest()


def _uint8():
    import torch

    return torch.uint8
