"""Differences of kept samples against scipy, numpy and published intervals; a planted difference is
seen, and a null is not, over many draws."""

from collections.abc import Sequence

import numpy as np
import pytest
from scipy import stats

from ropewalk.eval.measure import gates
from ropewalk.eval.measure.gates import Verdict
from ropewalk.launch.compare import pairs
from ropewalk.launch.compare.measures import Values


def values(
    numbers: Sequence[float] | np.ndarray,
    keys: Sequence[str] | None = None,
    units: Sequence[str] | None = None,
    weights: np.ndarray | None = None,
) -> Values:
    names = [f"k{number}" for number in range(len(numbers))]
    weights = np.ones(len(numbers)) if weights is None else weights
    return Values(keys or names, units or names, np.asarray(numbers, float), weights, "p")


def test_paired_losses_have_the_interval_of_the_differences_and_not_of_the_means() -> None:
    rng = np.random.default_rng(1)
    level = rng.normal(3, 1, 200)
    a, b = level + rng.normal(0.02, 0.1, 200), level + rng.normal(0, 0.1, 200)
    change = pairs.difference(values(a), values(b), 0, is_share=False)
    expected = stats.ttest_rel(a, b)
    low, high = expected.confidence_interval()
    np.testing.assert_allclose(change.estimate[:3], [(a - b).mean(), low, high], atol=2e-3)
    assert (change.is_paired, change.samples, change.left_out, change.estimate.n) == (
        *(True, 200, 0),
        200,
    )
    independent = stats.ttest_ind(a, b, equal_var=False).confidence_interval()
    assert independent.high - independent.low > 5 * (high - low)


def test_pairs_are_those_of_equal_keys_whatever_their_order() -> None:
    a = values([5.0, 1.0, 7.0, 9.0], ["d", "a", "b", "only own"])
    b = values([2.0, 1.5, 6.0, 0.0, 0.0], ["b", "a", "d", "x", "y"])
    change = pairs.difference(a, b, 0, is_share=False)
    assert change.estimate.value == pytest.approx(((5 - 6) + (1 - 1.5) + (7 - 2)) / 3)
    assert (change.samples, change.left_out) == (3, 3)


def test_a_key_that_occurs_twice_is_paired_once_each() -> None:
    a, b = values([1.0, 2.0], ["same", "same"]), values([0.0, 4.0], ["same", "same"])
    change = pairs.difference(a, b, 0, is_share=False)
    assert change.samples == 2 and change.estimate.value == pytest.approx(((1 - 0) + (2 - 4)) / 2)


def test_tokens_weigh_a_sample() -> None:
    a, b = values([1.0, 3.0], weights=np.array([1.0, 3.0])), values([0.0, 0.0])
    change = pairs.difference(a, b, 0, is_share=False)
    assert change.estimate.value == pytest.approx((1 * 1 + 3 * 3) / 4)


def test_samples_of_one_document_count_as_one() -> None:
    """Each document twice: the interval is that of the documents' means, not narrower."""
    rng = np.random.default_rng(2)
    effect = np.repeat(rng.normal(0, 1, 60), 2)
    units = [f"document {number // 2}" for number in range(120)]
    change = pairs.difference(values(effect, units=units), values(np.zeros(120)), 0, False)
    low, high = stats.ttest_1samp(effect[::2], 0).confidence_interval()
    np.testing.assert_allclose(change.estimate[1:3], (low, high), atol=0.04)
    assert change.estimate.n == 60


@pytest.mark.parametrize(
    ("own", "baseline", "low", "high"),
    [  # Newcombe 1998, Statistics in Medicine 17, 873-890, table II, method 10
        ((56, 70), (48, 80), 0.0524, 0.3339),
        ((9, 10), (3, 10), 0.1705, 0.8090),
        ((10, 10), (0, 10), 0.6075, 1.0000),
    ],
)
def test_unpaired_shares_have_newcombes_interval(
    own: tuple[int, int], baseline: tuple[int, int], low: float, high: float
) -> None:
    first, second = (
        values([1.0] * hits + [0.0] * (n - hits), [f"{side} {k}" for k in range(n)])
        for side, (hits, n) in enumerate((own, baseline))
    )
    change = pairs.difference(first, second, 0, is_share=True)
    assert not change.is_paired
    np.testing.assert_allclose(change.estimate[1:3], (low, high), atol=6e-5)


def test_unpaired_losses_have_welchs_interval() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.normal(3.0, 0.5, 90), rng.normal(2.8, 1.0, 40)
    change = pairs.difference(values(a), values(b, [f"other {n}" for n in range(40)]), 0, False)
    low, high = stats.ttest_ind(a, b, equal_var=False).confidence_interval()
    assert not change.is_paired and change.estimate.n == 40
    np.testing.assert_allclose(change.estimate[1:3], (low, high), atol=0.04)


def test_equal_answers_of_all_haystacks_leave_an_interval() -> None:
    units = [f"haystack {number // 4}" for number in range(40)]
    a, b = values(np.ones(40), units=units), values(np.ones(40), units=units)
    change = pairs.difference(a, b, 0, is_share=True).estimate
    assert change.low is not None and change.high is not None
    assert change.low < change.value == 0 < change.high and change.n == 10


def test_several_seeds_are_pooled_with_a_document_as_one_unit() -> None:
    rng = np.random.default_rng(4)
    documents = rng.normal(0, 1, 80)
    sides = []
    for _ in range(3):
        own = values(documents + 0.5 + rng.normal(0, 0.05, 80))
        sides.append((own, values(np.zeros(80))))
    pooled = pairs.pooled(sides, 0)
    assert pooled is not None and pooled.n == 80
    by_document = np.mean([own.values for own, _ in sides], axis=0)
    low, high = stats.ttest_1samp(by_document, 0).confidence_interval()
    np.testing.assert_allclose(pooled[:3], (by_document.mean(), low, high), atol=0.03)


def decided(effect: float, families: int, measures: int, seed: int) -> float:
    """The share of families of `measures` differences in which some is decided after Holm."""
    rng, hits = np.random.default_rng(seed), 0
    for family in range(families):
        verdicts = []
        for number in range(measures):
            level = rng.normal(3, 1, 16)
            own = level + rng.normal(effect if number == 0 else 0, 0.2, 16)
            theirs = values(level + rng.normal(0, 0.2, 16))
            change = pairs.difference(values(own), theirs, family, False).estimate
            verdicts.append(Verdict("", change, 0.0, "", "document", "nats"))
        factors = gates.holm([verdict.p for verdict in verdicts])
        answers = [v.answer(f) for v, f in zip(verdicts, factors, strict=True)]
        hits += any(answer != "undecided" for answer in answers)
    return hits / families


def test_a_null_is_decided_in_no_more_than_the_promised_share_of_comparisons() -> None:
    """5% of the families, and three standard errors of the 120 that are drawn."""
    assert decided(0.0, families=120, measures=4, seed=5) <= 0.05 + 3 * (0.05 * 0.95 / 120) ** 0.5


def test_a_planted_difference_is_decided() -> None:
    """Five standard errors of a paired difference of 16 documents."""
    assert decided(5 * 0.2 * 2**0.5 / 4, families=30, measures=4, seed=6) >= 0.85
