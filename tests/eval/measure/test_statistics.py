"""Means, intervals and bins by hand; the interval of a proportion against published ones."""

import math

import numpy as np
import pytest

from ropewalk.eval.measure import statistics

TWO = statistics.resamples(["a", "b"], 0)


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilsons_interval_is_newcombes_table(hits: int, n: int, low: float, high: float) -> None:
    """Newcombe 1998, Statistics in Medicine 17, table I, method 3."""
    assert statistics.wilson(hits, n) == pytest.approx((low, high), abs=5e-5)
    assert statistics.wilson(n - hits, n) == pytest.approx((1 - high, 1 - low), abs=5e-5)


def test_bins_by_position_by_hand() -> None:
    """Column j is the loss of position j + 1; the first position has no loss."""
    nll = np.array([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [3.0, 4.0, 5.0, 6.0, 7.0, 8.0]])
    bins = statistics.by_position(nll, TWO, 3)
    rows = [(row["from"], row["to"], row["tokens"], row["nll"]) for row in bins]
    assert rows == [(0, 3, 4, 2.5), (3, 6, 6, 5.0), (6, 7, 2, 7.0)]


def test_gains_by_hand() -> None:
    """Each context's mean, and its difference to the shortest on the same windows."""
    by_context = {8: np.array([[1.0, 2.0], [2.0, 3.0]]), 4: np.array([[2.0, 2.0], [4.0, 4.0]])}
    shortest, longer = statistics.gains(by_context, TWO)
    assert (shortest["context"], shortest["nll"], shortest["difference"]) == (4, 3.0, 0.0)
    assert (longer["context"], longer["tokens"], longer["nll"]) == (8, 4, 2.0)
    assert longer["difference"] == -1.0
    # two windows differ by -0.5 and -1.5: Student's t of one degree of freedom, 12.706
    assert longer["difference_low"] == pytest.approx(-1 - 12.7062 * 0.5, abs=1e-3)
    assert longer["difference_high"] == pytest.approx(-1 + 12.7062 * 0.5, abs=1e-3)


def test_bins_have_the_paired_difference_to_the_base_by_hand() -> None:
    nll, base = np.array([[1.0, 2.0], [4.0, 4.0]]), np.array([[1.5, 1.0], [2.5, 3.0]])
    first, last = statistics.by_position(nll, TWO, 2, base)
    assert [row["difference"] for row in (first, last)] == [0.5, 1.0]
    assert last["difference_low"] == last["difference_high"] == 1.0  # the same in both windows
    assert (first["n"], first["unit"]) == (2, "document")


def test_perplexity_of_the_first_tokens_by_hand() -> None:
    nll = np.array([[1.0, 2.0, 9.0], [3.0, 4.0, 9.0]])
    expected = {"2": math.exp(2), "3": math.exp(2.5), "4": math.exp(28 / 6)}
    assert statistics.perplexities(nll, [2, 3, 4]) == pytest.approx(expected)


def test_a_resample_draws_as_many_documents_as_there_are() -> None:
    """Windows of one document have its weight; over all draws every document has weight 1."""
    weights = statistics.resamples(["a", "b", "a", "c"], 0).weights
    assert (weights[:, 0] == weights[:, 2]).all()
    assert (weights[:, 0] + weights[:, 1] + weights[:, 3] == 3).all()
    assert weights.mean(axis=0) == pytest.approx(1, abs=5 * math.sqrt(2 / 3 / len(weights)))


def test_the_bootstrap_draws_from_numpys_philox_under_the_seed() -> None:
    """Key (seed, 0) and the counter's highest word 2, the purpose's number, by `advance`."""
    bits = np.random.Philox(key=[7, 0])
    bits.advance(2 << 192)
    expected = np.random.Generator(bits).multinomial(3, [1 / 3] * 3, size=statistics.DRAWS)
    assert np.array_equal(statistics.resamples(["a", "b", "c"], 7).counts, expected)


def test_one_document_has_no_interval() -> None:
    draws = statistics.resamples(["a", "a"], 0)
    assert statistics.mean(np.array([1.0, 2.0]), draws) == (1.5, None, None, 1)


def test_windows_of_one_document_are_one_unit() -> None:
    """Twice the windows, each pair equal: the same interval as of the documents alone."""
    values = np.random.Generator(np.random.PCG64(0)).normal(size=12)
    alone = statistics.mean(values, statistics.resamples([str(k) for k in range(12)], 0))
    twice = [str(k) for k in range(12) for _ in range(2)]
    pairs = statistics.mean(np.repeat(values, 2), statistics.resamples(twice, 0))
    assert pairs == pytest.approx(alone)


def test_the_interval_is_the_studentised_bootstraps_loop() -> None:
    """Draw by draw, with numpy's mean and variance of the drawn values."""
    values = np.random.Generator(np.random.PCG64(3)).gamma(2, size=10)
    draws = statistics.resamples([f"{k}" for k in range(10)], 5)
    error = values.std(ddof=1) / math.sqrt(10)
    ratios = []
    for counts in draws.counts.astype(int):
        drawn = np.repeat(values, counts)
        spread = drawn.std() / math.sqrt(9)
        ratios.append((drawn.mean() - values.mean()) / spread)
    below, above = np.quantile(ratios, [0.025, 0.975])
    expected = (values.mean(), values.mean() - above * error, values.mean() - below * error, 10)
    assert statistics.mean(values, draws) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("first", "last", "lengths"),
    [
        (4, 32, [4, 8, 16, 32]),
        (4, 33, [4, 8, 16, 32, 33]),
        (4, 4, [4]),
        (4, 3, [4]),
        (4, 5, [4, 5]),
    ],
)
def test_doublings_by_hand(first: int, last: int, lengths: list[int]) -> None:
    assert statistics.doublings(first, last) == lengths


def test_a_mean_of_bins_takes_those_inside_by_their_tokens() -> None:
    nll = np.array([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [3.0, 4.0, 5.0, 6.0, 7.0, 8.0]])
    bins = statistics.by_position(nll, TWO, 3)  # [0, 3): 2.5 of 4, [3, 6): 5 of 6, [6, 7): 7 of 2
    assert statistics.mean_nll(bins, 0, 6) == (2.5 * 4 + 5 * 6) / 10
    assert statistics.mean_nll(bins, 3, 7) == (5 * 6 + 7 * 2) / 8
    assert statistics.mean_nll(bins, 1, 6.5) == statistics.mean_nll(bins, 3, 6) == 5
    assert statistics.mean_nll(bins, 4, 6) is statistics.mean_nll(bins, 7, 99) is None
