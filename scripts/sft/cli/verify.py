"""Draws every figure and table again in a temporary directory and compares with what was published: `sft verify`.

Compares with the digests in the manifests under results/experiments, or, where an archive is unpacked, with those in
results/archive.json. Nothing under results/ is changed.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

from sft.cli.plans import experiments
from sft.runtime import manifest
from sft.runtime.code import SCRIPTS
from sft.runtime.stage import CONFIG

ARCHIVE = Path("results/archive.json")
DRAWN = (".pdf", ".svg", ".png")
EQUAL, DIFFERENT, DRAWN_DIFFERENTLY = 0, 1, 3
CODES = {"equal": EQUAL, "redrawn": DRAWN_DIFFERENTLY, "different": DIFFERENT, "failed": DIFFERENT}


@dataclass(frozen=True)
class Compared:
    """How one figure or table compares: `result` is equal, redrawn (numbers equal), different or failed."""

    directory: str
    result: str
    files: list[str]  # those that differ
    why: str = ""


def run(options: argparse.Namespace) -> int:
    """Draw and compare, as text or JSON; the exit code is that of the worst result."""
    chosen = experiments(options.places) if options.places else [Path("results/experiments")]
    wanted = {}
    for directory, published in expected().items():
        if any(place in (directory, *directory.parents) for place in chosen):
            wanted[directory] = published
    if not wanted:
        print(f"error: no finished figure or table below {', '.join(map(str, chosen))}", file=sys.stderr)
        return DIFFERENT
    found = []
    for directory, published in wanted.items():
        found.append(compared(directory, *published))
        if not options.json:
            print(said(found[-1], len(published[0])), flush=True)
    if options.json:
        print(json.dumps([asdict(one) for one in found], indent=1))
    return max((CODES[one.result] for one in found), key=(EQUAL, DRAWN_DIFFERENTLY, DIFFERENT).index)


def said(one: Compared, files: int) -> str:
    """One line of text about a figure or table of `files` files."""
    if one.result == "equal":
        return f"equal      {one.directory} ({files} files)"
    if one.result == "failed":
        return f"failed     {one.directory}\n{one.why}"
    if one.result == "different":
        return f"DIFFERENT  {one.directory}: {', '.join(one.files)}"
    return f"redrawn    {one.directory}: numbers equal, other bytes in {', '.join(one.files)} ({one.why})"


def expected() -> dict[Path, tuple[dict[str, str], dict[str, str]]]:
    """`{directory: ({file: sha256}, {package: version})}` of every figure and table, published or else made here."""
    found = {}
    for path in sorted(Path("results/experiments").glob(f"*/**/{manifest.NAME}")):
        made = manifest.read(path.parent)
        if made and made["rule"].startswith(("plot_", "tabulate_")):
            found[path.parent] = ({name: file["sha256"] for name, file in made["outputs"].items()}, made["versions"])
    if ARCHIVE.exists():
        archive = json.loads(ARCHIVE.read_text())
        for place, versions in archive["versions"].items():
            files = {
                path.removeprefix(f"{place}/"): digest
                for path, digest in archive["figures"].items()
                if path.startswith(f"{place}/")
            }
            found[Path(place)] = (files, versions)
    return found


def compared(directory: Path, files: dict[str, str], versions: dict[str, str]) -> Compared:
    """Make the node in `directory` again elsewhere, and say how it compares."""
    with tempfile.TemporaryDirectory(prefix="verify-") as place:
        copy = Path(place, directory.name)
        copy.mkdir()
        node = json.loads(node_text(directory))
        (copy / CONFIG).write_text(json.dumps(node))
        script = SCRIPTS / f"{node['rule']}.py"
        done = subprocess.run([sys.executable, str(script), str(copy)], capture_output=True, text=True, check=False)
        if done.returncode:
            return Compared(str(directory), "failed", [], done.stderr.rstrip())
        made = {
            name: hashlib.sha256((copy / name).read_bytes()).hexdigest() for name in files if (copy / name).exists()
        }
    differing = [name for name in files if made.get(name) != files[name]]
    if not differing:
        return Compared(str(directory), "equal", [])
    numbers = [name for name in differing if not name.endswith(DRAWN)]
    if numbers:
        return Compared(str(directory), "different", numbers)
    here = {name: metadata.version(name) for name in versions}
    others = [f"{name} {versions[name]} then, {here[name]} now" for name in versions if here[name] != versions[name]]
    why = "; ".join(others) or "same package versions: the drawing code or the compression library changed"
    return Compared(str(directory), "redrawn", differing, why)


def node_text(directory: Path) -> str:
    """The node's config.json; of an unpacked archive that has drawn nothing yet, the archive's copy."""
    path = directory / CONFIG
    if path.exists():
        return path.read_text()
    return json.dumps(json.loads(ARCHIVE.read_text())["nodes"][directory.as_posix()])
