"""`sft check`: what a program reads of good and bad files, several files, and what it costs."""

import json
import resource
import subprocess
import sys
from pathlib import Path

from sft_command import ROOT, command, sft

MORE = """\
experiments:
  more:
    dataset: digits
    model: {run: digits}
    seeds: [0]
    method: full
    training: {learning_rate: 1e-3, global_batch_size: 8, max_steps: 2, max_length: 64}
"""


def test_json_has_runs_jobs_estimates_and_notes(tmp_path: Path) -> None:
    done = sft("check", ROOT / "config/config.yaml", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert set(found) == {"ok", "files", "archive", "runs", "jobs", "estimates", "new_code", "notes"}
    assert (found["ok"], found["archive"]) == (True, False)
    assert found["files"] == [str(ROOT / "config/config.yaml")]
    run = found["runs"][0]
    assert set(run) == {"experiment", "cell", "seed", "directory", "state", "reason"}
    assert run["state"] == "missing"
    assert run["directory"].startswith("results/runs/")
    jobs = found["jobs"]
    assert {key for job in jobs for key in job} == {"rule", "directory", "state", "reason", "within"}
    assert {job["directory"] for job in jobs if job["rule"] == "train_model"} == {r["directory"] for r in found["runs"]}
    assert set(found["notes"]) == {"chosen_on_test", "moved", "unpinned", "other_packages"}
    assert set(found["estimates"][0]) == {"experiment", "cell", "needs", "memory_mib", "runtime_minutes"}
    assert not (tmp_path / "results").exists()


def test_json_of_a_bad_file_has_every_problem(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("experimnts: {}\n")
    done = sft("check", "bad.yaml", "--json", cwd=tmp_path)
    assert done.returncode == 1
    found = json.loads(done.stdout)
    assert found["ok"] is False
    assert found["problems"][0] == {
        "file": "bad.yaml",
        "line": 1,
        "key": "experimnts",
        "message": "unknown key",
        "fix": "Did you mean experiments?",
    }
    assert "bad.yaml:1: experimnts: unknown key. Did you mean experiments?" in done.stderr


def test_several_files_are_read_as_one(tmp_path: Path) -> None:
    (tmp_path / "more.yaml").write_text(MORE)
    alone = sft("check", "more.yaml", cwd=tmp_path)
    assert alone.returncode == 1
    assert "more.yaml:3: experiments.more.dataset: there is no data set digits" in alone.stderr
    both = sft("check", ROOT / "config/config.yaml", "more.yaml", "--json", cwd=tmp_path)
    assert both.returncode == 0, both.stderr
    assert {"digits", "digits_shift", "more"} == {run["experiment"] for run in json.loads(both.stdout)["runs"]}


def test_without_a_default_file_one_has_to_be_named(tmp_path: Path) -> None:
    done = sft("check", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr == "error: there is no config/config.yaml here. Name a configuration file after the verb\n"


def test_write_makes_the_files_that_a_script_is_started_with(tmp_path: Path) -> None:
    done = sft("check", ROOT / "config/config.yaml", "--write", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    written = {str(path.parent.relative_to(tmp_path)) for path in (tmp_path / "results").rglob("config.json")}
    assert {job["directory"] for job in json.loads(done.stdout)["jobs"]} == written


def test_it_takes_about_a_cpu_second(unmeasured) -> None:
    """1.5 s, measured in what an import of its libraries takes (0.22 s on a quiet machine) beside it on this one."""
    libraries = [sys.executable, "-c", "import pydantic, yaml\nclass Model(pydantic.BaseModel):\n    value: int"]
    spent, imports = [], []
    for _ in range(3):
        spent.append(cpu_seconds([*command(), "check"]))
        imports.append(cpu_seconds(libraries))
    assert min(spent) < 7 * min(imports), (spent, imports)


def cpu_seconds(words: list[str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(words, cwd=ROOT, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
