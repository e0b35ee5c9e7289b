"""Uncertainty of counts: an interval for one accuracy, a paired test for two models on the same rows.

Standard library only, so that figures and tables can use it without a numeric environment.
"""

import math
from collections.abc import Sequence
from statistics import NormalDist


def wilson_interval(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """The Wilson score interval (without continuity correction) of a proportion, as (low, high) within [0, 1].

    It stays sensible near 0 and 1, where the textbook interval p ± z·sqrt(p(1-p)/n) has no width.
    Sources: E. B. Wilson, JASA 22 (1927) 209-212; recommended by R. G. Newcombe, Statistics in Medicine 17
    (1998) 857-872 (its method 3) and by Brown, Cai and DasGupta, Statistical Science 16 (2001) 101-133.
    ValueError for counts that are none (no trials, more successes than trials) or a confidence outside (0, 1).
    """
    if not 0 <= successes <= trials or trials == 0:
        raise ValueError(f"{successes} of {trials} is not a proportion")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence {confidence} is not between 0 and 1")
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = successes / trials
    shrink = 1 + z * z / trials
    centre = (share + z * z / (2 * trials)) / shrink
    half = z / shrink * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    # Both ends are exact in theory; rounding leaves about 1e-17 there.
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == trials else min(1.0, centre + half)
    return low, high


def ratio_interval(successes: Sequence[int], trials: Sequence[int], confidence: float = 0.95) -> tuple[float, float]:
    """The interval of sum(successes) / sum(trials) where trials come in groups that are alike, as tokens of a row do.

    Groups are the units that were sampled: the large-sample normal interval of a ratio of two sums over them. Source:
    W. G. Cochran, Sampling Techniques (3rd ed., 1977), section 2.11. Within [0, 1]; that itself with one group only.
    """
    groups, total = len(trials), sum(trials)
    if total == 0 or any(not 0 <= hits <= n for hits, n in zip(successes, trials, strict=True)):
        raise ValueError("these are no proportions")
    share = sum(successes) / total
    if groups < 2:
        return 0.0, 1.0
    spread = sum((hits - share * n) ** 2 for hits, n in zip(successes, trials, strict=True))
    half = NormalDist().inv_cdf(0.5 + confidence / 2) * math.sqrt(groups / (groups - 1) * spread) / total
    return max(0.0, share - half), min(1.0, share + half)


def mcnemar_exact(only_first: int, only_second: int) -> float:
    """Two-sided p-value of McNemar's exact conditional test for two models that answered the same rows.

    `only_first` rows were right for the first model alone, `only_second` for the second alone; rows on which
    both agree say nothing about the difference. Under the null hypothesis `only_first` is binomial with
    probability 1/2, and the p-value is twice its smaller tail, at most 1. Sources: Q. McNemar, Psychometrika
    12 (1947) 153-157; the exact form as in M. P. Fay, The R Journal 2/1 (2010) 53-58.
    ValueError for negative counts.
    """
    if only_first < 0 or only_second < 0:
        raise ValueError(f"counts of rows are not negative ({only_first}, {only_second})")
    rows = only_first + only_second
    tail = sum(math.comb(rows, k) for k in range(min(only_first, only_second) + 1))
    # Integers are divided exactly, so thousands of discordant rows neither overflow nor underflow early.
    return min(1.0, 2 * tail / 2**rows)


def paired_mcnemar(first: dict[str, bool], second: dict[str, bool]) -> tuple[int, int, float]:
    """(rows right only in `first`, rows right only in `second`, p-value) of two results keyed by row id.

    ValueError when the two do not hold the same ids: a paired test on other rows is another test.
    """
    if first.keys() != second.keys():
        differing = sorted(first.keys() ^ second.keys())
        raise ValueError(f"{len(differing)} ids are in one result only, such as {', '.join(differing[:3])}")
    only_first = sum(right and not second[row] for row, right in first.items())
    only_second = sum(right and not first[row] for row, right in second.items())
    return only_first, only_second, mcnemar_exact(only_first, only_second)
