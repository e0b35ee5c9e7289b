"""The ledger: what it holds, and the comparisons that it refuses."""

import csv
import json
import math
from pathlib import Path

import made_up_experiment as made
import pandas as pd
import pyarrow.parquet as pq
import pytest

from sft.reporting import ledger, series
from sft.runtime import manifest
from sft.runtime.stage import StageError


@pytest.fixture(scope="module")
def collected(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made.write_experiment(tmp_path_factory.mktemp("experiment"))


def node_of(root: Path, cells: list, inputs: dict) -> Path:
    config = {"experiment": "digits_shift", "cells": cells, "datasets": made.IDS}
    return made.write_node(root / "ledger", "collect_metrics", config, inputs)


def test_every_number_of_every_run_is_there_once(collected: Path):
    table = series.read_ledger(collected)
    scores = table[table["split"] == "test"]
    assert len(scores) == 3 * 3 * 2 * len(made.STEPS) * 3  # cells, seeds, data sets, steps, metrics
    assert not table.duplicated(ledger.KEY).any()
    at = {"cell": "lora", "seed": 1, "dataset": made.OLD, "metric": "accuracy_likelihood", "step": 80}
    row = scores[(scores[list(at)] == pd.Series(at)).all(axis=1)].iloc[0]
    assert (row["numerator"], row["denominator"], row["value"]) == (119, 360, 119 / 360)
    assert row["low"] < row["value"] < row["high"]
    run = manifest.read(collected.parent.parent.parent / "runs" / "digits-lora-s1")
    assert row["run_key"] == run["key"][:12]
    assert row["code"] == run["code"][:12]


def test_costs_of_the_training_are_metrics_at_its_last_step(collected: Path):
    table = series.read_ledger(collected)
    lora = table[(table["cell"] == "lora") & (table["seed"] == 0) & (table["step"] == 80) & (table["split"] == "train")]
    values = dict(zip(lora["metric"], lora["value"], strict=True))
    assert values["trainable_parameters"] == made.TRAINABLE["lora"]
    assert values["cpu_seconds"] == 32.5
    assert values["max_grad_norm"] == 1.0
    assert values["device_hours"] == 0.00922
    # Not measured for this seed: there, and no number.
    assert math.isnan(values["joules"])
    assert table.loc[(table["metric"] == "joules") & (table["seed"] == 1), "value"].tolist() == [2500.0] * 3


def test_csv_and_parquet_hold_the_same_floats(collected: Path):
    text = pd.read_csv(collected / ledger.CSV, keep_default_na=False, na_values={"value": ""})
    table = series.read_ledger(collected)
    pd.testing.assert_series_equal(text["value"], table["value"], check_exact=True)  # what was not measured is NaN
    assert text["cell"].tolist() == table["cell"].tolist()


def test_a_label_with_a_comma_survives(tmp_path: Path):
    row = {field.name: "" for field in ledger.SCHEMA if field.type == "string"}
    row |= {"cell": 'lr 1e-3, "r" 8', "seed": 0, "value": 1e-7, "step": 3}
    table = ledger.pa.Table.from_pylist([row], schema=ledger.SCHEMA)
    ledger.write(table, tmp_path / "l.parquet", tmp_path / "l.csv")
    with (tmp_path / "l.csv").open(newline="") as file:
        read = next(csv.DictReader(file))
    assert read["cell"] == row["cell"]
    assert float(read["value"]) == 1e-7


def test_provenance_names_everything_upstream_and_no_host(collected: Path):
    text = (collected / ledger.PROVENANCE).read_text()
    assert {found["rule"] for found in json.loads(text).values()} == {"train_model", "score", "download_model"}
    assert "secret-host" not in text


def test_runs_table_has_settings_and_keys(collected: Path):
    with (collected / ledger.RUNS).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["cell"], row["seed"]) for row in rows[:4]] == [
        ("full", "0"),
        ("full", "1"),
        ("full", "2"),
        ("lora", "0"),
    ]
    assert rows[3]["settings.method"] == "lora"


def test_collecting_again_gives_the_same_bytes(collected: Path):
    before = {name: manifest.file_digest(collected / name) for name in (ledger.PARQUET, ledger.CSV, ledger.RUNS)}
    assert made.run_script("collect_metrics", collected).returncode == 0
    assert before == {name: manifest.file_digest(collected / name) for name in before}


