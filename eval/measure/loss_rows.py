"""Rows of mean losses over documents of unequal length, with intervals and paired differences.

A sample's values are the losses of its tokens that count, or what a protocol averages instead,
such as the mean of each window. Pure numpy.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ropewalk.eval.measure import statistics
from ropewalk.eval.measure.statistics import PAIRED, Estimate, Resamples

Row = dict[str, Any]


def mean_row(
    units: Sequence[str],
    values: Sequence[np.ndarray],
    base: Sequence[np.ndarray] | None,
    seed: int,
    key: str = "nll",
) -> Row:
    """Mean over all values, its interval over the units, and the difference to the base's values.

    `units`: the document of each sample; `values`, `base`: of each sample, (tokens,) each.
    Samples without values count nowhere. Keys: `key`, low, high, n, and PAIRED with a base.
    """
    numbers = [number for number, part in enumerate(values) if len(part)]
    draws = statistics.resamples([units[number] for number in numbers], seed)
    own = _mean([values[number] for number in numbers], draws)
    row: Row = {key: own.value, "low": own.low, "high": own.high, "n": own.n}
    if base is not None:
        change = _mean([values[number] - base[number] for number in numbers], draws)
        row |= dict(zip(PAIRED, change[:3], strict=True))
    return row


def _mean(values: Sequence[np.ndarray], draws: Resamples) -> Estimate:
    means = np.array([part.mean(dtype=np.float64) for part in values])
    return statistics.mean(means, draws, np.array([len(part) for part in values]))


def perplexity_row(row: Mapping[str, Any], key: str = "perplexity") -> Row:
    """A row of mean losses as perplexity, with the interval of that; differences stay in nats."""
    exponents = {key: _exp(row[key]) for key in ("low", "high")}
    return {key: _exp(row["nll"]), **row, **exponents}


def _exp(value: float | None) -> float | None:
    """Infinite above what a float holds: a model far beyond its window."""
    if value is None:
        return None
    return math.exp(value) if value < 709 else math.inf


def not_measurable(key: str, reason: str, **facts: Any) -> Row:
    """A row without a value, which says why."""
    return {**facts, key: None, "low": None, "high": None, "n": 0, "reason": reason}
