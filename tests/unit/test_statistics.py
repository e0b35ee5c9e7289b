"""Intervals and tests against published values."""

import pytest
import scipy.stats

from sft.evaluation.statistics import mcnemar_exact, paired_mcnemar, ratio_interval, wilson_interval


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [
        # R. G. Newcombe, Statistics in Medicine 17 (1998) 857-872, table I, method 3 (score, uncorrected).
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_interval_agrees_with_newcombe(successes, trials, low, high):
    assert wilson_interval(successes, trials) == pytest.approx((low, high), abs=5e-5)


def test_wilson_interval_is_symmetric_and_keeps_its_ends():
    assert wilson_interval(0, 20)[0] == 0.0
    assert wilson_interval(20, 20)[1] == 1.0
    low, high = wilson_interval(3, 40)
    assert wilson_interval(37, 40) == pytest.approx((1 - high, 1 - low))


def test_wilson_interval_widens_with_confidence():
    narrow, wide = wilson_interval(80, 100, 0.5), wilson_interval(80, 100, 0.99)
    assert wide[0] < narrow[0] < 0.8 < narrow[1] < wide[1]


@pytest.mark.parametrize(("successes", "trials"), [(0, 0), (5, 4), (-1, 4)])
def test_wilson_interval_refuses_what_is_no_proportion(successes, trials):
    with pytest.raises(ValueError, match="not a proportion"):
        wilson_interval(successes, trials)


@pytest.mark.parametrize(
    ("only_first", "only_second", "p_value"),
    [
        # mcnemar.exact(matrix(c(21, 9, 2, 12), 2, 2)) in M. P. Fay's vignette of the R package exact2x2.
        (2, 9, 0.06543),
        (9, 2, 0.06543),
        # By hand: 2 * (1 + 5) / 2**5 and 2 * 1 / 2**6.
        (1, 4, 0.375),
        (0, 6, 0.03125),
        (0, 0, 1.0),
        (7, 7, 1.0),
    ],
)
def test_mcnemar_exact(only_first, only_second, p_value):
    assert mcnemar_exact(only_first, only_second) == pytest.approx(p_value, abs=5e-6)


@pytest.mark.parametrize("trials", [1, 2, 7, 50, 263, 20_000])
def test_wilson_interval_is_that_of_scipy(trials):
    """Written out here because the import of scipy.stats takes seconds, and each evaluation is scored by a job."""
    for successes in {0, 1, trials // 3, trials // 2, trials - 1, trials}:
        for confidence in (0.5, 0.9, 0.95, 0.99):
            theirs = scipy.stats.binomtest(successes, trials).proportion_ci(confidence, method="wilson")
            assert wilson_interval(successes, trials, confidence) == pytest.approx(tuple(theirs), abs=1e-12)


@pytest.mark.parametrize("first", [0, 3, 21, 150, 1500])
@pytest.mark.parametrize("second", [0, 1, 12, 170, 1400])
def test_mcnemar_exact_is_scipys_binomial_test(first, second):
    theirs = scipy.stats.binomtest(first, first + second).pvalue if first + second else 1.0
    assert mcnemar_exact(first, second) == pytest.approx(theirs, rel=1e-9, abs=1e-12)


def test_mcnemar_exact_holds_for_thousands_of_rows():
    # Close to the normal approximation z = 100 / sqrt(2900), two-sided p = 0.0633 (continuity-corrected 0.0660).
    assert mcnemar_exact(1500, 1400) == pytest.approx(0.066, abs=5e-4)


def test_paired_mcnemar_counts_discordant_rows():
    first = {"a": True, "b": True, "c": False, "d": False}
    second = {"d": False, "c": True, "b": False, "a": True}
    assert paired_mcnemar(first, second) == (1, 1, 1.0)


def test_paired_mcnemar_refuses_other_rows():
    with pytest.raises(ValueError, match="2 ids are in one result only, such as b, c"):
        paired_mcnemar({"a": True, "b": True}, {"a": True, "c": True})


def test_an_interval_over_groups_that_are_alike_is_as_wide_as_that_over_groups():
    """Rows whose tokens are all right or all wrong: what counts is rows, not tokens."""
    hits, trials = [10] * 60 + [0] * 40, [10] * 100
    low, high = ratio_interval(hits, trials)
    assert (low, high) == pytest.approx((0.5035, 0.6965), abs=1e-4)  # 0.6 ± 1.96 sqrt(0.24 / 99)
    narrow = ratio_interval([6] * 100, trials)
    assert narrow == pytest.approx((0.6, 0.6))
    assert ratio_interval([1], [3]) == (0.0, 1.0)
    with pytest.raises(ValueError, match="no proportions"):
        ratio_interval([4], [3])
