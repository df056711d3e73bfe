"""On simulated samples of known mean, 95% intervals cover it in 94 to 96% of the samples.

8,000 samples: of 2,000, one interval in thirty that covers 95% would be outside by chance.
"""

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from ropewalk.eval.measure import proportions, statistics

TRIALS = 8000
SIZES = (8, 16, 32, 64, 128)
Draw = Callable[[np.random.Generator, int], np.ndarray]


def nats(rng: np.random.Generator, n: int) -> np.ndarray:
    """Differences of document losses, mean 0: a document's effect and its tokens' noise."""
    return np.asarray(rng.normal(0, 0.05, n) + rng.normal(0, 1.0, n) / np.sqrt(2000))


def skewed(rng: np.random.Generator, n: int) -> np.ndarray:
    """Skewness 1, mean 0: a few documents lose most."""
    return np.asarray(rng.gamma(4, 0.01, n) - 0.04)


def cover(draw: Draw, n: int, trials: int) -> float:
    """The share of trials whose interval holds the mean, 0."""
    rng = np.random.Generator(np.random.PCG64(n))
    draws = statistics.resamples([f"{k}" for k in range(n)], 0)
    hits = 0
    for _ in range(trials):
        result = statistics.mean(draw(rng, n), draws)
        assert result.low is not None and result.high is not None
        hits += result.low <= 0 <= result.high
    return hits / trials


def clustered(
    rng: np.random.Generator, n: int, share: float, spread: float
) -> Iterator[tuple[bool, str]]:
    """Ten questions about each of `n` haystacks, which have their own shares, `share` in the mean.

    `spread`: of the Beta distribution of these, its two parameters together.
    """
    shares = rng.beta(share * spread, (1 - share) * spread, n)
    for haystack, own in enumerate(shares):
        yield from ((bool(right), f"{haystack}") for right in rng.random(10) < own)


@pytest.mark.slow
@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("draw", [nats, skewed], ids=lambda draw: draw.__name__)
def test_intervals_of_losses_cover(draw: Draw, n: int) -> None:
    assert 0.94 <= cover(draw, n, TRIALS) <= 0.96


def test_intervals_of_eight_documents_cover() -> None:
    """A short form of the slow one: the percentile bootstrap covers 88% here."""
    assert 0.935 <= cover(nats, 8, 2000) <= 0.965


@pytest.mark.slow
@pytest.mark.parametrize("n", [20, 50, 100])
@pytest.mark.parametrize("share", [0.5, 0.7, 0.9])
@pytest.mark.parametrize("spread", [5, 20])
def test_intervals_of_clustered_answers_cover(n: int, share: float, spread: float) -> None:
    assert 0.94 <= cover_of_clusters(n, share, spread, TRIALS) <= 0.96


def test_intervals_of_twenty_haystacks_cover() -> None:
    """A short form of the slow one."""
    assert 0.935 <= cover_of_clusters(20, 0.9, 20, 2000) <= 0.965


def cover_of_clusters(n: int, share: float, spread: float, trials: int) -> float:
    rng = np.random.Generator(np.random.PCG64(n))
    hits = 0
    for _ in range(trials):
        right, units = zip(*clustered(rng, n, share, spread), strict=True)
        result = proportions.accuracy(right, units)
        assert result.low is not None and result.high is not None
        hits += result.low <= share <= result.high
    return hits / trials


@pytest.mark.parametrize(("n", "lost", "gained"), [(100, 0.03, 0.02), (500, 0.03, 0.02)])
def test_intervals_of_paired_items_cover(n: int, lost: float, gained: float) -> None:
    rng = np.random.Generator(np.random.PCG64(n))
    cells = rng.multinomial(n, [lost, gained, 1 - lost - gained], TRIALS)
    results = [proportions.paired_difference(int(a), int(b), n) for a, b, _ in cells]
    hits = sum(r.low <= gained - lost <= r.high for r in results if r.low is not None and r.high)
    assert 0.94 <= hits / TRIALS <= 0.98