def test_a_missing_run_is_named(tmp_path: Path):
    cells, inputs = made.write_runs(tmp_path, ("full", "lora"), (0, 1))
    kept = [0, 1, 2]  # lora has no seed 1
    renumbered = {f"{kind}-{k}": inputs[f"{kind}-{i}"] for k, i in enumerate(kept) for kind in ("run", "scores")}
    done = made.run_script("collect_metrics", node_of(tmp_path, [cells[i] for i in kept], renumbered))
    assert done.returncode == 1
    assert "cell lora, seed 1: no such run" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "ledger" / ledger.PARQUET).exists()


def test_missing_scores_and_steps_are_named(tmp_path: Path):
    cells, inputs = made.write_runs(tmp_path, ("full",), (0, 1))
    made.write_scores(inputs["scores-0"], {made.NEW: made.CORRECT["full"][made.NEW][0]})  # the old test set is gone
    short = {name: correct[1][:4] for name, correct in made.CORRECT["full"].items()}
    made.write_scores(inputs["scores-1"], short)  # step 80 is gone
    names = [[made.NEW, made.OLD]] * 2
    lines = ledger.gaps(ledger.collect("digits_shift", cells, inputs, made.IDS), cells, names)
    assert lines == [
        f"cell full, seed 0: no scores on {made.OLD}",
        f"cell full, seed 1: no scores on {made.NEW} at step 80",
    ]


def test_another_number_of_test_rows_is_named(tmp_path: Path):
    cells, inputs = made.write_runs(tmp_path, ("full",), (0, 1))
    path = inputs["scores-1"] / "scores.parquet"
    frame = pd.read_parquet(path)
    frame["denominator"] -= 1
    frame.to_parquet(path)
    lines = ledger.gaps(ledger.collect("e", cells, inputs, made.IDS), cells, [[], []])
    assert lines[0] == f"{made.OLD}: scored on 359 and 360 rows; one test set has one number"


def test_two_cells_of_one_label_are_an_error(tmp_path: Path):
    cells, inputs = made.write_runs(tmp_path, ("full", "replay"), (0,))
    cells[1]["cell"] = "full"
    with pytest.raises(StageError, match=r"more than once:\n  cell 'full', seed 0"):
        ledger.collect("digits_shift", cells, inputs, made.IDS)


def test_a_run_under_another_name_is_an_error(tmp_path: Path):
    cells, inputs = made.write_runs(tmp_path, ("full",), (0,))
    cells[0]["run"] = "another"
    with pytest.raises(StageError, match="is the run digits-full-s0, not another"):
        ledger.collect("digits_shift", cells, inputs, made.IDS)


def test_a_run_of_several_code_versions_says_so(tmp_path: Path):
    cells, inputs = made.write_runs(tmp_path, ("full",), (0,))
    record = manifest.read(inputs["run-0"])
    record["facts"]["mixed"] = [
        {"from_step": 0, "code": "b" * 64, "versions": {"torch": "2.12.0"}},
        {"from_step": 40, "code": "a" * 64, "versions": {"torch": "2.13.0"}},
    ]
    manifest.write(inputs["run-0"], record)
    table = ledger.collect("digits_shift", cells, inputs, made.IDS)
    assert set(table["code"].to_pylist()) == {"a" * 12 + "+" + "b" * 12}
    assert set(table["software"].to_pylist()) == {"torch 2.12.0 to step 40, then 2.13.0"}


def test_a_run_with_other_packages_than_the_pinned_ones_says_so(tmp_path: Path):
    cells, inputs = made.write_runs(tmp_path, ("full",), (0, 1))
    record = manifest.read(inputs["run-0"])
    manifest.write(inputs["run-0"], record | {"not_as_pinned": {"torch": ["2.13.0", "2.9.1"], "trl": ["1.16.0", None]}})
    table = ledger.collect("digits_shift", cells, inputs, made.IDS).to_pandas()
    told = table.groupby("seed")["software"].unique().map(list)
    assert told[0] == ["torch 2.9.1 (pinned 2.13.0), trl is not installed (pinned 1.16.0)"]
    assert told[1] == [""]


def test_a_resumed_run_counts_all_its_attempts(tmp_path: Path):
    cells, inputs = made.write_runs(tmp_path, ("full",), (0,))
    record = manifest.read(inputs["run-0"])
    record["facts"]["attempts"] = [{"wall_seconds": 20.0, "host": "a"}, {"wall_seconds": 15.5, "host": "b"}]
    manifest.write(inputs["run-0"], record)
    table = ledger.collect("digits_shift", cells, inputs, made.IDS).to_pandas()
    values = dict(zip(table["metric"], table["value"], strict=True))
    assert values["wall_seconds"] == 35.5
    assert "cpu_seconds" not in values  # the killed attempt's are not known


def test_parquet_has_the_declared_columns(collected: Path):
    assert pq.read_schema(collected / ledger.PARQUET).equals(ledger.SCHEMA)
