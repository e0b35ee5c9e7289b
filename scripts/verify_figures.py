"""Draw every figure and table again in a temporary directory and compare with what was made or published.

Compares with the digests in the manifests under results/experiments, or, where an archive is unpacked, with those in
results/archive.json. Nothing under results/ is changed. Exit code 0: all bytes are equal. 3: all numbers are equal
(CSV files and tables), but the drawing differs, which other versions of the drawing packages explain. 1: numbers
differ, a file is missing, or something could not be drawn.

    python scripts/verify_figures.py
    python scripts/verify_figures.py results/experiments/digits_shift
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

from sft.runtime import manifest
from sft.runtime.code import SCRIPTS
from sft.runtime.stage import CONFIG

ARCHIVE = Path("results/archive.json")
DRAWN = (".pdf", ".svg", ".png")
EQUAL, DIFFERENT, DRAWN_DIFFERENTLY = 0, 1, 3


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directories", nargs="*", type=Path, help="where to look (default: results/experiments)")
    chosen = parser.parse_args().directories or [Path("results/experiments")]
    wanted = {}
    for directory, published in expected().items():
        if any(place in (directory, *directory.parents) for place in chosen):
            wanted[directory] = published
    if not wanted:
        print(f"error: no finished figure or table below {', '.join(map(str, chosen))}", file=sys.stderr)
        return DIFFERENT
    return max((verify(directory, *published) for directory, published in wanted.items()), key=(0, 3, 1).index)


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


def verify(directory: Path, files: dict[str, str], versions: dict[str, str]) -> int:
    """Make the node in `directory` again elsewhere and say how it compares; returns the exit code for it."""
    with tempfile.TemporaryDirectory(prefix="verify-") as place:
        copy = Path(place, directory.name)
        copy.mkdir()
        node = json.loads(node_text(directory))
        (copy / CONFIG).write_text(json.dumps(node))
        script = SCRIPTS / f"{node['rule']}.py"
        done = subprocess.run([sys.executable, str(script), str(copy)], capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"failed     {directory}\n{done.stderr.rstrip()}")
            return DIFFERENT
        made = {
            name: hashlib.sha256((copy / name).read_bytes()).hexdigest() for name in files if (copy / name).exists()
        }
    differing = [name for name in files if made.get(name) != files[name]]
    if not differing:
        print(f"equal      {directory} ({len(files)} files)")
        return EQUAL
    numbers = [name for name in differing if not name.endswith(DRAWN)]
    if numbers:
        print(f"DIFFERENT  {directory}: {', '.join(numbers)}")
        return DIFFERENT
    here = {name: metadata.version(name) for name in versions}
    others = [f"{name} {versions[name]} then, {here[name]} now" for name in versions if here[name] != versions[name]]
    why = "; ".join(others) or "same package versions: the drawing code or the compression library changed"
    print(f"redrawn    {directory}: numbers equal, other bytes in {', '.join(differing)} ({why})")
    return DRAWN_DIFFERENTLY


def node_text(directory: Path) -> str:
    """The node's config.json; of an unpacked archive that has drawn nothing yet, the archive's copy."""
    path = directory / CONFIG
    if path.exists():
        return path.read_text()
    return json.dumps(json.loads(ARCHIVE.read_text())["nodes"][directory.as_posix()])


if __name__ == "__main__":
    sys.exit(main())
