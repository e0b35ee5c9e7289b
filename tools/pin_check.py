"""Whether locks, environments and their sources agree: what `make lock-check` runs. Reads files, nothing else."""

import re
from pathlib import Path

from pins import (
    CUDA_LIBRARY,
    SEAL,
    Pin,
    PinFile,
    Problem,
    lock_sources,
    on_cpu,
    read_lock,
    read_source,
    read_yaml,
    seal,
    source_of,
    stage_sources,
)


def check(root: Path) -> list[Problem]:
    """Everything that is wrong with the pins below `root`; empty when all is well. Reads files, nothing else."""
    locks = {name: read_lock(root / name, root) for name in lock_sources(root)}
    sources = {name: source_of(root, name) for name in locks}
    conda = read_source(root / "envs/conda.in", root)
    by_path = {file.path: file for file in [*sources.values(), *locks.values(), conda]}
    problems = [problem for file in by_path.values() for problem in file.problems]
    for name, lock in locks.items():
        problems += _pins_of_source(sources[name], lock)
    problems += _stray_locks(root, locks)
    problems += _torch_pair(locks["locks/cpu.txt"], locks["locks/cuda.txt"])
    problems += _agree([locks["locks/cuda.txt"], locks["locks/test.txt"], locks["locks/uv.txt"]])
    yamls = []
    for source in stage_sources(root):
        yaml = read_yaml(source.with_suffix(".yaml"), root)
        roots = read_source(source, root, versions=False)
        problems += roots.problems + yaml.problems + _stage(roots, yaml, locks["locks/cuda.txt"], conda)
        yamls.append(yaml)
    problems += _agree(yamls) + _strays(root, yamls)
    # The seal is the last resort: it says that something changed, the checks above say what.
    troubled = {problem.path for problem in problems}
    for file in [*locks.values(), *yamls]:
        if file.path not in troubled and source_of(root, file.path.as_posix()).path not in troubled:
            problems += _sealed(root, file)
    return sorted(problems, key=lambda problem: (problem.path, problem.line))


def _pins_of_source(source: PinFile, lock: PinFile) -> list[Problem]:
    problems = []
    for pin in source.pins.values():
        version = pin.version + ("+cpu" if pin.name == "torch" and on_cpu(lock.path) else "")
        locked = lock.pins.get(pin.name)
        if locked is None:
            problems.append(Problem(lock.path, 1, f"{pin.name}=={version} of {source.path} is missing. Run: make lock"))
        elif locked.version != version:
            text = f"{pin.name}=={locked.version}, but {source.path}:{pin.line} says {version}. Run: make lock"
            problems.append(Problem(lock.path, locked.line, text))
    return problems


def _stray_locks(root: Path, locks: dict[str, PinFile]) -> list[Problem]:
    found = [path.relative_to(root) for path in sorted((root / "locks").glob("*.txt"))]
    return [
        Problem(path, 1, f"has no source. Write locks/variants/{path.stem}.in and run `make lock`, or delete it")
        for path in found
        if path.as_posix() not in locks
    ]


def _torch_pair(cpu: PinFile, cuda: PinFile) -> list[Problem]:
    problems = []
    for name in sorted(cpu.pins.keys() | cuda.pins.keys()):
        ours, theirs = cpu.pins.get(name), cuda.pins.get(name)
        if ours is None:
            if theirs is not None and not CUDA_LIBRARY.match(name):
                text = f"{name}=={theirs.version} of {cuda.path}:{theirs.line} is missing. Run: make lock"
                problems.append(Problem(cpu.path, 1, text))
        elif CUDA_LIBRARY.match(name):
            problems.append(Problem(cpu.path, ours.line, f"{name} belongs to CUDA builds of torch. Run: make lock"))
        elif theirs is None:
            text = f"{name}=={ours.version} of {cpu.path}:{ours.line} is missing. Run: make lock"
            problems.append(Problem(cuda.path, 1, text))
        elif name == "torch" and ours.version != f"{theirs.version}+cpu":
            text = f"torch=={ours.version}, but {cuda.path}:{theirs.line} has {theirs.version}. Run: make lock"
            problems.append(Problem(cpu.path, ours.line, text))
        elif name != "torch" and _facts(ours) != _facts(theirs):
            text = (
                f"{name}=={ours.version} differs from {cuda.path}:{theirs.line} ({name}=={theirs.version}: version, "
                "platforms or hashes). The two locks may differ in torch and its CUDA libraries only. Run: make lock"
            )
            problems.append(Problem(cpu.path, ours.line, text))
    return problems


def _facts(pin: Pin) -> tuple[str, str, list[str]]:
    return pin.version, pin.marker, sorted(pin.hashes)


def _agree(files: list[PinFile]) -> list[Problem]:
    """A package has one version, whichever file it is read from."""
    problems: list[Problem] = []
    first: dict[str, tuple[str, str]] = {}  # package: version, where it was read
    for file in files:
        for pin in [*file.conda.values(), *file.pins.values()]:
            known, place = first.setdefault(pin.name, (pin.version, f"{file.path.as_posix()}:{pin.line}"))
            if known != pin.version:
                text = f"{pin.name}=={pin.version}, but {place} says {known}. Run: make lock"
                problems.append(Problem(file.path, pin.line, text))
    return problems


