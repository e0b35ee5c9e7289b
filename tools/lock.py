"""Turns the pins that people choose into the locks and environments that machines install, and keeps them true.

    python tools/lock.py write              # resolve again; needs uv and PyPI. What is locked stays where it can
    python tools/lock.py write --upgrade    # ... and let indirect dependencies move to their newest versions
    python tools/lock.py check              # offline, under a second: any drift is an error with file, line and fix

requirements.in (direct pins)      -> locks/cuda.txt   torch as PyPI serves it, with its CUDA libraries
                                   -> locks/cpu.txt    the same, with torch's +cpu build and without those libraries
requirements-test.in               -> locks/test.txt
requirements-uv.in                 -> locks/uv.txt
requirements-conda.in              -> locks/conda.txt
locks/variants/<name>.in           -> locks/<name>.txt   requirements.in with these changes and additions; torch's
                                      +cpu build where the name begins with cpu-; for one platform
                                      where a line says "# only: Linux x86-64"; "# without: NAME" leaves a package out
envs/<stage>.in + envs/conda.in    -> envs/<stage>.yaml  their closure at the versions of locks/cuda.txt

Locks are hashed and hold for Linux (x86-64, aarch64) and macOS. The +cpu build is not on PyPI: `write` looks for it in
the folder that UV_FIND_LINKS or PIP_FIND_LINKS names or in the index given by --torch-index, and otherwise keeps the
hashes that it already has for that version.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from pin_check import check
from pins import (
    CUDA_LIBRARY,
    WITHOUT,
    Pin,
    is_variant,
    lock_sources,
    normal,
    on_cpu,
    read_lock,
    read_source,
    seal,
    source_of,
    stage_sources,
)

ROOT = Path(__file__).resolve().parent.parent
PYTHON = "3.11"  # the oldest supported; the versions chosen for it must serve the newer ones too
# One version of each package for every Python and platform ("fewest"), so that two machines run the same libraries.
UNIVERSAL = ("--universal", "--fork-strategy", "fewest", "--generate-hashes")
ONLY_LINUX = "# only: Linux x86-64"
ONE_PLATFORM = ("--python-platform", "x86_64-manylinux_2_28")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["write", "check"])
    parser.add_argument("--root", type=Path, default=ROOT, help="the checkout (default: the one this script is in)")
    parser.add_argument("--upgrade", action="store_true", help="write: move indirect dependencies to newest versions")
    parser.add_argument(
        "--torch-index", default="", help="write: the index to take the hashes of torch's +cpu build from"
    )
    options = parser.parse_args()
    if options.action == "write":
        write(options.root, options.upgrade, options.torch_index)
    problems = check(options.root)
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    if problems:
        sys.exit(1)
    stages = len(stage_sources(options.root))
    print(f"locks: {len(lock_sources(options.root))} locks and {stages} environments agree with their sources")


def write(root: Path, upgrade: bool, torch_index: str) -> None:
    """Resolve every lock and environment below `root` again; nothing is written unless all of them resolve."""
    uv = _Uv(root, upgrade)
    cuda = uv.lock(root / "requirements.in", "locks/cuda.txt")
    version = read_source(root / "requirements.in", root).pins["torch"].version
    made = {"locks/cuda.txt": cuda, "locks/cpu.txt": _without_cuda(cuda, _cpu_torch(uv, root, version, torch_index))}
    for lock, source in lock_sources(root).items():
        if is_variant(source):
            made[lock] = _variant(uv, root, lock, cuda, torch_index)
    with tempfile.TemporaryDirectory() as scratch:
        (Path(scratch) / "lock.txt").write_text(cuda)
        locked = read_lock(Path(scratch) / "lock.txt", Path(scratch)).pins
        versions = Path(scratch) / "versions.txt"
        versions.write_text("".join(f"{pin.name}=={pin.version}\n" for pin in locked.values()))
        # The test tools share .venv with the workflow; the conda of the tests is a world of its own.
        for name, how in (("test", ("-c", str(versions))), ("uv", ()), ("conda", ("--no-deps",))):
            made[f"locks/{name}.txt"] = uv.lock(root / f"requirements-{name}.in", f"locks/{name}.txt", *how)
        conda = read_source(root / "envs/conda.in", root).pins
        for source in stage_sources(root):
            closure = uv.compile(source, *ONE_PLATFORM, "--constraint", str(versions))
            names = sorted(normal(name) for name in re.findall(r"^([A-Za-z0-9._-]+)==", closure, re.MULTILINE))
            made[f"envs/{source.stem}.yaml"] = _environment(conda, [locked[name] for name in names])
    (root / "locks").mkdir(exist_ok=True)
    for target, body in made.items():
        source = source_of(root, target)
        shown = source.path.as_posix()
        shown = f"requirements.in and {shown}" if is_variant(shown) else shown
        header = f"# Written by `make lock` from {shown}: change that file, not this one.\n"
        (root / target).write_text(f"{header}# seal: {seal(source.pins, body)}\n{body}")


class _Uv:
    """`uv pip compile` as this project uses it: no comments, no index or path in the output, nothing but PyPI."""

    def __init__(self, root: Path, upgrade: bool):
        beside = Path(sys.executable).parent / "uv"
        self.uv = str(beside) if beside.exists() else shutil.which("uv")
        if self.uv is None:
            sys.exit("error: uv is not installed. Run `make lock`, which installs it into .venv, or pip install uv")
        self.root, self.upgrade = root, upgrade
        # A +cpu build in a local folder would win over PyPI's torch and enter the CUDA lock.
        self.environment = {k: v for k, v in os.environ.items() if not re.fullmatch(r"UV_(FIND_LINKS|.*INDEX.*)", k)}

    def compile(self, source: Path, *options: str) -> str:
        command = [self.uv, "pip", "compile", "-q", "--no-header", "--no-annotate", "--no-config"]
        command += ["--python-version", PYTHON, *options, str(source)]
        done = subprocess.run(command, capture_output=True, text=True, env=self.environment)
        if done.returncode:
            sys.exit(f"error: uv could not resolve {source.name}:\n{done.stderr.strip()}")
        return done.stdout

    def lock(self, source: Path, lock: str, *options: str, like: str = "", universal: bool = True) -> str:
        """The hashed lock of `source`; what `lock` (or `like`, a text) pins stays, unless a change moves it."""
        with tempfile.TemporaryDirectory() as scratch:
            output = Path(scratch) / "lock.txt"
            if like:
                output.write_text(like)
            elif (self.root / lock).exists() and not self.upgrade:
                shutil.copy(self.root / lock, output)
            platforms = UNIVERSAL if universal else ("--generate-hashes", *ONE_PLATFORM)
            self.compile(source, *platforms, *options, "--output-file", str(output))
            return "".join(line for line in output.read_text().splitlines(keepends=True) if not line.startswith("#"))


def _variant(uv: _Uv, root: Path, lock: str, main: str, torch_index: str) -> str:
    """The lock of a variant: as near to the main lock as its own pins allow."""
    pins = source_of(root, lock).pins
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "variant.in"
        source.write_text("".join(f"{pin.name}=={pin.version}\n" for pin in pins.values()))
        # Some need two versions of a package for two platforms, which a lock cannot hold.
        universal = ONLY_LINUX not in (root / lock_sources(root)[lock]).read_text(encoding="utf-8")
        made = uv.lock(source, lock, like=main, universal=universal)
    for name in WITHOUT.findall((root / lock_sources(root)[lock]).read_text(encoding="utf-8")):
        made = re.sub(rf"^{re.escape(name)}==.*\n(?:    .*\n)*", "", made, flags=re.MULTILINE)
    if on_cpu(Path(lock)):
        return _without_cuda(made, _cpu_torch(uv, root, pins["torch"].version, torch_index))
    return made


def _cpu_torch(uv: _Uv, root: Path, version: str, index: str) -> str:
    """The lock's lines for torch's +cpu build."""
    folder = os.environ.get("UV_FIND_LINKS") or os.environ.get("PIP_FIND_LINKS", "")
    places = ["--index", index] if index else []
    for place in re.split(r"[,\s]+", folder):
        places += ["--find-links", place] if place else []
    if places:
        with tempfile.TemporaryDirectory() as scratch:
            source = Path(scratch) / "torch.in"
            source.write_text(f"torch=={version}+cpu\n")
            # With --no-deps uv would fetch nothing and print no hashes, so the rest of the closure is dropped here.
            text = uv.compile(source, *ONE_PLATFORM, "--generate-hashes", *places)
    else:
        text = _read(root / "locks/cpu.txt")
    known = re.search(rf"^torch=={re.escape(version)}\+cpu .*\n(?:    --hash.*\n)+", text, re.MULTILINE)
    if not known:
        sys.exit(
            f"error: locks/cpu.txt has no hashes of torch {version}+cpu, and PyPI does not serve that build. Name a "
            "folder that holds the wheel (UV_FIND_LINKS=...) or PyTorch's own CPU wheel index (TORCH_INDEX=...)"
        )
    return known[0]


def _without_cuda(lock: str, torch: str) -> str:
    """The CPU lock: `lock` with other lines for torch and without the libraries that only CUDA builds need."""
    entries = re.findall(r"^[A-Za-z0-9].*\n(?:    .*\n)*", lock, re.MULTILINE)
    kept = [torch if entry.startswith("torch==") else entry for entry in entries if not CUDA_LIBRARY.match(entry)]
    return "".join(kept)


def _environment(conda: dict[str, Pin], pins: list[Pin]) -> str:
    lines = ["channels:", "  - conda-forge", "  - nodefaults", "dependencies:"]
    lines += [f"  - {pin.name} =={pin.version}" for pin in conda.values()]
    lines += ["  - pip:"]
    lines += [f"      - {pin.name}=={pin.version}" for pin in pins if not CUDA_LIBRARY.match(pin.name)]
    return "\n".join(lines) + "\n"


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


if __name__ == "__main__":
    main()
