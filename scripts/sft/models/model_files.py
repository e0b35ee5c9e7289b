"""The files of a Hugging Face model directory: which ones count, and which are refused."""

import json
import shutil
from pathlib import Path

from sft.runtime.stage import StageError
from sft.sources import local_files
from sft.terms.model_names import INDEX, PICKLES, WEIGHTS, has_weights, is_pickle

# Every file that may ask transformers to import the code that lies beside it.
WITH_REMOTE_CODE = ("config.json", "tokenizer_config.json", "processor_config.json", "preprocessor_config.json")
HUB_OFFERS = (
    "Name a revision that has safetensors: the hub offers its own conversion as revision: refs/pr/<n>, in the "
    "discussions of the repository"
)


def needs_safetensors(what: str, listed: list[str], advice: str = HUB_OFFERS) -> None:
    """StageError when the files that are listed are no model of transformers, before any of them is fetched."""
    if "config.json" not in listed:
        below = sorted(name for name in listed if name.endswith("/config.json"))
        hint = f" (there is {below[0]}; only the top counts)" if below else ""
        raise StageError(f"source {what}: no config.json at its top{hint}: no model that transformers loads")
    if has_weights(listed):
        return
    pickles = [name for name in listed if is_pickle(name)]
    found = f"pickles ({', '.join(pickles[:3])}), which run code when read" if pickles else "no weights at its top"
    raise StageError(f"source {what}: no {WEIGHTS} and no {INDEX}, but {found}. {advice}")


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


def weight_files(directory: Path, called: str | None = None) -> list[Path]:
    """The safetensors files of a model, sorted; StageError for none, for pickles only and for missing shards.

    `called`: what an error calls the directory, where that is none that the user named.
    """
    what = called or directory
    if not (directory / "config.json").is_file():
        raise StageError(
            f"{directory} holds no config.json: not a Hugging Face model directory. Check model.source.path"
        )
    index = directory / INDEX
    if index.is_file():
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        missing = [name for name in names if not (directory / name).is_file()]
        if missing:
            raise StageError(
                f"{what}: {INDEX} names files that are not there: {', '.join(missing)}. Fetch the model again"
            )
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


def refuse_remote_code(directory: Path, called: str | None = None) -> None:
    """StageError when a configuration file names code of the model's author (auto_map); `called` as above."""
    if not directory.is_dir():
        raise StageError(f"{directory} is no directory. Check model.source.path")
    for name in WITH_REMOTE_CODE:
        path = directory / name
        if path.is_file() and "auto_map" in json.loads(path.read_text(encoding="utf-8")):
            raise StageError(
                f"{f'{called}: {name}' if called else path}: auto_map asks to run the model author's own code, which "
                f"is not done here. Give a model whose class is part of transformers"
            )
