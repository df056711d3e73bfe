"""Intervals of proportions: of independent answers, of answers in clusters, of paired answers.

A proportion near 0 or 1 has hardly two values to resample, so these are formulas, not draws.
U units   n answers
"""

import math
from collections.abc import Sequence

import numpy as np

from ropewalk.data.proportion import Z, wilson
from ropewalk.eval.measure import student
from ropewalk.eval.measure.statistics import Estimate


def accuracy(correct: Sequence[bool], units: Sequence[str]) -> Estimate:
    """Share of right answers. Answers with one unit, such as a haystack, are not independent.

    The interval of the logit by the clusters' standard error (Korn and Graubard 1999, section 5.2;
    the default of R's `survey::svyciprop`), around a share with half an answer more on each side;
    where all answers agree, Wilson's for one answer a unit. `n` of the result: units.
    """
    names = {name: number for number, name in enumerate(dict.fromkeys(units))}
    member, hits = np.array([names[name] for name in units]), np.asarray(correct, dtype=float)
    share, count = float(hits.mean()), len(names)
    if count == len(hits):
        return Estimate(share, *wilson(float(hits.sum()), count), count)
    if count < 2:
        return Estimate(share, None, None, count)
    sums = np.bincount(member, hits - share, count)
    error = math.sqrt(float(sums @ sums) * count / (count - 1)) / len(hits)
    steps = student.half_width(count - 1)
    if not error:
        effective = count * (Z / steps) ** 2
        return Estimate(share, *wilson(share * effective, effective), count)
    centre = (float(hits.sum()) + 0.5) / (len(hits) + 1)
    half = steps * error / (centre * (1 - centre))
    logit = math.log(centre / (1 - centre))
    return Estimate(share, _logistic(logit - half), _logistic(logit + half), count)


def _logistic(logit: float) -> float:
    return (1 + math.tanh(logit / 2)) / 2


def mcnemar(lost: int, gained: int) -> float:
    """Exact two-sided p of as many items lost as gained (McNemar 1947, binomial)."""
    changed, fewer = lost + gained, min(lost, gained)
    tail = sum(math.comb(changed, k) for k in range(fewer + 1))
    return min(1.0, 2 * tail / 2**changed)


def paired_difference(lost: int, gained: int, n: int) -> Estimate:
    """Change of a proportion over the same `n` items (Agresti and Min 2005: half an item is added
    to each of the four cells, so that no change in few items is not taken for certain)."""
    a, b = gained + 0.5, lost + 0.5
    centre = (a - b) / (n + 2)
    half = Z * math.sqrt(a + b - (a - b) ** 2 / (n + 2)) / (n + 2)
    return Estimate((gained - lost) / n, centre - half, centre + half, n)


def is_binary(scores: np.ndarray) -> bool:
    """Whether every score says right or wrong."""
    return bool(np.isin(scores, (0, 1)).all())


def of_scores(scores: np.ndarray) -> Estimate:
    """Mean of the scores of independent items: Wilson's interval where they are right or wrong,
    else Student's t."""
    if is_binary(scores):
        return Estimate(
            float(scores.mean()), *wilson(float(scores.sum()), len(scores)), len(scores)
        )
    return _student(scores)


def change(scores: np.ndarray, base: np.ndarray) -> Estimate:
    """Mean difference over the same independent items."""
    if is_binary(scores) and is_binary(base):
        lost, gained = int((scores < base).sum()), int((scores > base).sum())
        return paired_difference(lost, gained, len(scores))
    return _student(scores - base)


def _student(values: np.ndarray) -> Estimate:
    n, centre = len(values), float(values.mean())
    if n < 2:
        return Estimate(centre, None, None, n)
    half = student.half_width(n - 1) * float(values.std(ddof=1)) / math.sqrt(n)
    return Estimate(centre, centre - half, centre + half, n)
