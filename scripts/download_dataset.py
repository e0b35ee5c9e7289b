"""Collects the files of a data set as published, with their digests.

Makes `files/` from a package that ships the data or from a local directory, file or glob of parquet, jsonl,
json or csv (those are linked, not copied, and their bytes recorded).

By hand: python scripts/download_dataset.py results/sources/digits-1a2b3c4d
"""

import hashlib
from pathlib import Path

from sft import local_files
from sft.stage import Stage, StageError, run_stage


def make(stage: Stage) -> None:
    source = stage.config["source"]
    if "path" in source:
        _link(stage, source["path"])
    elif (source.get("package"), source.get("name")) == ("scikit-learn", "digits"):
        _publish_digits(stage)
    else:
        raise StageError(f"source {source}: give a path, or package: scikit-learn with name: digits")


def _publish_digits(stage: Stage) -> None:
    from importlib import metadata

    from sft.data import digits

    made = digits.publish(stage.output("files"))
    stage.record(**made, licence=digits.LICENCE, revision=f"scikit-learn {metadata.version('scikit-learn')}")
    stage.summary(f"{sum(made['rows'].values())} rows in {len(made['rows'])} files")


def _link(stage: Stage, source: str) -> None:
    from sft.data.source_files import TABLES, count_rows, find_files

    files, rows = find_files(source), {}
    for name, path in files.items():
        local_files.place(path, stage.output(f"files/{name}"))
        if Path(name).suffix.lower() in TABLES:
            rows[name] = count_rows(path)
    described = local_files.describe(files.values())
    if not sum(rows.values()):
        raise StageError(f"source {source}: the tables hold no row ({', '.join(rows)})")
    revision = hashlib.sha256("".join(sorted(made["sha256"] for made in described.values())).encode()).hexdigest()
    stage.record(rows=rows, source_files=described, licence=None, revision=f"sha256:{revision}")
    pictures = len(files) - len(rows)
    stage.summary(f"{sum(rows.values())} rows in {len(rows)} files" + (f" and {pictures} pictures" if pictures else ""))


if __name__ == "__main__":
    run_stage(make, __doc__)