def _stage(roots: PinFile, yaml: PinFile, lock: PinFile, conda: PinFile) -> list[Problem]:
    problems = []
    for pin in roots.pins.values():
        if pin.name not in lock.pins:
            text = f"{pin.name} is in no lock. Pin it in requirements.in, then run: make lock"
            problems.append(Problem(roots.path, pin.line, text))
        elif pin.name not in yaml.pins:
            problems.append(Problem(yaml.path, 1, f"{pin.name} of {roots.path}:{pin.line} is missing. Run: make lock"))
    for name, pin in yaml.pins.items():
        locked = lock.pins.get(name)
        if locked is None or locked.version != pin.version:
            said = f"{lock.path}:{locked.line} says {locked.version}" if locked else f"{lock.path} does not have it"
            problems.append(Problem(yaml.path, pin.line, f"{name}=={pin.version}, but {said}. Run: make lock"))
    for name in conda.pins.keys() | yaml.conda.keys():
        wanted, has = conda.pins.get(name), yaml.conda.get(name)
        if wanted is None or has is None or wanted.version != has.version:
            text = f"conda package {name} differs from {conda.path}. Run: make lock"
            problems.append(Problem(yaml.path, has.line if has else 1, text))
    return problems


def post_deploy_script(yaml: PinFile) -> str:
    """What installs the pip section of `yaml` where Snakemake makes an environment from a pin file instead."""
    lines = [f"    {pin.name}=={pin.version}" for pin in yaml.pins.values()]
    return (
        f"# Written by `make pin` from {yaml.path.as_posix()}. Snakemake runs it inside the environment.\n"
        "python -m pip install --quiet --no-input --disable-pip-version-check --no-deps \\\n"
        + " \\\n".join(lines)
        + "\n"
    )


def _strays(root: Path, yamls: list[PinFile]) -> list[Problem]:
    """Files beside the environments that change what Snakemake installs: only those of `make pin`, as it wrote them."""
    problems = []
    known = {yaml.path.name: yaml for yaml in yamls}
    for path in sorted((root / "envs").iterdir()):
        relative = path.relative_to(root)
        yaml = known.get(f"{path.name.split('.')[0]}.yaml")
        if path.name.endswith(".pin.txt") and yaml:
            problems += _pin_file(root, relative, yaml)
        elif path.name.endswith(".post-deploy.sh"):
            if yaml is None or path.read_text(encoding="utf-8") != post_deploy_script(yaml):
                text = "Snakemake would run this after making the environment, and it is not what `make pin` writes"
                problems.append(Problem(relative, 1, f"{text}. Delete it, or run: make pin"))
            elif not list((root / "envs").glob(f"{yaml.path.stem}.*.pin.txt")):
                problems.append(Problem(relative, 1, "there is no pin file that needs it. Delete it, or run: make pin"))
        elif path.suffix in (".yaml", ".yml") and path.name not in known:
            text = f"has no source. Write envs/{path.stem}.in and run `make lock`, or delete it"
            problems.append(Problem(relative, 1, text))
    return problems


def _pin_file(root: Path, path: Path, yaml: PinFile) -> list[Problem]:
    """An explicit pin file: whole, hashed, at the versions of the yaml, and with the script for the pip section."""
    problems = []
    lines = (root / path).read_text(encoding="utf-8").splitlines()
    if not (root / "envs" / f"{yaml.path.stem}.post-deploy.sh").exists():
        text = f"Snakemake would use this file instead of {yaml.path} and skip its pip section. Delete it, or: make pin"
        problems.append(Problem(path, 1, text))
    if "@EXPLICIT" not in lines:
        problems.append(Problem(path, 1, "is no explicit list (@EXPLICIT is missing). Write it with: make pin"))
    pinned = {}
    for number, line in enumerate(lines, 1):
        if not line or line.startswith(("#", "@")):
            continue
        package = re.fullmatch(r"\S+/([^/#]+)-([^-/#]+)-[^-/#]+\.(?:conda|tar\.bz2)(#[0-9a-f]{32,64})?", line)
        if package is None or package[3] is None:
            problems.append(
                Problem(path, number, f"{line[:80]!r} is no package with its hash. Write it with: make pin")
            )
        else:
            pinned[package[1]] = (package[2], number)
    for name, pin in yaml.conda.items():
        version, number = pinned.get(name, ("no version", 1))
        if version != pin.version:
            text = f"{name}: {version} here, {pin.version} in {yaml.path}:{pin.line}. Run: make pin"
            problems.append(Problem(path, number, text))
    return problems


def _sealed(root: Path, file: PinFile) -> list[Problem]:
    text = (root / file.path).read_text(encoding="utf-8")
    source = source_of(root, file.path.as_posix())
    found = SEAL.search(text)
    if found and found[1] == seal(source.pins, text):
        return []
    return [Problem(file.path, 2, f"was not made from {source.path} as it is now, or was edited since. Run: make lock")]
