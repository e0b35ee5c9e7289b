"""Interval of a mean over seeds: Student's t, which is honest about how little three seeds say.

A bootstrap over three seeds has ten distinct resamples and is too narrow; the t interval assumes that seeds scatter
normally around their mean, and covers as it says under that assumption.
"""

import math
from collections.abc import Sequence
from functools import cache
from statistics import fmean, stdev

CONFIDENCE = 0.95


def mean_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> tuple[float, float, float]:
    """(mean, low, high) of the t interval of the mean of `values`; ValueError for fewer than two of them.

    Source: Student, Biometrika 6 (1908) 1-25; half width t(n - 1) * s / sqrt(n), s with n - 1 in its denominator.
    """
    n = len(values)
    if n < 2:
        raise ValueError(f"{n} value has no t interval; it needs two")
    mean = fmean(values)
    half = t_quantile(n - 1, confidence) * stdev(values) / math.sqrt(n)
    return mean, mean - half, mean + half


@cache
def t_quantile(degrees: int, confidence: float = CONFIDENCE) -> float:
    """The t for which P(|T| < t) = `confidence` with `degrees` >= 1 degrees of freedom (12.706 for 1 and 95 %)."""
    if degrees < 1 or not 0 < confidence < 1:
        raise ValueError(f"no t quantile for {degrees} degrees of freedom at confidence {confidence}")
    from scipy.special import stdtrit  # here, because it takes half a second that one seed does not need

    return float(stdtrit(degrees, 0.5 + confidence / 2))
