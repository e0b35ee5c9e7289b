"""Interval of a mean over seeds: Student's t, which is honest about how little three seeds say.

Standard library only. A bootstrap over three seeds has ten distinct resamples and is too narrow; the t interval
assumes that seeds scatter normally around their mean, and covers as it says under that assumption.
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
    # Bisection over the angle atan(t / sqrt(degrees)): bounded, monotone, exact to the last digits of a float.
    low, high = 0.0, math.pi / 2
    for _ in range(80):
        angle = (low + high) / 2
        if _central_probability(angle, degrees) < confidence:
            low = angle
        else:
            high = angle
    return math.sqrt(degrees) * math.tan((low + high) / 2)


def _central_probability(angle: float, degrees: int) -> float:
    """P(|T| < sqrt(degrees) * tan(angle)): Abramowitz and Stegun 26.7.3 (odd degrees) and 26.7.4 (even)."""
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = degrees % 2
    if degrees == 1:
        return 2 * angle / math.pi
    term = total = cosine if odd else 1.0
    for k in range(2 if odd else 1, degrees - 1, 2):
        term *= k / (k + 1) * cosine * cosine
        total += term
    return 2 / math.pi * (angle + sine * total) if odd else sine * total
