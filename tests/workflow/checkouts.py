"""A checkout with a small study, and real Snakemake to run or plan it."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import warm_python

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ("Snakefile", "workflow", "scripts", "tools", "config", "envs")
SNAKEMAKE = Path(sys.executable).with_name("snakemake")

CONFIG = """\
datasets:
  words:
    source: {path: data}
    format: prompt_completion
    prompt_key: prompt
    completion_key: completion
    split: {by: file_name, train: train*, test: test*, validation: {rows: 8}}

models:
  tiny: {source: {initialise: llama, hidden_size: 64, num_layers: 1, initializer_range: 0.05}}

experiments:
  words:
    dataset: words
    model: tiny
    method: full
    training: {learning_rate: 1e-3, weight_decay: 1e-2, global_batch_size: 8, max_steps: 2, max_length: 128}
    evaluation: {max_new_tokens: 2}
  more_words:
    dataset: words
    model: {run: words}
    method: lora
    training: {learning_rate: 2e-3, weight_decay: 1e-2, global_batch_size: 8, max_steps: 2, max_length: 128}
    evaluation: {max_new_tokens: 2}
"""


@dataclass
class Checkout:
    """A working directory with the workflow, a configuration and, where it was run, results."""

    path: Path

    def snakemake(
        self, *arguments: str, cwd: Path | None = None, warm: bool = True, **variables: str
    ) -> subprocess.CompletedProcess:
        """Run Snakemake here, with other environment variables where given; the caller looks at the exit code.

        Its jobs fork from one process that has imported the training stack (warm_python.py), unless `warm` is False.
        """
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | variables
        forks = warm and not {"-n", "--unlock"} & set(arguments)
        return subprocess.run(
            [*(warm_python.snakemake() if forks else [SNAKEMAKE]), "--cores", "2", *arguments],
            cwd=cwd or self.path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def planned(self, *arguments: str, cwd: Path | None = None, **variables: str) -> dict[str, int]:
        """Rule -> number of jobs that would run, from a dry run."""
        words = (*arguments, "-n", "--quiet", "rules")  # --quiet takes all words after it
        done = self.snakemake(*words, cwd=cwd, **variables)
        assert done.returncode == 0, done.stdout + done.stderr
        jobs = dict(re.findall(r"^([a-z_]+) +(\d+)$", done.stdout + done.stderr, re.MULTILINE))
        return {rule: int(n) for rule, n in jobs.items() if rule not in ("all", "total")}

    def edit(self, file: str, change: Callable[[str], str]) -> None:
        """Rewrite a file; the change must change something."""
        path = self.path / file
        before = path.read_text()
        after = change(before)
        assert after != before, f"{file}: the edit had no effect"
        path.write_text(after)

    def replace(self, file: str, old: str, new: str) -> None:
        self.edit(file, lambda text: text.replace(old, new))


def new_checkout(path: Path) -> Checkout:
    """The tracked parts of the repository that a run needs, with the small study as its configuration."""
    for name in SHIPPED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, path / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            path.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, path / name)
    (path / "config/config.yaml").write_text(CONFIG)
    write_data(path)
    return Checkout(path)


def write_data(path: Path) -> None:
    """The rows that the small study is about."""
    data = path / "data"
    data.mkdir()
    for split, rows in (("train", range(40)), ("test", range(40, 52))):
        lines = [
            json.dumps({"id": f"w{n}", "prompt": f"say {n} in letters", "completion": "yes" if n % 2 else "no"})
            for n in rows
        ]
        (data / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
