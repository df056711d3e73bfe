"""Means with 95% intervals. Pure numpy; what is resampled is the unit (a document, a haystack, a
question), never the token.

N windows   S tokens of one   U units
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ropewalk.data.proportion import wilson as wilson
from ropewalk.data.random_streams import Purpose, generator
from ropewalk.eval.measure import student

DRAWS = 1999
"""So that the 2.5% quantiles of the draws are the 50th from either end."""
MIN_UNITS = 8
"""Units from which the bootstrap's intervals cover, and below which nothing is decided."""
PAIRED = ("difference", "difference_low", "difference_high")  # nll, low, high of a difference


@dataclass(frozen=True, eq=False)
class Resamples:
    """Bootstrap draws of units with replacement."""

    units: np.ndarray
    """(N,) number of each window's unit."""
    counts: np.ndarray
    """(DRAWS, U) how often a draw has each unit."""

    @property
    def n(self) -> int:
        """Units."""
        return self.counts.shape[1]

    @property
    def weights(self) -> np.ndarray:
        """Weight of each window in each draw: (DRAWS, N)."""
        return np.asarray(self.counts[:, self.units])


class Estimate(NamedTuple):
    """A mean with its 95% interval over `n` units; no interval of one unit."""

    value: float
    low: float | None
    high: float | None
    n: int


def resamples(units: Sequence[str], seed: int) -> Resamples:
    """Draws of as many units as there are. `units`: the document of each window."""
    numbers = {name: number for number, name in enumerate(sorted(set(units)))}
    rng = generator(Purpose.BOOTSTRAP, seed)
    counts = rng.multinomial(len(numbers), [1 / len(numbers)] * len(numbers), size=DRAWS)
    member = np.array([numbers[name] for name in units])
    return Resamples(member, np.asarray(counts, dtype=np.float64))


def mean(values: np.ndarray, draws: Resamples, tokens: np.ndarray | None = None) -> Estimate:
    """Mean of (N,) values with the studentised bootstrap's interval (Efron and Tibshirani 1993,
    12.5). `tokens`: (N,), the weight of each value; None: equal weights.

    A unit counts by its windows, or by their tokens. The percentile bootstrap covers 88% at 8
    units; this one 94 to 96% at 8 to 128 (tests/eval/measure/test_coverage.py). Below MIN_UNITS:
    Student's t.
    """
    weights, n = np.ones(len(values)) if tokens is None else tokens.astype(np.float64), draws.n
    centre = float(np.average(values, weights=weights))
    sums, sizes = (np.bincount(draws.units, part, n) for part in (values * weights, weights))
    residuals = sums - centre * sizes
    error = math.sqrt(float(residuals @ residuals) * n / max(n - 1, 1)) / weights.sum()
    if n < 2:
        return Estimate(centre, None, None, n)
    below, above = _studentised(residuals, sizes, draws, error) if n >= MIN_UNITS else (0.0, 0.0)
    if not below * above < 0:  # few units, or hardly two values among them
        below, above = -student.half_width(n - 1), student.half_width(n - 1)
    return Estimate(centre, centre - above * error, centre - below * error, n)


def _studentised(
    residuals: np.ndarray, sizes: np.ndarray, draws: Resamples, error: float
) -> tuple[float, float]:
    """2.5% quantiles of (mean of a draw - mean) / standard error of the draw; zeros without any."""
    counts, n = draws.counts, draws.n
    totals = counts @ sizes
    shifts = counts @ residuals / totals
    squares = counts @ residuals**2 - 2 * shifts * (counts @ (residuals * sizes))
    squares = np.maximum(squares + shifts**2 * (counts @ sizes**2), 0)
    errors = np.sqrt(squares * n / (n - 1)) / totals
    usable = errors > 1e-9 * error
    if error == 0 or usable.mean() < 0.99:
        return 0.0, 0.0
    below, above = np.quantile(shifts[usable] / errors[usable], [0.025, 0.975])
    return float(below), float(above)


def mean_with_interval(nll: np.ndarray, draws: Resamples) -> dict[str, Any]:
    """Mean of (N, tokens), token-weighted, and its 95% interval over units.

    Keys: nll, low, high.
    """
    estimate = mean(nll.mean(axis=1), draws)  # windows have equally many tokens
    return {"nll": float(nll.mean()), "low": estimate.low, "high": estimate.high}


def paired(nll: np.ndarray, reference: np.ndarray, draws: Resamples) -> dict[str, Any]:
    """Difference to a reference on the same windows, with its interval. Keys: PAIRED."""
    change = mean_with_interval(nll - reference, draws)
    return dict(zip(PAIRED, change.values(), strict=True))


def by_position(
    nll: np.ndarray, draws: Resamples, width: int, base: np.ndarray | None = None
) -> list[dict[str, Any]]:
    """Bins of `width` positions. `nll` (N, S-1): column j is the loss of position j + 1.

    With `base`, its losses of the same windows, each bin has the paired difference too.
    """
    length, bins = nll.shape[1] + 1, []
    for start in range(0, length, width):
        end = min(start + width, length)
        columns = slice(max(start - 1, 0), end - 1)
        part = nll[:, columns]
        if part.shape[1]:
            bin_ = {"from": start, "to": end, "tokens": part.size}
            bin_ |= {**mean_with_interval(part, draws), "n": draws.n, "unit": "document"}
            change = {} if base is None else paired(part, base[:, columns], draws)
            bins.append({**bin_, **change})
    return bins


def mean_nll(bins: Sequence[Mapping[str, Any]], low: float, high: float) -> float | None:
    """Token-weighted mean loss of the bins that lie inside [low, high]; None without one."""
    inside = [row for row in bins if row["from"] >= low and row["to"] <= high]
    tokens = sum(row["tokens"] for row in inside)
    return sum(row["nll"] * row["tokens"] for row in inside) / tokens if tokens else None


def perplexities(nll: np.ndarray, lengths: Sequence[int]) -> dict[str, float]:
    """Perplexity of the first `length` tokens of every window, by length.

    One pass over whole windows gives them all, because a causal model sees no later token.
    """
    return {str(length): math.exp(float(nll[:, : length - 1].mean())) for length in lengths}


def gains(by_context: dict[int, np.ndarray], draws: Resamples) -> list[dict[str, Any]]:
    """A row for each context length, with the paired difference to the shortest."""
    shortest = by_context[min(by_context)]
    rows = []
    for context, nll in sorted(by_context.items()):
        row = {"context": context, "tokens": nll.size, **mean_with_interval(nll, draws)}
        change = paired(nll, shortest, draws)
        rows.append({**row, "n": draws.n, "unit": "document", **change})
    return rows


def doublings(first: int, last: int) -> list[int]:
    """`first`, twice `first`, ... up to and including `last`."""
    lengths = [first]
    while lengths[-1] * 2 < last:
        lengths.append(lengths[-1] * 2)
    return lengths if last <= first else [*lengths, last]
