"""Baselines and the base model as rows of the table and lines of the figures; validation rows are told as such.

Tests: sft.reporting.comparison
"""

import re
from pathlib import Path
from typing import Any

import made_up_experiment as made
import pandas as pd
import pytest

from sft.config.nodes import Shown
from sft.evaluation.statistics import wilson_interval
from sft.reporting import series
from sft.reporting.results_table import result_rows
from sft.reporting.table_text import markdown, notes, result_columns
from sft.runtime.stage import StageError

pytestmark = pytest.mark.slow

CELLS = ("full", "lora")
RIGHT = {made.NEW: 150, made.OLD: 120}


def experiment(root: Path, labels: dict[str, tuple[str, ...]], **how: Any) -> tuple[Path, dict[str, Any]]:
    """The ledger of two cells and the baselines `labels` (label: cells), and what its figures are told."""
    baselines = tuple(made.write_baseline(root, label, RIGHT, cells) for label, cells in labels.items())
    ledger = made.write_experiment(root, baselines, cells=CELLS, seeds=(0, 1), **how)
    told = {"baselines": [one["baseline"] for one in baselines]} if baselines else {}
    return ledger, made.shown(CELLS, (0, 1), **told)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    return experiment(tmp_path_factory.mktemp("shared"), {"words": CELLS})


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    return experiment(tmp_path_factory.mktemp("own"), {"words_full": ("full",), "words_lora": ("lora",)})


