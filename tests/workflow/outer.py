"""An outer workflow in a folder of its own, which uses this one as a module; and this one as a git repository."""

import shutil
import subprocess
from pathlib import Path

from checkouts import CONFIG, ROOT, Checkout, write_data

# What a clone has that a run or snakedeploy needs.
REPOSITORY = (
    "Snakefile",
    "workflow",
    "scripts",
    "tools",
    "config",
    "envs",
    "locks",
    "profiles",
    ".test",
    "LICENSE",
    "README.md",
)
HOSTED = "https://github.com/someone/snakemake-sft"


def clone(path: Path) -> Path:
    """This repository's files as they are now, as a clone without its own git: `path`, the folder of it."""
    for name in REPOSITORY:
        source = ROOT / name
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        if source.is_symlink():
            (path / name).symlink_to(source.readlink())
        elif source.is_dir():
            shutil.copytree(source, path / name, ignore=shutil.ignore_patterns("__pycache__", "results", ".snakemake"))
        else:
            shutil.copy(source, path / name)
    return path


def git(path: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "init.defaultBranch=main")
    done = subprocess.run(["git", "-C", path, *identity, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def commit(path: Path, tag: str) -> str:
    """Commit everything in `path`, tag it, and give the commit."""
    if not (path / ".git").exists():
        git(path, "init", "--quiet")
    git(path, "add", "--all", "--force")
    git(path, "commit", "--quiet", "--message", tag)
    git(path, "tag", tag)
    return git(path, "rev-parse", "HEAD")


def hosted_at(repository: Path) -> dict[str, str]:
    """Environment variables with which git finds HOSTED in a folder: everything else is as with a real host."""
    variables = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_VALUE_0": HOSTED}
    return variables | {"GIT_CONFIG_KEY_0": f"url.file://{repository}.insteadOf"}


def module(source: str, name: str = "sft", config: str | None = "config", rename: bool = True, more: str = "") -> str:
    """The lines by which an outer Snakefile uses this workflow; `source` is Python (a quoted path, or github(…))."""
    given = f"    config: {config}\n" if config else ""
    renamed = f" as {name}_*" if rename else ""
    return f"module {name}:\n    snakefile: {source}\n{given}{more}\nuse rule * from {name}{renamed}\n"


def outer(path: Path, snakefile: str, config: str = CONFIG) -> Checkout:
    """A folder with an outer Snakefile, config/mine.yaml and the rows that the small study is about."""
    (path / "config").mkdir(parents=True, exist_ok=True)
    (path / "config/mine.yaml").write_text(config)
    write_data(path)
    (path / "Snakefile").write_text(snakefile)
    return Checkout(path)


CONFIGFILE = 'configfile: "config/mine.yaml"\n\n'
HERE = repr(str(ROOT / "workflow/Snakefile"))
# The jobs of the small study: two experiments, one data set; small results are made within others' jobs.
STUDY = {
    **dict.fromkeys(("download_dataset", "prepare_dataset", "split_dataset", "tokenize_dataset"), 1),
    **dict.fromkeys(("audit_splits", "audit_labels", "download_processor", "convert_checkpoint", "archive"), 1),
    **dict.fromkeys(("train_model", "predict", "score", "collect_metrics", "tabulate_results"), 2),
    "plot": 8,
}
ONE = CONFIG.partition("  more_words:")[0]


def named(prefix: str, jobs: dict[str, int] = STUDY) -> dict[str, int]:
    return {prefix + rule: number for rule, number in jobs.items()}


def without_targets(jobs: dict[str, int]) -> dict[str, int]:
    return {rule: number for rule, number in jobs.items() if not rule.endswith("_all")}


def run(checkout: Checkout, *arguments: str, **variables: str) -> str:
    """Run to the end; what was said."""
    done = checkout.snakemake(*arguments, **variables)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    return done.stdout + done.stderr


def refused(checkout: Checkout, *arguments: str, **variables: str) -> str:
    """The one line with which Snakemake stops."""
    done = checkout.snakemake("-n", *arguments, **variables)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr.splitlines()[-1]


def nothing_to_do(checkout: Checkout, *arguments: str, **variables: str) -> bool:
    return "Nothing to be done" in run(checkout, "-n", *arguments, **variables)


def listing(folder: Path) -> list[tuple[str, int]]:
    """Every file and when it was changed, byte code left out."""
    files = [path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    return sorted((str(path), path.stat().st_mtime_ns) for path in files)
