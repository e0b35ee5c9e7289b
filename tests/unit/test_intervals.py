"""The t interval: quantiles of printed tables, and an interval worked out by hand."""

import math

import pytest

from sft.reporting.intervals import mean_interval, t_quantile


# Two-sided 95 % and 99 % quantiles as tables print them (Student 1908 and every textbook since).
@pytest.mark.parametrize(
    ("degrees", "confidence", "printed"),
    [
        (1, 0.95, 12.706),
        (2, 0.95, 4.303),
        (3, 0.95, 3.182),
        (4, 0.95, 2.776),
        (9, 0.95, 2.262),
        (30, 0.95, 2.042),
        (120, 0.95, 1.980),
        (2, 0.99, 9.925),
        (5, 0.99, 4.032),
        (1000, 0.95, 1.962),
    ],
)
def test_quantiles_are_those_of_the_tables(degrees: int, confidence: float, printed: float):
    assert t_quantile(degrees, confidence) == pytest.approx(printed, abs=5e-4)


@pytest.mark.parametrize(
    ("degrees", "exact"),
    [
        # Closed forms: tan(pi p / 2) of one degree; p sqrt(2 / (1 - p^2)) of two.
        (1, math.tan(math.pi * 0.95 / 2)),
        (2, 0.95 * math.sqrt(2 / (1 - 0.95**2))),
        # By bisection of Abramowitz and Stegun 26.7.3 and 26.7.4 in floats, as earlier results were made.
        (3, 3.182446305283707),
        (4, 2.776445105197791),
        (9, 2.2621571627982044),
    ],
)
def test_quantiles_are_exact(degrees: int, exact: float):
    assert t_quantile(degrees) == pytest.approx(exact, rel=1e-12)


def test_interval_of_three_seeds():
    # 1, 2, 3: mean 2, s = 1, half width 4.30265 / sqrt(3).
    mean, low, high = mean_interval([1.0, 2.0, 3.0])
    assert mean == 2.0
    assert high - mean == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)
    assert low == pytest.approx(2 * mean - high)


def test_equal_seeds_have_no_width():
    assert mean_interval([0.5, 0.5]) == (0.5, 0.5, 0.5)


def test_one_seed_has_no_interval():
    with pytest.raises(ValueError, match="needs two"):
        mean_interval([0.5])
