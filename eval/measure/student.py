"""Student's t distribution for whole degrees of freedom, in closed form. Pure."""

import math
from functools import cache
from statistics import NormalDist

NORMAL_FROM = 2000
"""Degrees of freedom from which the normal distribution stands in: both agree to 1e-3."""


def two_sided_p(t: float, df: int) -> float:
    """P(|T| > |t|): Abramowitz and Stegun (1964), 26.7.3 and 26.7.4."""
    t = abs(t)
    if not math.isfinite(t):
        return 0.0
    if df >= NORMAL_FROM:
        return 2 * NormalDist().cdf(-t)
    angle = math.atan2(t, math.sqrt(df))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = df % 2
    term, total = (cosine if odd else 1.0), 0.0
    for k in range(1, (df - odd) // 2 + 1):
        total += term
        term *= cosine * cosine * (2 * k - 1 + odd) / (2 * k + odd)
    inside = 2 / math.pi * (angle + sine * total) if odd else sine * total
    return min(1.0, max(0.0, 1 - inside))


@cache
def half_width(df: int, level: float = 0.95) -> float:
    """The t with P(|T| <= t) = `level`: half of an interval in standard errors."""
    low, high = 0.0, 1.0
    while two_sided_p(high, df) > 1 - level:
        high *= 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if two_sided_p(middle, df) > 1 - level else (low, middle)
    return high
