"""`make lock-check` accepts the pins of this checkout and names file, line and fix of every planted fault."""

import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pin_check import check, post_deploy_script
from pins import read_yaml

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name in ("locks", "envs"):
        shutil.copytree(ROOT / name, tmp_path / name)
    for path in ROOT.glob("requirements*.in"):
        shutil.copy(path, tmp_path)
    return tmp_path


def edit(path: Path, pattern: str, replacement: str) -> int:
    """Replace the first match of `pattern`; the line it was on, counted from 1."""
    text = path.read_text()
    match = re.search(pattern, text, re.MULTILINE)
    assert match, f"{pattern!r} is not in {path}"
    path.write_text(text[: match.start()] + match.expand(replacement) + text[match.end() :])
    return text.count("\n", 0, match.start()) + 1


def complaints(checkout: Path) -> list[str]:
    return [str(problem) for problem in check(checkout)]


def test_the_committed_pins_agree_in_under_a_second(unmeasured):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, ROOT / "tools/lock.py", "check"], capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert (done.returncode, done.stderr) == (0, "")
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1


def test_a_fault_ends_the_command_with_its_message_and_no_traceback(checkout):
    edit(checkout / "requirements.in", r"^peft==[\d.]+", "peft==0.0.1")
    command = [sys.executable, ROOT / "tools/lock.py", "check", "--root", checkout]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "error: locks/cpu.txt:" in done.stderr
    assert "Traceback" not in done.stderr


