"""Reads the files that pin software: `*.in` sources, hashed `locks/*.txt`, `envs/*.yaml`.

Only the dialect that `tools/lock.py` writes is understood, on purpose: a line that it would not write is an error
with its place, not a guess. Standard library only, so that any Python can check the locks before anything is
installed.
"""

import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path

# Each lock and what it is made from; envs/<stage>.yaml is made from envs/<stage>.in and envs/conda.in. A variant,
# locks/<name>.txt, is requirements.in with the changes and additions of locks/variants/<name>.in.
SOURCES = {
    "locks/cpu.txt": "requirements.in",
    "locks/cuda.txt": "requirements.in",
    "locks/test.txt": "requirements-test.in",
    "locks/uv.txt": "requirements-uv.in",
    "locks/conda.txt": "requirements-conda.in",
}

# PyPI's CUDA builds of torch pull in these; the CPU build does not.
CUDA_LIBRARY = re.compile(r"(nvidia(?!-ml-py\b)|cuda|triton)\b")  # nvidia-ml-py only reads the driver

_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_VERSION = r"[A-Za-z0-9][A-Za-z0-9.+!_-]*"
_PIN = re.compile(rf"({_NAME})==({_VERSION})")
_LOCKED = re.compile(rf"({_NAME})==({_VERSION})(?: ; ([^\\#]+?))?( \\)?")
_HASH = re.compile(r"    --hash=sha256:([0-9a-f]{64})( \\)?")
_CONDA = re.compile(rf"  - ({_NAME}) ==({_VERSION})")
_PIP = re.compile(rf"      - ({_NAME})==({_VERSION})")
_OPTION = re.compile(r"\s*(?:- )?(-r|-c|-e|-f|-i|--[a-z-]+)\b")
_ELSEWHERE = re.compile(
    r"[a-z+]+://|\s@\s|\.whl\b|(^|[\s'\"])[./]*/[\w.]|--(index-url|extra-index-url|find-links|trusted-host)"
    r"|\b[a-z0-9-]+\.(org|com|io|net|dev|ai)\b",
    re.IGNORECASE,
)
SEAL = re.compile(r"# seal: ([0-9a-f]{64})")
# In a variant: a package that this environment goes without, of requirements.in or of what others ask for.
WITHOUT = re.compile(r"^# without: ([A-Za-z0-9._-]+)", re.MULTILINE)


@dataclass
class Pin:
    """One package at one version; `line` counts from 1."""

    name: str
    version: str
    line: int
    marker: str = ""
    hashes: list[str] = field(default_factory=list)


@dataclass
class Problem:
    """What is wrong where, and how to mend it."""

    path: Path
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.path.as_posix()}:{self.line}: {self.text}"


@dataclass
class PinFile:
    """What a file pins. `pins` maps normalised names; `conda` holds the packages that conda itself installs."""

    path: Path
    pins: dict[str, Pin] = field(default_factory=dict)
    conda: dict[str, Pin] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def add(self, pin: Pin) -> None:
        known = self.pins.get(pin.name)
        if known is not None:
            self.wrong(pin.line, f"{pin.name} stands here a second time (first on line {known.line}). Keep one")
        else:
            self.pins[pin.name] = pin

    def wrong(self, line: int, text: str) -> None:
        self.problems.append(Problem(self.path, line, text))


