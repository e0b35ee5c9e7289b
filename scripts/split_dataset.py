"""Divides a data set into train, validation and test, or mixes the training rows of several divided ones.

Makes `train.parquet`, `validation.parquet` and `test.parquet` (columns: scripts/sft/data/examples.py; in a mix also
`part`, where the row comes from) from the examples of a data set by the names of their files, or from the
splits of the parts of a mix, whose validation and test rows are those of the first part.

By hand: python scripts/split_dataset.py results/splits/digits-1a2b3c4d
"""

from collections import Counter
from pathlib import Path

from sft.stage import Stage, StageError, run_stage


def make(stage: Stage) -> None:
    counts = _mix(stage) if "mix" in stage.config else _split(stage)
    if not counts["train"]:
        raise StageError("split: no training row")
    stage.record(rows=counts)
    stage.summary(", ".join(f"{rows} {split}" for split, rows in counts.items()))


def _split(stage: Stage) -> dict[str, int]:
    """Rows per split, after writing them in the order of the data set."""
    import pyarrow

    from sft.data import examples
    from sft.data.splitting import SPLITS, draw_validation, split_of_files

    rule, source = stage.config["split"], stage.input("dataset") / "examples.parquet"
    validation = {key: value for key, value in (rule.get("validation") or {}).items() if value is not None}
    if rule["by"] != "file_name":
        raise StageError(f"split.by {rule['by']!r}: rows are divided by file_name")
    rows = [
        (row["source_file"], row["group"] if row["group"] is not None else row["id"])
        for row in examples.rows(source, ["id", "source_file", "group"])
    ]
    split_of = split_of_files(sorted({name for name, _ in rows}), rule | {"validation": validation})
    unused = Counter(name for name, _ in rows if split_of[name] is None)
    if unused:
        stage.say(f"in no split: {', '.join(f'{name} ({n} rows)' for name, n in unused.items())}")
    training = [unit for name, unit in rows if split_of[name] == "train"]
    drawn = draw_validation(training, validation)
    sides = ["validation" if split_of[name] == "train" and unit in drawn else split_of[name] for name, unit in rows]
    stage.record(files={name: split for name, split in split_of.items() if split}, unused=dict(unused))
    counts = {}
    for split in SPLITS:
        chosen = pyarrow.array([side == split for side in sides])
        first = 0
        with examples.Writer(stage.output(f"{split}.parquet")) as writer:
            for batch in examples.batches(source):
                writer.add_batch(batch.filter(chosen.slice(first, batch.num_rows)))
                first += batch.num_rows
        counts[split] = writer.rows
    return counts


def _mix(stage: Stage) -> dict[str, int]:
    """Rows per split, after writing the parts' training rows one part after the other.

    `part` holds the name of the part's directory: what the configuration calls it is no part of the key.
    """
    from sft.data import examples

    wanted = dict(zip(stage.inputs("part-").values(), stage.config["mix"].items(), strict=True))
    if len({directory.name for directory in wanted}) < len(stage.config["mix"]):
        raise StageError(f"mix: two of {', '.join(stage.config['mix'])} are the same data. Name each once")
    taken = {part: _taken(part, name, count, stage.config["mix_seed"]) for part, (name, count) in wanted.items()}
    owners = Counter(identifier for ids in taken.values() for identifier in ids)
    schema = examples.SCHEMA.append(examples.PART)
    counts = {}
    with examples.Writer(stage.output("train.parquet"), schema) as writer:
        for part, ids in taken.items():
            for row in examples.rows(part / "train.parquet"):
                if row["id"] in ids:
                    identifier = f"{part.name}/{row['id']}" if owners[row["id"]] > 1 else row["id"]
                    writer.add(row | {"id": identifier, "part": part.name})
    counts["train"] = writer.rows
    first = next(iter(taken))
    for split in ("validation", "test"):
        rows = (row | {"part": first.name} for row in examples.rows(first / f"{split}.parquet"))
        counts[split] = examples.write(stage.output(f"{split}.parquet"), rows, schema)
    stage.record(parts={wanted[part][0]: len(ids) for part, ids in taken.items()})
    return counts


def _taken(part: Path, name: str, count: str | int, seed: int) -> set[str]:
    """Ids of the training rows that the mix takes from a part: all, or a number drawn by hash."""
    from sft.data import examples
    from sft.data.splitting import draw_rows

    ids = [row["id"] for row in examples.rows(part / "train.parquet", ["id"])]
    if count == "all":
        return set(ids)
    try:
        return draw_rows(ids, count, seed)
    except StageError as error:
        raise StageError(f"mix, part {name}: {error}") from None


if __name__ == "__main__":
    run_stage(make, __doc__)
