"""Answers by depth: first fifth, middle and last fifth, and the worst depth. Pure numpy.

U haystacks   P depths   D bootstrap draws of haystacks
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ropewalk.eval.measure import proportions, statistics
from ropewalk.eval.measure.statistics import Estimate

FIFTHS = {"first fifth": (0.0, 0.2), "middle fifth": (0.4, 0.6), "last fifth": (0.8, 1.0)}
DIFFERENCES = {
    "primacy": ("first fifth", "middle fifth"),
    "recency": ("last fifth", "middle fifth"),
}


@dataclass(frozen=True, eq=False)
class ByDepth:
    """Whether each haystack's question at each depth was answered."""

    depths: np.ndarray
    """(P,), ascending."""
    right: np.ndarray
    """(U, P): 1, 0, or nan where a haystack has no question."""

    @classmethod
    def of(cls, answers: Sequence[tuple[str, float, bool]]) -> "ByDepth":
        """From haystack, depth and right or not, one answer for each haystack and depth."""
        names = {name: k for k, name in enumerate(dict.fromkeys(unit for unit, _, _ in answers))}
        depths = sorted({depth for _, depth, _ in answers})
        right = np.full((len(names), len(depths)), np.nan)
        for unit, depth, hit in answers:
            right[names[unit], depths.index(depth)] = hit
        return cls(np.array(depths), right)

    def fifth(self, name: str) -> np.ndarray:
        """Answers of one part: (U, depths in it)."""
        low, high = FIFTHS[name]
        return self.right[:, (self.depths > low - 1e-9) & (self.depths < high + 1e-9)]


def measures(answers: ByDepth, seed: int) -> list[dict[str, Any]]:
    """A row for each depth (curve), each fifth, primacy, recency, and the worst depth.

    Keys: measure, value, low, high, n (haystacks), and depth of curve and worst.
    """
    curve = [
        {"measure": "curve", "depth": float(depth), **_share(answers.right[:, [k]])}
        for k, depth in enumerate(answers.depths)
    ]
    fifths = [{"measure": name, **_share(answers.fifth(name))} for name in FIFTHS]
    changes = [
        {"measure": name, **_difference(answers.fifth(part), answers.fifth(other), seed)}
        for name, (part, other) in DIFFERENCES.items()
    ]
    return [*curve, *fifths, *changes, worst(answers, seed)]


def _share(right: np.ndarray) -> dict[str, Any]:
    units, _ = np.nonzero(~np.isnan(right))
    if not len(units):
        return _row(None)
    hits = right[~np.isnan(right)] > 0
    return _row(proportions.accuracy(hits.tolist(), [str(unit) for unit in units]))


def _difference(part: np.ndarray, other: np.ndarray, seed: int) -> dict[str, Any]:
    """Mean over the haystacks asked in both parts, each a difference of two shares.

    Where all haystacks agree there is nothing to resample: then the interval is joined from those
    of the two shares (Newcombe 1998, method 10).
    """
    both = [rows for rows in zip(part, other, strict=True) if not _any_empty(rows)]
    if not both:
        return _row(None)
    changes = np.array([np.nanmean(one) - np.nanmean(two) for one, two in both])
    if np.ptp(changes) == 0:
        return _joined(_share(np.array([one for one, _ in both])), both)
    draws = statistics.resamples([f"{k:06}" for k in range(len(both))], seed)
    return _row(statistics.mean(changes, draws))


def _joined(one: dict[str, Any], both: Sequence[Sequence[np.ndarray]]) -> dict[str, Any]:
    """The difference of the shares of two parts. `one`: the row of the first."""
    other = _share(np.array([part for _, part in both]))
    change = one["value"] - other["value"]
    if one["low"] is None or other["low"] is None:
        return {**one, "value": change}
    below = math.hypot(one["value"] - one["low"], other["high"] - other["value"])
    above = math.hypot(one["high"] - one["value"], other["value"] - other["low"])
    return {**one, "value": change, "low": change - below, "high": change + above}


def _any_empty(rows: Sequence[np.ndarray]) -> bool:
    return any(bool(np.isnan(row).all()) for row in rows)


def _row(estimate: Estimate | None) -> dict[str, Any]:
    if estimate is None:
        reason = "no haystack was asked in this part"
        return {"value": None, "low": None, "high": None, "n": 0, "reason": reason}
    value, low, high, n = estimate
    return {"value": value, "low": low, "high": high, "n": n}


def worst(answers: ByDepth, seed: int) -> dict[str, Any]:
    """The depth with the lowest share, and the share; the first of equal ones.

    Every draw of haystacks chooses its own worst depth, so the intervals hold the choice; that of
    the share holds also the interval of the depth alone, which few haystacks make wide. The
    lowest of several shares is below the share of that depth by chance: of many haystacks less.
    """
    asked = ~np.isnan(answers.right)
    right, count = np.nan_to_num(answers.right), answers.right.shape[0]
    shares = right.sum(axis=0) / asked.sum(axis=0)
    draws = statistics.resamples([f"{k:06}" for k in range(count)], seed)
    with np.errstate(invalid="ignore"):
        drawn = (draws.counts @ right) / (draws.counts @ asked)
    drawn = drawn[~np.isnan(drawn).any(axis=1)]
    lowest = int(shares.argmin())
    row = {"measure": "worst", "depth": float(answers.depths[lowest])}
    alone = _share(answers.right[:, [lowest]])
    if count < 2 or not len(drawn):
        return {**row, **alone}
    low, high = np.quantile(drawn.min(axis=1), [0.025, 0.975])
    ends = {"low": min(float(low), alone["low"]), "high": max(float(high), alone["high"])}
    return {**row, **alone, **ends, "n": count, **_places(answers.depths, drawn)}


def _places(depths: np.ndarray, drawn: np.ndarray) -> dict[str, float]:
    """Where the worst depth of a draw is, from the first of equal ones to the last."""
    first = depths[drawn.argmin(axis=1)]
    last = depths[::-1][drawn[:, ::-1].argmin(axis=1)]
    low = np.quantile(first, 0.025, method="inverted_cdf")
    high = np.quantile(last, 0.975, method="inverted_cdf")
    return {"depth_low": float(low), "depth_high": float(high)}