def normal(name: str) -> str:
    """The name by which PyPI knows a package (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def seal(source: dict[str, Pin], body: str) -> str:
    """The digest that ties a generated file to the pins of its source and to its own text, without comments."""
    lines = [f"{pin.name}=={pin.version}" for _, pin in sorted(source.items())]
    lines += [line for line in body.splitlines() if line and not line.startswith("#")]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def read_source(path: Path, root: Path, versions: bool = True) -> PinFile:
    """A `*.in` file: `name==version  # reason` a line, or `name  # reason` when the lock gives the versions."""
    found = PinFile(path.relative_to(root))
    for number, line in _lines(path, found):
        text, _, reason = (part.strip() for part in line.partition("#"))
        if not text or _refused(found, number, line):
            continue
        pin = _PIN.fullmatch(text)
        if versions and not pin:
            found.wrong(number, f"{text!r} is not pinned. Write name==version, and why it is needed after a #")
        elif not versions and not re.fullmatch(_NAME, text):
            found.wrong(number, f"{text!r} is not a bare package name. The version belongs in requirements.in")
        elif not reason:
            found.wrong(number, f"{text} comes without a reason. Say after a # what it is needed for")
        else:
            found.add(Pin(normal(pin[1] if pin else text), pin[2] if pin else "", number))
    return found


def read_lock(path: Path, root: Path) -> PinFile:
    """A hashed lock: `name==version [; marker] \\` followed by its `--hash` lines."""
    found = PinFile(path.relative_to(root))
    current: Pin | None = None
    for number, line in _lines(path, found):
        if not line or line.startswith("#"):
            continue
        hashed = _HASH.fullmatch(line)
        if hashed and current is not None:
            current.hashes.append(hashed[1])
            continue
        if _refused(found, number, line):
            continue
        locked = _LOCKED.fullmatch(line)
        if not locked:
            found.wrong(number, f"{line.strip()!r} is not a pinned, hashed package. Write the file with: make lock")
            continue
        current = Pin(normal(locked[1]), locked[2], number, (locked[3] or "").strip())
        found.add(current)
    for pin in found.pins.values():
        if not pin.hashes:
            found.wrong(pin.line, f"{pin.name}=={pin.version} has no --hash line. Write the file with: make lock")
    return found


def read_yaml(path: Path, root: Path) -> PinFile:
    """A generated conda environment: `- name ==version` lines, then a `- pip:` list of `- name==version`."""
    found = PinFile(path.relative_to(root))
    section = ""
    for number, line in _lines(path, found):
        if not line.strip() or line.startswith("#"):
            continue
        if line in ("channels:", "dependencies:"):
            section = line
        elif section == "channels:" and re.fullmatch(r"  - [a-z][a-z0-9_-]*", line):
            continue
        elif line == "  - pip:" and section == "dependencies:":
            section = line
        elif _refused(found, number, line):
            continue
        elif section == "dependencies:" and (pin := _CONDA.fullmatch(line)):
            found.conda[normal(pin[1])] = Pin(normal(pin[1]), pin[2], number)
        elif section == "  - pip:" and (pin := _PIP.fullmatch(line)):
            found.add(Pin(normal(pin[1]), pin[2], number))
        else:
            found.wrong(number, f"{line.strip()!r} is not an exactly pinned package. Write the file with: make lock")
    return found


def stage_sources(root: Path) -> list[Path]:
    """The `envs/<stage>.in` files; `envs/conda.in` is shared by all of them."""
    return [path for path in sorted((root / "envs").glob("*.in")) if path.name != "conda.in"]


def lock_sources(root: Path) -> dict[str, str]:
    """Every lock and its source: `SOURCES`, and the variants that are there."""
    found = sorted((root / "locks/variants").glob("*.in"))
    return SOURCES | {f"locks/{path.stem}.txt": path.relative_to(root).as_posix() for path in found}


def is_variant(source: str) -> bool:
    return source.startswith("locks/variants/")


def on_cpu(lock: Path) -> bool:
    """Whether a lock takes torch's +cpu build: `cpu.txt`, and variants called `cpu-…`."""
    return lock.stem == "cpu" or lock.stem.startswith("cpu-")


def source_of(root: Path, target: str) -> PinFile:
    """What the generated file `target` (a path below `root`) was made from."""
    locks = lock_sources(root)
    if target in locks:
        source = read_source(root / locks[target], root)
        if is_variant(locks[target]):
            left_out = {normal(name) for name in WITHOUT.findall((root / locks[target]).read_text(encoding="utf-8"))}
            main = read_source(root / SOURCES["locks/cuda.txt"], root).pins
            source.pins = {name: pin for name, pin in main.items() if name not in left_out} | source.pins
        return source
    source = read_source((root / target).with_suffix(".in"), root, versions=False)
    source.pins |= read_source(root / "envs/conda.in", root).pins
    return source


def _lines(path: Path, found: PinFile) -> list[tuple[int, str]]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        found.wrong(1, "is missing. Write it with: make lock")
        return []
    numbered = list(enumerate(text.splitlines(), 1))
    for number, line in numbered:
        if not _HASH.fullmatch(line) and _ELSEWHERE.search(line):
            found.wrong(number, f"{line.strip()!r} names a host or a path. Only names, versions and hashes may be here")
    return numbered


def _refused(found: PinFile, number: int, line: str) -> bool:
    """Whether `line` is an option, or names a host or a path (which is already reported)."""
    if option := _OPTION.match(line):
        found.wrong(
            number,
            f"option {option[1]}: Snakemake copies an environment file elsewhere and hashes only its own text, so "
            "what an option refers to is neither found nor tracked. List the packages themselves",
        )
        return True
    return bool(_ELSEWHERE.search(line))
