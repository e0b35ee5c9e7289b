"""Pack what a paper can cite: the ledgers, and all that is needed to draw every figure and table again.

From the ledgers, tables and figures of all experiments. Makes archive.tar.gz, the same bytes from the same inputs.
Unpacked over a clean clone (`tar -xzf archive.tar.gz`), `snakemake --cores 1 figures` draws everything, and
`sft verify` compares it with what was published. It holds

    results/archive.json                          what is in it; digests of the published figures and tables
    results/experiments/<name>/ledger/**          the numbers, and the manifests of the runs they come from
    results/experiments/<name>/**/config.json     what every figure and table shows

    python scripts/archive.py results/archive
"""

import gzip
import io
import json
import tarfile
from pathlib import Path
from typing import Any

from sft.runtime import manifest
from sft.runtime.stage import CONFIG, Stage, StageError, run_stage

SCHEMA = 1
NAME = "results/archive.json"


def make(stage: Stage) -> None:
    nodes, figures, versions, files = {}, {}, {}, {}
    for name, directory in stage.inputs().items():
        made = manifest.read(directory) or {}
        place = _place(stage, name, directory)
        nodes[place] = _unpacked(stage, json.loads((directory / CONFIG).read_text()))
        files[f"{place}/{CONFIG}"] = (json.dumps(nodes[place], indent=1, ensure_ascii=False) + "\n").encode()
        if name.startswith("ledger-"):
            files[f"{place}/{manifest.NAME}"] = _without_host(made)
            files |= {f"{place}/{relative}": (directory / relative).read_bytes() for relative in made["outputs"]}
        else:
            figures |= {f"{place}/{relative}": output["sha256"] for relative, output in made["outputs"].items()}
            versions[place] = made["versions"]
    content = {
        "schema": SCHEMA,
        "experiments": sorted(stage.config["experiments"]),
        "figures": figures,
        "versions": versions,
        "nodes": nodes,
    }
    files[NAME] = (json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()
    packed = pack(files)
    stage.output("archive.tar.gz").write_bytes(packed)
    stage.record(members=len(files), figures=len(figures))
    stage.summary(f"{len(files)} files, {len(packed) / 1024:.0f} KiB")


def _place(stage: Stage, name: str, directory: Path) -> str:
    """Where a result lies when the archive is unpacked: below results/, wherever that folder is now."""
    results = stage.directory.parent
    if not directory.is_relative_to(results):
        raise StageError(f"input {name}: {directory} is no path within {results} and would unpack nowhere")
    return Path("results", directory.relative_to(results)).as_posix()


def _unpacked(stage: Stage, node: dict[str, Any]) -> dict[str, Any]:
    """The config.json of a result, with the directories that its inputs have when the archive is unpacked."""
    inputs = {name: _place(stage, name, Path(directory)) for name, directory in node["inputs"].items()}
    return node | {"inputs": inputs}


def pack(files: dict[str, bytes]) -> bytes:
    """A gzip-compressed tar archive of {path: content}, sorted, without times or owners."""
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path, content in sorted(files.items()):
            member = tarfile.TarInfo(Path(path).as_posix())
            member.size, member.mode = len(content), 0o644
            archive.addfile(member, io.BytesIO(content))
    return gzip.compress(tar.getvalue(), compresslevel=9, mtime=0)


def _without_host(made: dict[str, Any]) -> bytes:
    made["machine"] = {name: value for name, value in made["machine"].items() if name != "host"}
    return (json.dumps(made, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


if __name__ == "__main__":
    run_stage(make, __doc__)
