"""The longest context that a model uses well, with an interval. Pure numpy.

K parts of a score, such as configurations   U units of a part, such as haystacks
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ropewalk.data.random_streams import Purpose, generator
from ropewalk.eval.measure.statistics import DRAWS, MIN_UNITS, Estimate

SHARE = 0.85
"""Of the model's own score at its base window (NoLiMa, arXiv 2502.05167)."""
FLOOR = 0.2
"""A score at the base window below this says nothing about length."""
PUBLISHED = {"base": 0.794, "chat": 0.856}
"""RULER's thresholds: Llama-2-7B at 4K, without and with a chat template (arXiv 2404.06654)."""
PUBLISHED_PARTS = 13
"""Configurations whose mean these are of."""


@dataclass(frozen=True, eq=False)
class Part:
    """The answers of one part of a score: of each unit the sum of its scores, and how many."""

    sums: np.ndarray
    """(U,), each score from 0 to 1."""
    counts: np.ndarray
    """(U,)."""


Score = Sequence[Part]
"""Of one length. Its value is the mean over the parts, each the mean over its answers."""


@dataclass(frozen=True)
class EffectiveLength:
    """`value`: None where it is not measurable, or shorter than the shortest length."""

    value: int | None
    low: int | None
    high: int | None
    threshold: float | None
    base_score: float | None
    n: int
    reason: str | None = None


def part_of(units: Sequence[str], scores: Sequence[float]) -> Part:
    names = {name: number for number, name in enumerate(dict.fromkeys(units))}
    member = np.array([names[unit] for unit in units])
    return Part(np.bincount(member, scores), np.bincount(member).astype(float))


def value(score: Score) -> float:
    return float(np.mean([part.sums.sum() / part.counts.sum() for part in score]))


def drawn_values(score: Score, seed: int, index: int) -> np.ndarray:
    """The score in each bootstrap draw of the units of every part: (DRAWS,).

    A part whose units all score 0, or all 1, does not vary when they are resampled: its share is
    then drawn from the posterior of that many units (Jeffreys: Beta with half a unit of each).
    """
    rng, means = generator(Purpose.BOOTSTRAP, seed, index), np.zeros(DRAWS)
    for part in score:
        units, right = len(part.sums), part.sums.sum() / part.counts.sum()
        if right in (0, 1):
            means += rng.beta(units * right + 0.5, units * (1 - right) + 0.5, DRAWS)
            continue
        draws = rng.multinomial(units, [1 / units] * units, size=DRAWS)
        means += (draws @ part.sums) / (draws @ part.counts)
    return means / len(score)


def relative(scores: Mapping[int, Score], base: int, seed: int) -> EffectiveLength:
    """The longest length with at least SHARE of the score at length `base`."""
    if base not in scores:
        return not_measurable(f"no score at the base window of {base:,} tokens")
    own, n = value(scores[base]), _units(scores)
    if own < FLOOR:
        reason = f"the score at the base window of {base:,} tokens is {own:.0%}, below {FLOOR:.0%}"
        return not_measurable(reason, n, own)
    drawn = _drawn(scores, seed)
    lengths = [length for length in sorted(scores) if length >= base]
    return _longest(scores, drawn, lengths, SHARE * own, SHARE * drawn[base], own, n)


def ratio(scores: Mapping[int, Score], base: int, length: int, seed: int) -> Estimate | None:
    """The score at `length` over that at `base`; None below FLOOR, as for `relative`."""
    if base not in scores or length not in scores or value(scores[base]) < FLOOR:
        return None
    n = _units({tokens: scores[tokens] for tokens in (base, length)})
    share = value(scores[length]) / value(scores[base])
    if n < MIN_UNITS:
        return Estimate(share, None, None, n)
    top, bottom = (drawn_values(scores[tokens], seed, tokens) for tokens in (length, base))
    low, high = np.quantile(top / np.maximum(bottom, 1e-9), [0.025, 0.975])
    return Estimate(share, float(low), float(high), n)


def published(scores: Mapping[int, Score], form: str, seed: int) -> EffectiveLength:
    """The longest length whose score is at least RULER's threshold for base or chat models."""
    threshold, n = PUBLISHED[form], _units(scores)
    parts = min((len(score) for score in scores.values()), default=0)
    if parts < PUBLISHED_PARTS:
        reason = f"{parts} of the {PUBLISHED_PARTS} configurations have a score at every length"
        return not_measurable(reason, n)
    drawn, lengths = _drawn(scores, seed), sorted(scores)
    bar = np.full(DRAWS, threshold)
    first = value(scores[lengths[0]])
    return _longest(scores, drawn, lengths, threshold, bar, first, n)


def _longest(
    scores: Mapping[int, Score],
    drawn: Mapping[int, np.ndarray],
    lengths: Sequence[int],
    threshold: float,
    thresholds: np.ndarray,
    base_score: float,
    n: int,
) -> EffectiveLength:
    """`drawn`: of each length its score in each draw; `thresholds`: that of each draw."""
    passing = [length for length in lengths if value(scores[length]) >= threshold - 1e-12]
    longest = np.zeros(DRAWS, dtype=np.int64)
    for length in lengths:
        longest[drawn[length] >= thresholds - 1e-12] = length
    longest_passing = passing[-1] if passing else None
    reason = None if passing else f"shorter than {lengths[0]:,} tokens"
    if n < MIN_UNITS:
        return EffectiveLength(longest_passing, None, None, threshold, base_score, n, reason)
    low, high = np.quantile(longest, [0.025, 0.975], method="inverted_cdf")
    ends = (int(low) or None, int(high) or None)
    return EffectiveLength(longest_passing, *ends, threshold, base_score, n, reason)


def _drawn(scores: Mapping[int, Score], seed: int) -> dict[int, np.ndarray]:
    """The texts of two lengths are different draws, so their bootstraps are independent."""
    return {length: drawn_values(score, seed, length) for length, score in scores.items()}


def _units(scores: Mapping[int, Score]) -> int:
    """Of the length with the fewest."""
    return min((sum(len(part.sums) for part in score) for score in scores.values()), default=0)


def not_measurable(reason: str, n: int = 0, base_score: float | None = None) -> EffectiveLength:
    return EffectiveLength(None, None, None, None, base_score, n, f"not measurable: {reason}")


def text(length: EffectiveLength, shortest: int) -> str:
    """`16K, 95% 8K-16K`."""
    if length.value is None and length.threshold is None:
        return str(length.reason)
    below = f"<{short(shortest)}"
    low, high = (below if end is None else short(end) for end in (length.low, length.high))
    value = below if length.value is None else short(length.value)
    return value if length.n < MIN_UNITS else f"{value}, 95% {low}-{high}"


def short(tokens: int) -> str:
    """`16K` of 16,384; 1,000 as it is."""
    return f"{tokens // 1024}K" if tokens >= 1024 and tokens % 1024 == 0 else f"{tokens:,}"
