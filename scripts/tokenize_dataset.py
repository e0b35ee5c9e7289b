"""Turns the training and validation rows of a split into token ids and labels, and audits what is learnt.

Makes `train.parquet` and `validation.parquet` (id, input_ids, labels, and images where there are pictures; not
padded) and `labels.json`, with the processor's own chat template. Pictures stay encoded: the trainer's collator
turns them into pixels. A row that would be cut to nothing, or lost unasked, stops the stage.

By hand: python scripts/tokenize_dataset.py results/tokens/digits-1a2b3c4d
"""

import json

from sft.config.training_settings import Tokens
from sft.runtime.stage import Stage, StageError, run_stage

SPLITS = ("train", "validation")


def make(stage: Stage) -> None:
    import pyarrow

    from sft.data.read import examples
    from sft.data.tokens import rendering
    from sft.data.tokens.tokenization import Tokenization, special_token_ids
    from sft.models.loading import load_processor

    settings = stage.settings(Tokens)
    processor = load_processor(stage.input("processor") / "processor")
    sources = {split: stage.input("splits") / f"{split}.parquet" for split in SPLITS}
    with_pictures = any(row["images"] for path in sources.values() for row in examples.rows(path, ["images"]))
    fields = {
        "id": pyarrow.string(),
        "input_ids": pyarrow.list_(pyarrow.int32()),
        "labels": pyarrow.list_(pyarrow.int32()),
    }
    if with_pictures:
        fields["images"] = pyarrow.list_(pyarrow.binary())
    schema = pyarrow.schema(fields)
    audits = {}
    for split, path in sources.items():
        tokenization = Tokenization(processor, settings, split)
        rows = tokenization.tokenise(examples.rows(path))
        examples.write(stage.output(f"{split}.parquet"), ({name: row[name] for name in fields} for row in rows), schema)
        audits[split] = tokenization.facts()
        for what in ("too_long", "fully_masked", "with_control_tokens"):
            if count := audits[split][f"rows_{what}"]:
                stage.say(f"{split}: {count} of {audits[split]['rows']} rows {what.replace('_', ' ')}; see labels.json")
    packed = _pack(stage, settings) if settings.packing != "none" else None
    report = {
        **stage.config,
        "special_token_ids": special_token_ids(processor),
        "control_tokens": tokenization.control_tokens.texts,
        "control_tokens_policy": tokenization.control,
        "added_by_the_template": rendering.text_added_by_the_template(processor),
        "packed": packed,
        "splits": audits,
    }
    stage.output("labels.json").write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    stage.record(
        rows={split: audit["rows_kept"] for split, audit in audits.items()},
        rows_dropped={split: audit["rows_dropped"] for split, audit in audits.items()},
        rows_truncated={split: audit["rows_truncated"] for split, audit in audits.items()},
        **({"packed": packed} if packed else {}),
    )
    longest = max((int(length) for audit in audits.values() for length in audit["tokens_per_row"]), default=0)
    stage.summary(
        ", ".join(f"{audit['rows_kept']} {split}" for split, audit in audits.items())
        + f" rows, longest {longest} tokens"
        + (f"; {packed['packs']} packs, {packed['fill_rate']:.1%} full" if packed else "")
    )


def _pack(stage: Stage, settings: Tokens) -> dict:
    """Replace the training rows by packs of them; what validation measures stays row by row."""
    import pyarrow.parquet as pq

    from sft.data.tokens.packing import pack

    path = stage.output("train.parquet")
    rows = pq.read_table(path)
    if "images" in rows.column_names:
        raise StageError("training.packing: rows with pictures cannot be packed. Set it to none")
    packs, facts = pack(rows, settings.max_length, settings.packing)
    pq.write_table(packs, path)
    return facts


if __name__ == "__main__":
    run_stage(make, __doc__)
