"""Means, intervals and windows of what figures show."""

import math

import pandas as pd
import pytest

from sft.reporting import series
from sft.reporting.intervals import mean_interval


def frame_of(values: dict[tuple[int, int], float], **more) -> pd.DataFrame:
    """A frame of seeds from {(seed, step): value}."""
    rows = [
        {"cell": "full", "dataset": "", "split": "train", "seed": seed, "step": step, "value": value}
        for (seed, step), value in values.items()
    ]
    return pd.DataFrame(rows).assign(low=math.nan, high=math.nan, **more)


def test_mean_and_band_are_those_of_the_t_interval():
    mean = series.means(frame_of({(0, 1): 1.0, (1, 1): 2.0, (2, 1): 4.0})).iloc[0]
    assert (mean["n"], mean["interval"]) == (3, series.T_INTERVAL)
    assert (mean["value"], mean["low"], mean["high"]) == pytest.approx(mean_interval([1.0, 2.0, 4.0]), rel=1e-11)


def test_geometric_means_stay_positive():
    mean = series.means(frame_of({(0, 1): 0.01, (1, 1): 1.0}), geometric=True).iloc[0]
    assert mean["value"] == pytest.approx(0.1)
    assert mean["low"] > 0
    assert mean["interval"] == series.GEOMETRIC_INTERVAL


def test_a_step_that_a_seed_lacks_has_no_mean():
    mean = series.means(frame_of({(0, 1): 1.0, (1, 1): 2.0, (0, 2): 9.0}))
    assert mean["step"].tolist() == [1]


def test_one_seed_keeps_the_interval_of_its_rows():
    seeds = frame_of({(0, 1): 0.5}).assign(low=0.4, high=0.6)
    mean = series.means(seeds).iloc[0]
    assert (mean["low"], mean["high"], mean["interval"]) == (0.4, 0.6, series.WILSON_INTERVAL)


def test_one_seed_without_rows_has_no_interval():
    assert series.means(frame_of({(0, 1): 0.5}))["interval"].tolist() == [""]


def test_windows_average_neighbouring_steps():
    seeds = frame_of({(0, step): float(step) for step in range(1, 11)})
    averaged, size = series.windows(seeds, most=5)
    assert size == 2
    assert averaged["value"].tolist() == averaged["step"].tolist() == [1.5, 3.5, 5.5, 7.5, 9.5]


def test_few_steps_stay_as_they_are():
    seeds = frame_of({(0, 1): 1.0, (0, 2): 2.0})
    averaged, size = series.windows(seeds, most=5)
    assert size == 1
    assert averaged.equals(seeds)
