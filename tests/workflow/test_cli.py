"""The verbs on real results: what is run, what is drawn, what is refused, and that nothing else is trained for it.

Tests: sft.cli.convert, sft.cli.finished, sft.cli.report, sft.cli.show, sft.cli.verify
"""

import json
import shutil
from pathlib import Path

import pytest
from checkouts import CONFIG, Checkout, new_checkout

from sft_command import sft as command

pytestmark = pytest.mark.slow

OWN = CONFIG.replace("  words:\n    dataset: words\n", "  own:\n    title: My own\n    dataset: words\n").partition(
    "  more_words:"
)[0]
UNFINISHED = OWN.replace("max_steps: 2", "max_steps: 3").replace("  own:\n", "  unfinished:\n")


def sft(checkout: Checkout, *words: str):
    return command(*words, cwd=checkout.path, scripts=checkout.path / "scripts")


def line(stderr: str) -> str:
    """The line of Snakemake that was printed; empty where Snakemake was not started."""
    return next((line for line in stderr.splitlines() if "snakemake " in line.partition(" -")[0] + " "), "")


@pytest.fixture
def fresh(tmp_path: Path) -> Checkout:
    return new_checkout(tmp_path / "fresh")


def test_run_plans_what_snakemake_plans_and_several_files(fresh: Checkout) -> None:
    (fresh.path / "own.yaml").write_text(OWN)
    done = sft(fresh, "run", "config/config.yaml", "own.yaml", "-n", "--quiet", "rules")
    assert done.returncode == 0, done.stderr
    assert "--configfile config/config.yaml own.yaml" in line(done.stderr)
    jobs = dict(one.split() for one in (done.stdout + done.stderr).splitlines() if len(one.split()) == 2)
    assert int(jobs["collect_metrics"]) == 3
    assert int(jobs["train_model"]) == 2, "own is a run of the default file under another name"
    assert not (fresh.path / "results").exists()


def test_a_finished_study_has_nothing_to_do(checkout: Checkout) -> None:
    done = sft(checkout, "run", "-n")
    assert done.returncode == 0, done.stderr
    assert "Nothing to be done" in done.stdout + done.stderr


def test_with_own_experiments_alone_figures_trains_nothing(fresh: Checkout, checkout: Checkout) -> None:
    """`make figures` knew the default file alone, and planned its trainings."""
    shutil.rmtree(checkout.path / "results/experiments/more_words")
    (checkout.path / "results/experiments/words").rename(checkout.path / "results/experiments/mine")
    for run in (checkout.path / "results/runs").iterdir():
        (run / "manifest.json").unlink()
    done = sft(checkout, "figures", "-n")
    assert done.returncode == 1
    assert line(done.stderr) == "", "Snakemake was started"
    assert "words: not finished, " in done.stderr
    assert "Finish it with: sft run\n" in done.stderr
    assert "Ledgers that are here: mine. Name the file that defines them: sft figures FILE" in done.stderr


def test_figures_draws_what_is_finished_and_names_the_rest(checkout: Checkout) -> None:
    (checkout.path / "own.yaml").write_text(OWN)
    (checkout.path / "unfinished.yaml").write_text(UNFINISHED)
    trained = set((checkout.path / "results").rglob("train_model.log"))
    # own is words under another name: its run is there, its ledger is not.
    done = sft(checkout, "figures", "own.yaml", "unfinished.yaml", "--cores", "2")
    assert done.returncode == 0, done.stderr
    assert "unfinished: not finished, " in done.stderr
    assert "1 of them a training. Finish it with: sft run own.yaml unfinished.yaml" in done.stderr
    experiments = checkout.path / "results/experiments"
    assert (experiments / "own/figures/comparison/comparison.svg").exists()
    assert not list((experiments / "unfinished").rglob("manifest.json"))
    assert set((checkout.path / "results").rglob("train_model.log")) == trained, "nothing was trained"

    again = sft(checkout, "figures", "own.yaml")
    assert "Nothing to be done" in again.stdout + again.stderr
    assert line(again.stderr).endswith("snakemake figures --configfile own.yaml --quiet rules progress --cores all")

    shown = sft(checkout, "show", "own.yaml", "--json")
    (found,) = json.loads(shown.stdout)
    assert (found["experiment"], found["title"]) == ("own", "My own")
    assert {"cell", "metric", "final"} <= set(found["rows"][0])
    assert "results/experiments/own/figures/comparison/comparison.png" in found["figures"]
    missing = sft(checkout, "show", "unfinished.yaml")
    assert missing.returncode == 1
    assert "no finished table below results/experiments/unfinished" in missing.stderr

    verified = sft(checkout, "verify", "own.yaml", "--json")
    assert verified.returncode == 0, verified.stderr
    assert {one["result"] for one in json.loads(verified.stdout)} == {"equal"}
    assert {Path(one["directory"]).parts[2] for one in json.loads(verified.stdout)} == {"own"}

    refused = sft(checkout, "archive", "own.yaml", "unfinished.yaml")
    assert refused.returncode == 1
    assert line(refused.stderr) == ""
    packed = sft(checkout, "archive", "own.yaml")
    assert packed.returncode == 0, packed.stderr
    assert json.loads((checkout.path / "results/archive/config.json").read_text())["config"]["experiments"] == {
        "own": {}
    }

    reported = sft(checkout, "report", "own.yaml", "unfinished.yaml")
    assert reported.returncode == 0, reported.stderr
    assert " figures, tables and audits are not there and are left out. Make them with: sft run own" in reported.stderr
    page = (checkout.path / "results/report.html").read_text()
    assert "own" in page
    assert "comparison.svg" in page


def test_status_of_files_has_the_runs_that_nobody_started(checkout: Checkout) -> None:
    (checkout.path / "unfinished.yaml").write_text(UNFINISHED)
    states = [run["state"] for run in json.loads(sft(checkout, "status", "--json").stdout)]
    assert states == ["scored", "scored"]
    (one,) = json.loads(sft(checkout, "status", "unfinished.yaml", "--json").stdout)
    assert (one["state"], one["detail"]) == ("planned", "not started")