# file, what is replaced in it, by what, and what the error must say; {line} is the line of the change.
FAULTS = {
    "bumped pin, lock not made again": (
        "requirements.in",
        r"^pandas==[\d.]+",
        "pandas==9.9.9",
        r"locks/cuda\.txt:\d+: pandas==3\.\d+\.\d+, but requirements\.in:{line} says 9\.9\.9\. Run: make lock",
    ),
    "new dependency, lock not made again": (
        "requirements.in",
        r"^seaborn==.*$",
        r"\g<0>\nhumanize==4.0.0  # sizes",
        r"locks/cpu\.txt:1: humanize==4\.0\.0 of requirements\.in is missing",
    ),
    "removed dependency, lock not made again": (
        "requirements.in",
        r"^tensorboard==.*\n",
        "",
        r"locks/cpu\.txt:2: was not made from requirements\.in as it is now",
    ),
    "unpinned source": ("requirements.in", r"^rich==\S+", "rich", r"requirements\.in:{line}: 'rich' is not pinned"),
    "range in a source": (
        "requirements.in",
        r"^rich==",
        "rich>=",
        r"requirements\.in:{line}: 'rich>=.*' is not pinned",
    ),
    "pin without a reason": (
        "requirements-test.in",
        r"^(ruff==\S+).*$",
        r"\1",
        r"requirements-test\.in:{line}: ruff==\S+ comes without a reason",
    ),
    "the same package twice": (
        "requirements.in",
        r"^(rich==.*)$",
        r"\1\n\1",
        r"requirements\.in:\d+: rich stands here a second time \(first on line {line}\)",
    ),
    "lock pair differs in a version": (
        "locks/cpu.txt",
        r"^numpy==[\d.]+",
        "numpy==1.0.0",
        r"locks/cpu\.txt:{line}: numpy==1\.0\.0 differs from locks/cuda\.txt:\d+",
    ),
    "lock pair differs in a hash": (
        "locks/cuda.txt",
        r"(^tqdm==\S+ \\\n    --hash=sha256:)........",
        r"\g<1>00000000",
        r"locks/cpu\.txt:\d+: tqdm==\S+ differs from locks/cuda\.txt:{line}",
    ),
    "a CUDA library in the CPU lock": (
        "locks/cpu.txt",
        r"^tqdm==",
        f"triton==3.7.1 \\\\\n    --hash=sha256:{'0' * 64}\ntqdm==",
        r"locks/cpu\.txt:{line}: triton belongs to CUDA builds of torch",
    ),
    "torch builds of two versions": (
        "locks/cpu.txt",
        r"^torch==[\d.]+\+cpu",
        "torch==2.0.0+cpu",
        r"locks/cpu\.txt:{line}: torch==2\.0\.0\+cpu, but locks/cuda\.txt:\d+ has",
    ),
    "a package gone from one lock": (
        "locks/cuda.txt",
        r"^wrapt==.*\n(    .*\n)+",
        "",
        r"locks/cuda\.txt:1: wrapt==\S+ of locks/cpu\.txt:\d+ is missing",
    ),
    "an unhashed line": (
        "locks/test.txt",
        r"^(iniconfig==\S+) .*\n(    .*\n)+",
        r"\1\n",
        r"locks/test\.txt:{line}: iniconfig==\S+ has no --hash line",
    ),
    "an unpinned line in a lock": (
        "locks/test.txt",
        r"^iniconfig==\S+",
        "iniconfig",
        r"locks/test\.txt:{line}: 'iniconfig .*' is not a pinned, hashed package",
    ),
    "two locks disagree": (
        "locks/test.txt",
        r"^packaging==[\d.]+",
        "packaging==1.0",
        r"locks/test\.txt:{line}: packaging==1\.0, but locks/cuda\.txt:\d+ says",
    ),
    "a lock that names an index": (
        "locks/cuda.txt",
        r"\A",
        "--index-url https://index.example.org/simple\n",
        r"locks/cuda\.txt:{line}: '--index-url .*' names a host or a path",
    ),
    "a lock that names a host in a comment": (
        "locks/cuda.txt",
        r"^tqdm==",
        "# via mirror.example.com\ntqdm==",
        r"locks/cuda\.txt:{line}: '# via mirror\.example\.com' names a host or a path",
    ),
    "a lock that names a folder": (
        "locks/cpu.txt",
        r"^torch==\S+",
        "torch @ file:///somewhere/torch.whl",
        r"locks/cpu\.txt:{line}: 'torch @ .*' names a host or a path",
    ),
    "an environment that names a path": (
        "envs/report.yaml",
        r"^  - pip:",
        "  - /somewhere/pip:",
        r"envs/report\.yaml:{line}: '- /somewhere/pip:' names a host or a path",
    ),
    "a hash that was edited by hand": (
        "locks/uv.txt",
        r"sha256:........",
        "sha256:00000000",
        r"locks/uv\.txt:2: was not made from requirements-uv\.in as it is now, or was edited since",
    ),
    "-r in an environment": (
        "envs/train.yaml",
        r"^      - torch==.*$",
        "      - -r requirements.txt",
        r"envs/train\.yaml:{line}: option -r: Snakemake copies",
    ),
    "-c in an environment": (
        "envs/train.yaml",
        r"^      - torch==.*$",
        "      - --constraint locks.txt",
        r"envs/train\.yaml:{line}: option --constraint",
    ),
    "an unpinned package in an environment": (
        "envs/report.yaml",
        r"pandas==\S+",
        "pandas",
        r"envs/report\.yaml:{line}: '- pandas' is not an exactly pinned package",
    ),
    "an unpinned conda package": (
        "envs/data.yaml",
        r"python ==\S+",
        "python >=3.11",
        r"envs/data\.yaml:{line}: '- python >=3\.11' is not an exactly pinned package",
    ),
    "a package gone from an environment": (
        "envs/report.yaml",
        r"^      - seaborn==.*\n",
        "",
        r"envs/report\.yaml:1: seaborn of envs/report\.in:\d+ is missing",
    ),
    "an indirect package gone from an environment": (
        "envs/report.yaml",
        r"^      - cycler==.*\n",
        "",
        r"envs/report\.yaml:2: was not made from envs/report\.in as it is now, or was edited since",
    ),
    "two environments disagree": (
        "envs/train.yaml",
        r"pillow==\S+",
        "pillow==1.0.0",
        r"envs/train\.yaml:{line}: pillow==1\.0\.0, but envs/data\.yaml:\d+ says",
    ),
    "two environments with two Pythons": (
        "envs/train.yaml",
        r"python ==\S+",
        "python ==3.12.0",
        r"envs/train\.yaml:{line}: python==3\.12\.0, but envs/data\.yaml:\d+ says",
    ),
    "an environment whose lock moved on": (
        "envs/data.yaml",
        r"scipy==\S+",
        "scipy==1.0.0",
        r"envs/data\.yaml:{line}: scipy==1\.0\.0, but locks/cuda\.txt:\d+ says",
    ),
    "a stage that wants what no lock has": (
        "envs/data.in",
        r"\Z",
        "polars  # faster tables\n",
        r"envs/data\.in:\d+: polars is in no lock\. Pin it in requirements\.in",
    ),
    "a version in a stage": (
        "envs/data.in",
        r"^pillow ",
        "pillow==3.0.0 ",
        r"envs/data\.in:{line}: 'pillow==3\.0\.0' is not a bare package name",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_named_with_its_place(checkout, fault):
    name, pattern, replacement, expected = FAULTS[fault]
    line = edit(checkout / name, pattern, replacement)
    found = complaints(checkout)
    assert any(re.match(expected.replace("{line}", str(line)), text) for text in found), "\n".join(found)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("report.linux-64.pin.txt", r"envs/report\.linux-64\.pin\.txt:1: Snakemake would use this file instead of"),
        ("report.post-deploy.sh", r"envs/report\.post-deploy\.sh:1: Snakemake would run this"),
        ("plots.yaml", r"envs/plots\.yaml:1: has no source"),
    ],
)
def test_a_stray_file_beside_the_environments_is_refused(checkout, name, expected):
    (checkout / "envs" / name).write_text("@EXPLICIT\n")
    assert any(re.match(expected, text) for text in complaints(checkout))


