"""The results table: its numbers, and the texts that readers and papers get.

Tests: sft.reporting.costs, sft.reporting.results_table, sft.reporting.table_text
"""

import csv
import math
import re
import subprocess
import sys
from pathlib import Path

import made_up_experiment as made
import pytest

from sft.evaluation.statistics import wilson_interval
from sft.reporting import costs, series
from sft.reporting.intervals import mean_interval
from sft.reporting.results_table import cost_rows, result_rows
from sft.reporting.table_text import latex, markdown, notes
from sft_command import sft

CELLS = ("full", "lora", "replay")


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made.write_experiment(tmp_path_factory.mktemp("experiment"))


@pytest.fixture(scope="module")
def rows(ledger: Path) -> list[dict]:
    return result_rows(series.read_ledger(ledger), made.typed(CELLS))


def test_one_row_for_each_cell_and_test_set(rows: list[dict]):
    assert [(row["dataset"], row["cell"]) for row in rows] == [(d, c) for d in (made.NEW, made.OLD) for c in CELLS]


def test_numbers_are_those_of_the_runs(rows: list[dict]):
    lora = next(row for row in rows if row["cell"] == "lora" and row["dataset"] == made.OLD)
    values = [107 / 360, 119 / 360, 119 / 360]
    assert lora["base"] == pytest.approx((349 + 344 + 349) / 1080)
    assert (lora["final"], lora["low"], lora["high"]) == pytest.approx(mean_interval(values))
    assert (lora["pooled_low"], lora["pooled_high"]) == wilson_interval(345, 1080)
    assert lora["change"] == pytest.approx(lora["final"] - lora["base"])
    assert [float(value) for value in lora["by_seed"].split(";")] == values
    assert lora["accuracy_strict"] == pytest.approx(sum(values) / 3 - 2 / 360)


def test_difference_is_paired_by_seed(rows: list[dict]):
    full, lora = (row for row in rows if row["dataset"] == made.OLD and row["cell"] in ("full", "lora"))
    paired = mean_interval([(107 - 182) / 360, (119 - 190) / 360, (119 - 225) / 360])
    assert (lora["difference"], lora["difference_low"], lora["difference_high"]) == pytest.approx(paired)
    assert full["difference"] is None


def test_one_seed_has_the_wilson_interval_only(ledger: Path):
    row = result_rows(series.read_ledger(ledger), made.typed(("full",), (1,)))[0]
    assert row["low"] is None
    assert (row["pooled_low"], row["pooled_high"]) == wilson_interval(342, 360)
    assert "95 % interval of one seed: Wilson interval over test rows." in notes([row])


def test_costs_are_told(ledger: Path):
    told = cost_rows(series.read_ledger(ledger), made.typed(CELLS))
    assert [cost["trainable_parameters"] for cost in told] == [523968, 110592, 523968]
    assert all(math.isnan(cost["joules"]) for cost in told)  # one of three seeds did not measure them
    assert [cost["device_hours"] for cost in told] == pytest.approx([0.00922] * 3)


def test_costs_by_rule_are_told_and_nothing_unmeasured_is_zero(ledger: Path, tmp_path: Path):
    directory = made.write_node(tmp_path / "table", "tabulate_results", made.shown(CELLS), {"ledger": ledger})
    assert made.run_script("tabulate_results", directory).returncode == 0
    rules = {row["rule"]: row for row in costs.read(directory / costs.NAME)}
    each = costs.read(ledger / costs.NAME)
    assert {row["rule"] for row in each} == rules.keys() - {costs.ALL}
    assert float(rules["train_model"]["device_hours"]) == pytest.approx(9 * 0.00922)
    assert float(rules[costs.ALL]["wall_seconds"]) == pytest.approx(len(each) * 33.2)
    assert rules["train_model"]["joules"] == rules[costs.ALL]["joules"] == "not measured"
    text = (directory / "results.md").read_text()
    line = next(line for line in text.splitlines() if line.startswith("| lora   |") and "110,592" in line)
    assert "not measured" in line


def test_a_sum_with_an_unmeasured_part_is_not_measured():
    assert costs.total([1.5, "2"]) == 3.5
    assert costs.total([1.5, "not measured"]) == costs.total([1.5, math.nan]) == costs.total([""]) == "not measured"
    assert costs.total([]) == "not measured", "a ledger from before costs were collected says nothing of them"
    assert costs.by_rule([]) == []


def test_files_hold_the_same_table(ledger: Path, tmp_path: Path):
    directory = made.write_node(tmp_path / "table", "tabulate_results", made.shown(CELLS), {"ledger": ledger})
    done = made.run_script("tabulate_results", directory)
    assert done.returncode == 0, done.stderr
    with (directory / "results.csv").open(newline="") as file:
        read = list(csv.DictReader(file))
    assert len(read) == 6
    text = (directory / "results.md").read_text()
    assert "| full   | digits          | 96.5 |  55.3 |  [39.5, 71.1] |" in text
    tex = (directory / "results.tex").read_text()
    assert "full & digits\\_inverted & 7.8 & 95.5 & [92.9, 98.1]" in tex
    assert tex.count("\\begin{tabular}") == tex.count("\\end{tabular}") == 3
    body = [line for line in tex.splitlines() if line.endswith("\\\\")]
    columns = len(re.search(r"@{}(l+r+)@{}", tex)[1])
    assert {line.count("&") for line in body[:7]} == {columns - 1}


def test_tex_escapes_what_tex_would_read(rows: list[dict]):
    strange = [row | {"cell": "50%_of #1 & {x}$~^\\"} for row in rows[:1]]
    line = next(line for line in latex("t", strange, []).splitlines() if line.startswith("50"))
    assert line.startswith(r"50\%\_of \#1 \& \{x\}\$\textasciitilde{}\textasciicircum{}\textbackslash{} &")
    assert "a\\|b" in markdown("t", [rows[0] | {"cell": "a|b"}], [])


def test_failed_answers_and_mixed_code_are_told(rows: list[dict]):
    told = notes([rows[0] | {"errors": 4}, rows[1] | {"code": "other"}])
    assert "4 answers failed; they count as wrong." in told
    assert "The runs were trained by different versions of the code." in told
    told = notes([rows[0] | {"software": "torch 2.9.1 (pinned 2.13.0)"}])
    assert "Other packages than the pinned ones: torch 2.9.1 (pinned 2.13.0)." in told


def test_terminal_shows_table_and_figures_without_heavy_imports(ledger: Path, tmp_path: Path):
    directory = tmp_path / "results/experiments/digits_shift/table"
    made.write_node(directory, "tabulate_results", made.shown(CELLS), {"ledger": ledger})
    assert made.run_script("tabulate_results", directory).returncode == 0
    figure = directory.parent / "figures/comparison/comparison.png"
    figure.parent.mkdir(parents=True)
    figure.touch()
    code = (
        "import sys; from sft.cli.__main__ import main; assert main(['show']) == 0\n"
        "assert not {'pandas', 'numpy', 'pyarrow', 'matplotlib'} & set(sys.modules)"
    )
    environment = {"PYTHONPATH": str(made.ROOT / "scripts"), "COLUMNS": "80"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "−23.3 [−36.6, −10.1]" in done.stdout
    assert "results/experiments/digits_shift/figures/comparison/comparison.png" in done.stdout


def test_terminal_says_so_when_there_is_nothing(tmp_path: Path):
    done = sft("show", cwd=tmp_path)
    assert done.returncode == 1
    assert "no finished table" in done.stderr