@pytest.fixture(scope="module")
def validation(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    ledger, config = experiment(tmp_path_factory.mktemp("validation"), {"words": CELLS}, split="validation")
    return ledger, config | {"split": "validation"}


def drawn(kind: str, directory: Path, ledger: Path, config: dict) -> pd.DataFrame:
    node = made.write_node(directory / kind, f"plot_{kind}", config, {"ledger": ledger})
    place = made.make_here(f"plot_{kind}", node)
    assert {path.suffix for path in place.glob(f"{kind}.*")} == {".pdf", ".svg", ".png", ".csv"}
    return pd.read_csv(place / f"{kind}.csv")


def test_a_baseline_is_a_row_of_ledger_and_table(shared):
    ledger, config = shared
    table = series.read_ledger(ledger)
    scores = table[table["cell"] == "words"]
    assert set(scores["metric"]) == {"accuracy_strict", "accuracy_lenient", "accuracy_likelihood"}
    assert set(zip(scores["seed"], scores["step"], strict=True)) == {(0, 0)}
    rows = result_rows(table, Shown.read_back(config))
    assert [row["cell"] for row in rows if row["dataset"] == made.OLD] == ["full", "lora", "words"]
    row = rows[-1]
    assert (row["kind"], row["final"], row["base"], row["change"]) == ("baseline", 120 / 360, None, None)
    assert (row["pooled_low"], row["pooled_high"]) == wilson_interval(120, 360)
    assert row["accuracy_strict"] == 118 / 360
    text = markdown("t", rows, [])
    assert "| words | digits          |    – |  33.3 |  [28.7, 38.4] |" in text
    assert "words: no language model, fitted on the same training rows" in text
    assert "final: mean over 2 seeds at the last step" in text


def test_one_base_model_of_all_runs_is_a_row_too(shared):
    """Seed 0 and 1 of the made-up runs have bases of their own; where it is one model, it has one row."""
    ledger, config = shared
    rows = result_rows(series.read_ledger(ledger), Shown.read_back(config | {"one_base": True}))
    row = next(row for row in rows if row["kind"] == "base" and row["dataset"] == made.OLD)
    assert (row["cell"], row["final"], row["step"], row["n_seeds"]) == ("base model", 349 / 360, 0, 1)
    assert (row["pooled_low"], row["pooled_high"]) == wilson_interval(349, 360)


def test_files_of_the_table_have_the_paired_tests(shared, tmp_path: Path):
    ledger, config = shared
    made_in = made.make_here(
        "tabulate_results", made.write_node(tmp_path / "table", "tabulate_results", config, {"ledger": ledger})
    )
    text = re.sub(" +", " ", (made_in / "results.md").read_text())
    assert "McNemar's exact test" in text
    # 120 rows are right for the words, 182 and 190 at the end of full: 62 and 70 only there.
    assert "| full | digits | words | 62 70 | 0 0 | <0.001 <0.001 |" in text
    assert r"full & digits & words & 62 70 & 0 0 & <0.001 <0.001" in (made_in / "results.tex").read_text()
    assert pd.read_csv(made_in / "results.csv")["kind"].tolist() == ["cell", "cell", "baseline"] * 2


def test_without_baselines_the_table_has_no_paired_tests(tmp_path: Path):
    ledger, config = experiment(tmp_path, {})
    node = made.write_node(tmp_path / "table", "tabulate_results", config, {"ledger": ledger})
    assert "McNemar" not in (made.make_here("tabulate_results", node) / "results.md").read_text()
    # Two seeds, two data sets, three metrics: two cells against their bases, the second against the first.
    assert (ledger / "paired.csv").read_text().count("\n") == 1 + 2 * 2 * 3 * 3


@pytest.mark.slow
def test_accuracy_and_comparison_draw_the_baseline(shared, own, tmp_path: Path):
    for kind in ("accuracy", "comparison"):
        plotted = drawn(kind, tmp_path / "shared", *shared)
        lines = plotted[plotted["series"] == "baseline"]
        assert dict(zip(lines["dataset"], lines["value"], strict=True)) == {n: k / 360 for n, k in RIGHT.items()}
        assert lines["low"].notna().all()
        plotted = drawn(kind, tmp_path / "own", *own)
        assert set(plotted.loc[plotted["series"] == "baseline", "cell"]) == {"words_full", "words_lora"}


def test_labels_and_colours_say_whose_rows_a_baseline_has(shared, own):
    from sft.reporting import figure_style

    figure_style.prepare()
    from sft.reporting import curves

    (ledger, config), (of_own, config_of_own) = shared, own
    one = series.baselines(series.read_ledger(ledger), Shown.read_back(config))
    assert curves.baseline_labels(one, made.OLD, CELLS) == [(pytest.approx(100 / 3), "words 33.3", figure_style.INK)]
    assert [entry.label for entry in curves.baseline_entries(one, CELLS)] == ["words (no language model)"]
    two = series.baselines(series.read_ledger(of_own), Shown.read_back(config_of_own))
    colours = [colour for _, _, colour in curves.baseline_labels(two, made.OLD, CELLS)]
    assert colours == [figure_style.colour(0), figure_style.colour(1)]
    assert [entry.label for entry in curves.baseline_entries(two, CELLS)] == ["words of each cell (no language model)"]


def test_rows_against_accuracy_has_a_line_for_models_and_one_for_baselines(own, tmp_path: Path):
    ledger, config = own
    lines = [{"name": "lora", "points": [[60, "full"], [120, "lora"]]}]
    plotted = drawn("rows", tmp_path, ledger, config | {"lines": lines})
    means = plotted[(plotted["series"] == "mean") & (plotted["dataset"] == made.OLD)]
    assert list(zip(means["line"], means["training_rows"], strict=True)) == [
        ("lora", 60),
        ("lora", 120),
        ("words", 60),
        ("words", 120),
    ]
    assert means["value"].tolist() == pytest.approx([186 / 360, 113 / 360, 120 / 360, 120 / 360])
    assert set(means["interval"]) == {"95 % t interval of the mean", "95 % Wilson interval"}


def test_a_baseline_without_scores_is_named(shared):
    ledger, config = shared
    table = series.read_ledger(ledger)
    lacking = table[(table["cell"] != "words") | (table["dataset"] != made.OLD)]
    with pytest.raises(StageError, match="baseline words: no accuracy_likelihood on digits"):
        series.baselines(lacking, Shown.read_back(config))


def test_validation_rows_are_no_result(validation, tmp_path: Path):
    ledger, config = validation
    table = series.read_ledger(ledger)
    assert set(table.loc[table["dataset"] != "", "split"]) == {"validation"}
    rows = result_rows(table, Shown.read_back(config))
    assert notes(rows)[0].startswith("Scored on validation rows, on which settings are chosen: no result.")
    assert result_columns(rows)[1][0] == "validation set"
    from sft.reporting import figure_style

    figure_style.prepare()
    from sft.reporting import curves

    shown = Shown.read_back(config)
    seeds = series.scores(table, shown)
    text, colour = curves.footer(shown, seeds)[1]
    assert (text.partition(",")[0], colour) == ("Validation rows", figure_style.WARNING)
    assert curves.rows_note(shown, seeds, made.OLD) == "360 validation rows"
    assert drawn("accuracy", tmp_path, ledger, config)["split"].unique().tolist() == ["validation"]
    losses = series.training_metric(table, shown, "loss", ("train", "validation"))
    assert len(curves.footer(shown, losses)) == 1
    # Asked for test rows, there are none.
    with pytest.raises(StageError, match="cell full: no accuracy_likelihood at all"):
        series.scores(table, Shown.read_back(config | {"split": "test"}))
