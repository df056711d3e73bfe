"""Shares of right answers, in clusters and in pairs."""

import numpy as np
import pytest
from scipy import stats

from ropewalk.data.proportion import wilson
from ropewalk.eval.measure import proportions


@pytest.mark.parametrize(("lost", "gained"), [(0, 0), (3, 1), (1, 3), (10, 10), (40, 12), (0, 9)])
def test_mcnemar_is_scipys_binomial_test(lost: int, gained: int) -> None:
    expected = stats.binomtest(lost, lost + gained).pvalue if lost + gained else 1.0
    assert proportions.mcnemar(lost, gained) == pytest.approx(expected)


def test_answers_of_units_of_their_own_have_wilsons_interval() -> None:
    result = proportions.accuracy([True, False, True, True], list("abcd"))
    assert result == (0.75, *wilson(3, 4), 4)


def test_answers_of_one_haystack_count_as_one() -> None:
    """Eight copies of each answer say no more than the answers."""
    rng = np.random.Generator(np.random.PCG64(0))
    right = (rng.random(64) < 0.7).tolist()
    alone = proportions.accuracy(right, [str(k) for k in range(64)])
    units = [str(k) for k in range(64) for _ in range(8)]
    copies = proportions.accuracy(np.repeat(right, 8).tolist(), units)
    assert copies.n == 64 and copies.value == pytest.approx(alone.value)
    assert copies.low == pytest.approx(alone.low, abs=0.01)
    assert copies.high == pytest.approx(alone.high, abs=0.01)


def test_answers_in_clusters_have_the_interval_of_the_jackknifed_logit() -> None:
    """Korn and Graubard's interval, with scipy's functions and the error by leaving out each
    haystack in turn, which for haystacks of one size is that of the linear formula."""
    special = pytest.importorskip("scipy.special")
    right = np.random.Generator(np.random.PCG64(3)).random((12, 10)) < 0.8
    without = [np.delete(right, k, axis=0).mean() for k in range(12)]
    error = np.sqrt(11 / 12 * ((without - np.mean(without)) ** 2).sum())
    centre = (right.sum() + 0.5) / 121
    half = stats.t.ppf(0.975, 11) * error / (centre * (1 - centre))
    expected = special.expit(special.logit(centre) + np.array([-half, half]))
    units = [str(k) for k in range(12) for _ in range(10)]
    result = proportions.accuracy(right.ravel().tolist(), units)
    assert result == pytest.approx((right.mean(), *expected, 12))


def test_haystacks_that_are_all_right_are_not_certain() -> None:
    result = proportions.accuracy([True] * 80, [str(k // 8) for k in range(80)])
    assert result.value == result.high == 1 and result.low is not None
    assert result.low < wilson(10, 10)[0]
    assert proportions.accuracy([True] * 8, ["a"] * 8)[1:] == (None, None, 1)


def test_a_paired_difference_by_hand() -> None:
    """Agresti and Min 2005, of 100 items with 5 lost and 2 gained."""
    result = proportions.paired_difference(5, 2, 100)
    centre, half = -3 / 102, 1.959964 * (8 - 9 / 102) ** 0.5 / 102
    assert result == pytest.approx((-0.03, centre - half, centre + half, 100))
    none = proportions.paired_difference(0, 0, 100)
    assert none.low is not None and none.low < 0 and none.value == 0


def test_two_haystacks_have_an_interval_and_one_has_none() -> None:
    """Shares 1 and 0 of two answers each: the mean 1/2 with a standard error of 1/2; t of one
    degree of freedom is 12.706; the interval is of the logit, whose slope there is 1 / 4."""
    found = proportions.accuracy([True, True, False, False], ["a", "a", "b", "b"])
    half = stats.t.ppf(0.975, 1) * 0.5 / 0.25
    assert found == (0.5, pytest.approx(1 / (1 + np.exp(half))), pytest.approx(1), 2)
    assert proportions.accuracy([True, False], ["a", "a"]) == (0.5, None, None, 1)
    single = proportions.accuracy([True], ["a"])
    assert single.n == 1 and single.low == pytest.approx(
        stats.binomtest(1, 1).proportion_ci(method="wilson").low, abs=1e-6
    )


def test_scores_are_binary_or_have_students_interval() -> None:
    two = proportions.of_scores(np.array([0.25, 0.75]))
    half = stats.t.ppf(0.975, 1) * np.std([0.25, 0.75], ddof=1) / 2**0.5
    assert two == (0.5, pytest.approx(0.5 - half), pytest.approx(0.5 + half), 2)
    assert proportions.of_scores(np.array([0.5])) == (0.5, None, None, 1)
    assert proportions.is_binary(np.array([0.0, 1.0])) and not proportions.is_binary(np.array([2]))
    lost = proportions.change(np.array([0, 1, 0, 1]), np.array([1, 1, 1, 0]))
    assert lost.value == -0.25 and lost.low is not None and lost.low < -0.25 < float(lost.high or 0)
    part = proportions.change(np.array([0.5, 1.0]), np.array([0.25, 0.25]))
    assert part.value == 0.5 and part.n == 2
