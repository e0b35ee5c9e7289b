"""Tables for pictures whose class is the name of their folder, as `datasets` reads an image folder without metadata.

    train/cat/1.png, train/dog/2.png, test/cat/3.png  ->  train/pictures.parquet, test/pictures.parquet

Columns: id (the picture's path without suffix), file_name (its path from the table), label (the folder's name), labels
(every folder's name in the whole source, sorted: the same choices in every split).
"""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from sft.runtime.stage import StageError
from sft.sources.source_files import PICTURES, TABLES

TABLE = "pictures.parquet"


def write_tables(what: str, names: Sequence[str], folder: Path) -> list[str]:
    """Write the tables of the pictures among `names` below `folder`, and return the tables' names.

    StageError where there are tables already, and for a picture that lies in no folder.
    """
    import pyarrow
    import pyarrow.parquet

    given = [name for name in names if PurePosixPath(name).suffix.lower() in TABLES]
    if given:
        raise StageError(f"source {what}: labels are folder names, but there is a table too ({given[0]}). Drop labels")
    found = [PurePosixPath(name) for name in sorted(names) if PurePosixPath(name).suffix.lower() in PICTURES]
    if loose := [path for path in found if path.parent == PurePosixPath(".")]:
        raise StageError(f"source {what}: {loose[0]} lies in no folder that would name its class")
    labels = sorted({path.parent.name for path in found})
    bases: dict[PurePosixPath, list[PurePosixPath]] = {}
    for path in found:
        bases.setdefault(path.parent.parent, []).append(path)
    made = []
    for base, pictures in bases.items():
        columns = {
            "id": [path.with_suffix("").as_posix() for path in pictures],
            "file_name": [path.relative_to(base).as_posix() for path in pictures],
            "label": [path.parent.name for path in pictures],
            "labels": pyarrow.array([labels] * len(pictures), pyarrow.list_(pyarrow.string())),
        }
        target = folder / base / TABLE
        target.parent.mkdir(parents=True, exist_ok=True)
        pyarrow.parquet.write_table(pyarrow.table(columns), target)
        made.append((base / TABLE).as_posix())
    return made
