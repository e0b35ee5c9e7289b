"""A published model under two methods, with a baseline: asked once, and what a change makes again. Real Snakemake."""

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from checkouts import Checkout, new_checkout

pytestmark = pytest.mark.slow

TABLE = "results/experiments/e/table/manifest.json"
CONFIG = """\
datasets:
  categories:
    source: {path: choices}
    format: multiple_choice
    prompt_key: question
    choice_key: choices
    answer_key: label
    choices_layout: none
    target: text
    split: {train: train*, test: test*, validation: {rows: 8}}
models:
  published: {source: {path: published}}
experiments:
  e:
    dataset: categories
    model: published
    seeds: [0]
    metric: accuracy_likelihood
    training: {learning_rate: 1e-3, global_batch_size: 8, max_steps: 2, max_length: 128}
    evaluation: {split: test, max_new_tokens: 2}
    baselines: {words: {method: bag_of_words}}
    variants: {full: {method: full}, lora: {method: lora}}
"""
FOLLOW = {"collect_metrics": 1, "tabulate_results": 1}


@pytest.fixture(scope="module")
def study(finished: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A model as a directory on disk (the tiny one of the small study), and a table of its two runs."""
    checkout = new_checkout(tmp_path_factory.mktemp("published") / "checkout")
    results = finished.path / "results"
    for kind in ("processors/*/processor", "models/*/model"):
        shutil.copytree(next(results.glob(kind)), checkout.path / "published", dirs_exist_ok=True)
    data = checkout.path / "choices"
    data.mkdir()
    for split, rows in (("train", range(40)), ("test", range(40, 56))):
        lines = [
            {"id": f"r{n}", "question": f"{'claw' if n % 2 else 'leaf'} {n}", "choices": ["animal", "plant"],
             "label": "animal" if n % 2 else "plant"}
            for n in rows
        ]  # fmt: skip
        (data / f"{split}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (checkout.path / "config/config.yaml").write_text(CONFIG)
    done = checkout.snakemake(TABLE)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    return checkout


@pytest.fixture
def copy(study: Checkout, tmp_path: Path) -> Checkout:
    shutil.copytree(study.path, tmp_path / "checkout", symlinks=True)
    return Checkout(tmp_path / "checkout")


def base_rows(path: Path) -> list[dict]:
    return [row for row in pq.read_table(path).to_pylist() if row["step"] == 0]


def test_both_runs_have_the_answers_of_the_one_base(study: Checkout):
    results = study.path / "results"
    (asked,) = results.glob("base_answers/*/predictions.parquet")
    of_runs = list(results.glob("runs/*/evaluations/*/predictions.parquet"))
    assert len(of_runs) == 2
    for path in of_runs:
        assert base_rows(path) == base_rows(asked)
        made = json.loads(path.with_name("manifest.json").read_text())
        assert made["facts"]["steps"] == [0, 2]
        assert made["inputs"]["base"]["path"] == asked.parent.relative_to(study.path).as_posix()
    provenance = (results / "experiments/e/ledger/provenance.json").read_text()
    assert '"results/base_answers/' in provenance
    assert '"results/baselines/' in provenance


def test_the_table_has_methods_base_and_baseline(study: Checkout):
    lines = (study.path / "results/experiments/e/table/results.csv").read_text().splitlines()
    header, *rows = [line.split(",") for line in lines]
    cell, final = header.index("cell"), header.index("final")
    assert [row[cell] for row in rows] == ["full", "lora", "base model", "words"]
    assert float(rows[-1][final]) == 1
    assert "McNemar" in (study.path / "results/experiments/e/table/results.md").read_text()


def test_lost_answers_of_the_base_are_asked_again_and_nothing_else(copy: Checkout):
    assert copy.planned(TABLE) == {}
    next(copy.path.glob("results/base_answers/*/manifest.json")).unlink()
    assert copy.planned(TABLE) == {"ask_base": 1, "predict": 2, "score": 2} | FOLLOW
    done = copy.snakemake(TABLE, "--until", "ask_base")
    assert done.returncode == 0, done.stderr[-3000:]
    # The same bytes came out, so nothing that was made from them is stale.
    assert copy.planned(TABLE) == {}


def test_what_a_change_of_the_evaluation_makes_again(copy: Checkout):
    copy.replace("config/config.yaml", "max_new_tokens: 2", "max_new_tokens: 3")
    assert copy.planned(TABLE) == {"ask_base": 1, "predict": 2, "score": 2} | FOLLOW
    copy.replace("config/config.yaml", "split: test", "split: validation")
    asked = {"ask_base": 1, "predict": 2, "score": 3, "fit_baseline": 1}
    assert copy.planned(TABLE) == asked | FOLLOW


def test_another_baseline_moves_no_run(copy: Checkout):
    copy.replace("config/config.yaml", "bag_of_words}", "bag_of_words, longest_ngram: 2}")
    assert copy.planned(TABLE) == {"fit_baseline": 1, "score": 1} | FOLLOW
    copy.edit("scripts/fit_baseline.py", lambda text: text + "\nCHANGED = True\n")
    copy.replace("config/config.yaml", ", longest_ngram: 2}", "}")
    assert copy.planned(TABLE) == {"fit_baseline": 1, "score": 1} | FOLLOW