@pytest.mark.parametrize("name", ["locks/cpu.txt", "locks/uv.txt", "envs/report.yaml", "requirements-test.in"])
def test_a_missing_file_is_named(checkout, name):
    (checkout / name).unlink()
    assert any(text.startswith(f"{name}:1: is missing.") for text in complaints(checkout))


def test_a_comment_in_a_source_changes_nothing(checkout):
    edit(checkout / "requirements.in", r"^(pandas==\S+).*$", r"\1  # tables, and more")
    edit(checkout / "envs/report.in", r"^(pandas).*$", r"\1  # tables, and more")
    assert complaints(checkout) == []


PINNED = """\
@EXPLICIT
https://host/conda-forge/linux-64/python-{python}-h1a2b3c4_0.conda#0123456789abcdef0123456789abcdef
https://host/conda-forge/noarch/pip-{pip}-pyh1.conda#0123456789abcdef0123456789abcdef
https://host/conda-forge/linux-64/libffi-3.4.2-h7f98852_5.tar.bz2#0123456789abcdef0123456789abcdef
"""


@pytest.fixture
def pinned(checkout: Path) -> Path:
    """A checkout with an explicit pin file and its script, as `make pin` writes them."""
    yaml = read_yaml(checkout / "envs/report.yaml", checkout)
    versions = {name: pin.version for name, pin in yaml.conda.items()}
    (checkout / "envs/report.linux-64.pin.txt").write_text(PINNED.format(**versions))
    (checkout / "envs/report.post-deploy.sh").write_text(post_deploy_script(yaml))
    return checkout


def test_an_explicit_pin_file_that_agrees_is_accepted(pinned):
    assert complaints(pinned) == []


@pytest.mark.parametrize(
    ("file", "pattern", "replacement", "expected"),
    [
        ("report.linux-64.pin.txt", r"python-[0-9.]+", "python-3.11.1", r"pin\.txt:2: python: 3\.11\.1 here, 3\.11"),
        ("report.linux-64.pin.txt", r"(pyh1\.conda)#.*", r"\1", r"pin\.txt:3: .* is no package with its hash"),
        ("report.linux-64.pin.txt", r"@EXPLICIT\n", "", r"pin\.txt:1: is no explicit list"),
        ("report.linux-64.pin.txt", r".*pip-.*\n", "", r"pin\.txt:1: pip: no version here"),
        (
            "report.post-deploy.sh",
            r"pandas==[0-9.]+",
            "pandas==1.0",
            r"post-deploy\.sh:1: .* not what `make pin` writes",
        ),
    ],
)
def test_an_explicit_pin_file_that_drifts_is_refused(pinned, file, pattern, replacement, expected):
    edit(pinned / "envs" / file, pattern, replacement)
    assert any(re.search(expected, text) for text in complaints(pinned)), complaints(pinned)


def test_a_script_without_its_pin_file_is_refused(pinned):
    (pinned / "envs/report.linux-64.pin.txt").unlink()
    assert ["there is no pin file that needs it" in text for text in complaints(pinned)] == [True]


def test_a_variant_is_held_to_its_source(checkout):
    edit(checkout / "locks/variants/cpu-accelerate-1.14.in", r"==1\.14\.0", "==1.13.0")
    [complaint] = complaints(checkout)
    assert re.match(r"locks/cpu-accelerate-1\.14\.txt:\d+: accelerate==1\.14\.0, but locks/variants/", complaint)


def test_a_lock_without_source_is_refused(checkout):
    (checkout / "locks/mine.txt").write_text("")
    assert any("locks/mine.txt:1: has no source" in text for text in complaints(checkout))
