"""Divides a data set into train, validation and test, or mixes the training rows of several divided ones.

Makes `train.parquet`, `validation.parquet` and `test.parquet` (columns: sft/data/read/examples.py; in a mix also
`part`, where the row comes from) from the examples of a data set by the names of their files, the splits that they
publish or slices, or from the splits of the parts of a mix, whose validation and test rows are those of the first
part. Rows that are left out are counted in the manifest, by reason and source file.

By hand: python scripts/split_dataset.py results/splits/digits-1a2b3c4d
"""

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from sft.config.nodes import MixSettings, SplitSettings
from sft.runtime.stage import Stage, StageError, run_stage

if TYPE_CHECKING:
    import numpy


def make(stage: Stage) -> None:
    counts = _mix(stage) if "mix" in stage.config else _split(stage)
    for split in ("train", "test"):
        if not counts[split]:
            raise StageError(f"split: no {split} row")
    stage.record(rows=counts)
    stage.summary(", ".join(f"{rows} {split}" for split, rows in counts.items()))


def _split(stage: Stage) -> dict[str, int]:
    """Rows per split, after writing them in the order of the data set."""
    import pyarrow

    from sft.data.read import examples
    from sft.data.split.division import REMOVED, Division, published_values
    from sft.data.split.splitting import SPLITS

    settings, source = stage.settings(SplitSettings), stage.input("dataset") / "examples.parquet"
    rule = settings.split
    values = None
    if columns := Division.named_columns(rule):
        values = published_values(stage.input("source") / "files", source, settings.id_key, columns, settings.renamed)
    division = Division(source, rule, values)
    found = division.counts()
    if found["unused"]:
        stage.say(f"in no split: {', '.join(f'{name} ({n} rows)' for name, n in found['unused'].items())}")
    removed = {reason: found[reason] for reason in REMOVED.values() if found[reason]}
    for reason, files in removed.items():
        stage.say(f"left out as {reason}: {', '.join(f'{name} ({n} rows)' for name, n in files.items())}")
    stage.record(
        files={name: split for name, split in division.names().items() if split},
        unused=found["unused"],
        removed=removed,
        rows_by_source={split: found[split] for split in SPLITS},
    )
    with ExitStack() as stack:
        writers = {split: stack.enter_context(examples.Writer(stage.output(f"{split}.parquet"))) for split in SPLITS}
        first = 0
        for batch in examples.batches(source):
            sides = division.sides[first : first + batch.num_rows]
            for number, writer in enumerate(writers.values()):
                writer.add_batch(batch.filter(pyarrow.array(sides == number)))
            first += batch.num_rows
    return {split: writer.rows for split, writer in writers.items()}


def _mix(stage: Stage) -> dict[str, int]:
    """Rows per split, after writing the parts' training rows one part after the other.

    `part` holds the name of the part's directory: what the configuration calls it is no part of the key.
    """
    from sft.data.read import examples

    settings = stage.settings(MixSettings)
    wanted = dict(zip(stage.inputs("part-").values(), settings.mix, strict=True))
    if len({directory.name for directory in wanted}) < len(settings.mix):
        raise StageError(f"mix: two of {', '.join(settings.mix)} are the same data. Name each once")
    taken, owned_twice = _taken(settings, wanted)
    schema = examples.SCHEMA.append(examples.PART)
    counts = {}
    with examples.Writer(stage.output("train.parquet"), schema) as writer:
        for part, drawn in taken.items():
            first = 0
            for batch in examples.batches(part / "train.parquet"):
                chosen = drawn[first : first + batch.num_rows]
                again = owned_twice[part][first : first + batch.num_rows]
                writer.add_batch(_of_part(batch, part.name, again, chosen))
                first += batch.num_rows
    counts["train"] = writer.rows
    first_part = next(iter(taken))
    for split in ("validation", "test"):
        with examples.Writer(stage.output(f"{split}.parquet"), schema) as writer:
            for batch in examples.batches(first_part / f"{split}.parquet"):
                writer.add_batch(_of_part(batch, first_part.name))
        counts[split] = writer.rows
    stage.record(
        parts={wanted[part]: int(drawn.sum()) for part, drawn in taken.items()},
        parts_left_out={wanted[part]: int((~drawn).sum()) for part, drawn in taken.items()},
    )
    return counts


def _of_part(batch, part: str, again: "numpy.ndarray | None" = None, chosen: "numpy.ndarray | None" = None):
    """The `chosen` rows with a column `part`; ids that are also in another part (`again`) with its name before them."""
    import pyarrow

    ids = batch["id"].to_pylist()
    if again is not None:
        ids = [f"{part}/{name}" if twice else name for name, twice in zip(ids, again.tolist(), strict=True)]
    made = batch.set_column(batch.schema.get_field_index("id"), "id", pyarrow.array(ids, pyarrow.string()))
    made = made.append_column("part", pyarrow.array([part] * len(ids), pyarrow.string()))
    return made if chosen is None else made.filter(pyarrow.array(chosen))


def _taken(
    settings: MixSettings, wanted: dict[Path, str]
) -> tuple[dict[Path, "numpy.ndarray"], dict[Path, "numpy.ndarray"]]:
    """Of each part, which training rows the mix takes, and which of its ids another part's taken rows have too."""
    import numpy as np

    from sft.data.read import examples
    from sft.data.split import row_keys
    from sft.data.split.splitting import draw_rows, hash64, rows_by_weight

    amounts, seed = list(settings.mix.values()), settings.mix_seed
    if settings.rows is not None:
        amounts = list(rows_by_weight([weight for weight in amounts if weight != "all"], settings.rows))
    taken, ids = {}, {}
    for (part, name), amount in zip(wanted.items(), amounts, strict=True):
        drawn, known = [], []
        for batch in examples.batches(part / "train.parquet", ["id"]):
            named = batch["id"].to_pylist()
            drawn.append(np.array([hash64(f"mix-{seed}", one) for one in named], np.uint64))
            known.append(np.array([row_keys.hash64(one) for one in named], np.uint64))
        try:
            taken[part] = draw_rows(np.concatenate(drawn), amount)
        except StageError as error:
            raise StageError(f"mix, part {name}: {error}") from None
        ids[part] = np.concatenate(known)
    owned, owners = np.unique(np.concatenate([ids[part][taken[part]] for part in taken]), return_counts=True)
    return taken, {part: np.isin(ids[part], owned[owners > 1]) for part in taken}


if __name__ == "__main__":
    run_stage(make, __doc__)
