"""Which documents of a source are taken, and how often."""

from collections import Counter
from math import floor, sqrt
from typing import Any
from unittest.mock import patch

import numpy as np
import plans
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ropewalk.conf.errors import DataError
from ropewalk.data import hash_random
from ropewalk.data.mixing import rounds as rounds_module
from ropewalk.data.mixing.rounds import SamplingRounds, Selection

KEYS = np.array([hash_random.document_key(f"{d}.txt") for d in range(60)], dtype=np.uint64)


LENGTHS = np.array([10, 20, 30, 40])


def take(
    lengths: np.ndarray,
    keys: np.ndarray,
    budget: int | None = None,
    *,
    name: str = "a",
    usable: np.ndarray | bool = True,
    seed: int = 0,
    rates: np.ndarray | float = 1.0,
) -> Selection:
    mask = np.broadcast_to(usable, lengths.shape)
    return plans.take(SamplingRounds(name, lengths, mask, keys, seed, rates), budget)


def takings(selection: Selection) -> list[tuple[int, int]]:
    return list(zip(selection.index.tolist(), selection.lengths.tolist(), strict=True))


def test_without_a_budget_each_usable_document_is_taken_once() -> None:
    selection = take(LENGTHS, KEYS[:4], usable=np.array([True, False, True, True]))
    assert sorted(takings(selection)) == [(0, 10), (2, 30), (3, 40)]
    assert selection.tokens == 80


@settings(deadline=None)
@given(
    st.lists(st.integers(1, 50), min_size=1, max_size=20), st.integers(1, 3000), st.integers(0, 5)
)
def test_a_budget_is_met_to_the_token_and_repeats_whole_epochs(
    lengths: list[int], budget: int, seed: int
) -> None:
    selection = take(np.array(lengths), KEYS[: len(lengths)], budget, seed=seed)
    counts = Counter(index for index, _ in takings(selection))
    assert sum(length for _, length in takings(selection)) == selection.tokens == budget
    assert sum(length < lengths[index] for index, length in takings(selection)) <= 1
    assert max(counts.values()) - min(counts.get(i, 0) for i in range(len(lengths))) <= 1


def order(keys: np.ndarray, rates: np.ndarray | float = 1.0, **choices: Any) -> list[int]:
    """Keys of documents of one token, in the order in which growing budgets take them first."""
    lengths, taken = np.ones(len(keys), np.int64), []
    for budget in range(1, len(keys) + 1):
        more = set(take(lengths, keys, budget, rates=rates, **choices).key.tolist()) - set(taken)
        taken += sorted(more)
    return taken


def test_another_seed_or_source_gives_another_order() -> None:
    keys = KEYS[:50]
    orders = [order(keys, name=name, seed=seed) for name, seed in (("a", 0), ("a", 1), ("b", 0))]
    assert orders[0] != orders[1] and orders[0] != orders[2]
    assert sorted(orders[0]) == sorted(orders[1]) == sorted(orders[2]) == sorted(keys.tolist())
    assert orders[0] == order(keys)


def test_a_source_without_usable_tokens_is_refused_by_name() -> None:
    with pytest.raises(DataError, match=r"data\.sources\.books has no tokens"):
        take(LENGTHS, KEYS[:4], name="books", usable=False)


def test_the_order_does_not_depend_on_reading_order_or_on_other_documents() -> None:
    keys = KEYS[:50]
    assert order(keys[::-1]) == order(keys)
    assert order(keys[:49]) == [key for key in order(keys) if key != keys[49]]


def test_sort_keys_are_even_and_independent_for_other_seeds_labels_and_epochs() -> None:
    keys = np.arange(100_000, dtype=np.uint64)
    draws = [
        hash_random.sort_keys(*a)
        for a in ((0, "a", keys), (1, "a", keys), (0, "b", keys), (0, "a", keys, 1))
    ]
    for draw in draws:
        assert len(np.unique(draw)) == len(keys)
        counts = np.bincount((draw >> np.uint64(60)).astype(int), minlength=16)
        assert np.abs(counts / len(keys) - 1 / 16).max() < 0.004
    for other in draws[1:]:
        assert abs(np.corrcoef(draws[0].astype(float), other.astype(float))[0, 1]) < 0.02


def by_definition(
    lengths: list[int], usable: list[bool], budget: int | None, seed: int, rates: list[float]
) -> list[tuple[int, int, int]]:
    """`(document, tokens, epoch)` by the definition in the module, document by document."""
    start = [
        float(r >> np.uint64(32)) / 2**32 for r in hash_random.sort_keys(seed, "a:repeats", KEYS)
    ]
    takings: list[tuple[int, int, int]] = []
    epochs, k = [0] * len(lengths), 0
    while k < 1 if budget is None else sum(n for _, n, _ in takings) < budget:
        k += 1
        round_takings = []
        for d, rate in enumerate(rates):
            while usable[d] and epochs[d] < floor(rate * k + start[d]):
                key = int(hash_random.sort_keys(seed, "a", KEYS[d : d + 1], epochs[d])[0])
                round_takings.append((key, d, epochs[d]))
                epochs[d] += 1
        for _, d, epoch in sorted(round_takings):
            left = lengths[d] if budget is None else budget - sum(n for _, n, _ in takings)
            if left:
                takings.append((d, min(lengths[d], left), epoch))
    return takings


RATES = st.sampled_from([0, 0.05, 0.1, 0.3, 0.5, 1, 1.7, 2, 2.5, 7])


@st.composite
def rated(draw: st.DrawFn) -> tuple[list[int], list[bool], list[float]]:
    count = draw(st.integers(1, 12))
    lengths = draw(st.lists(st.integers(1, 40), min_size=count, max_size=count))
    usable = draw(st.lists(st.booleans(), min_size=count, max_size=count))
    rates = draw(st.lists(RATES, min_size=count, max_size=count))
    return lengths, [True, *usable[1:]], [rates[0] or 1, *rates[1:]]


@settings(deadline=None, max_examples=300)
@given(
    rated(),
    st.one_of(st.none(), st.integers(1, 600)),
    st.integers(0, 5),
    st.sampled_from([1, 2, 5, 12]),
)
def test_expected_repeats_follow_the_definition(
    case: tuple, budget: int | None, seed: int, documents: int
) -> None:
    """In ranges of any number of documents."""
    lengths, usable, rates = case
    with patch.multiple(rounds_module, RANGE=documents, HASH_BITS=3):
        selection = take(
            np.array(lengths),
            KEYS[: len(lengths)],
            budget,
            usable=np.array(usable),
            seed=seed,
            rates=np.array(rates),
        )
    columns = (selection.index, selection.lengths, selection.epoch)
    actual = list(zip(*(column.tolist() for column in columns), strict=True))
    assert sorted(actual) == sorted(by_definition(lengths, usable, budget, seed, rates))
    assert budget is None or selection.tokens == budget
    assert selection.repeats == max(Counter(selection.index.tolist()).values(), default=0)
    assert selection.key.tolist() == KEYS[selection.index].tolist()


def counted(rates: float, rounds: int, seed: int = 0, count: int = 100_000) -> np.ndarray:
    """(documents,) how often each of `count` documents is taken in `rounds`."""
    keys, lengths = np.arange(count, dtype=np.uint64), np.ones(count, np.int64)
    source = SamplingRounds("a", lengths, lengths > 0, keys, seed, np.full(count, rates))
    selection = plans.take(source, source.tokens(rounds))
    return np.bincount(selection.index, minlength=count)


@pytest.mark.parametrize("rate", [0.1, 0.5, 1.25, 2.0, 3.9])
def test_a_round_takes_the_integer_part_and_draws_the_fraction(rate: float) -> None:
    """As in Fu et al., who keep a document with probability 0.1: within 5 binomial deviations."""
    counts, fraction = counted(rate, 1), rate - floor(rate)
    assert set(counts.tolist()) <= {floor(rate), floor(rate) + 1}
    more = int((counts > floor(rate)).sum())
    deviation = sqrt(len(counts) * fraction * (1 - fraction))
    assert abs(more - fraction * len(counts)) <= 5 * deviation


def test_ten_rounds_of_a_tenth_take_each_document_once() -> None:
    """Down-sampled text is not repeated before all of it was taken."""
    assert set(counted(0.1, 10, count=2000).tolist()) == {1}
    assert set(counted(2.5, 4, count=2000).tolist()) == {10}
    assert set(counted(0.3, 5, count=2000).tolist()) == {1, 2}


def test_another_seed_draws_other_documents() -> None:
    seed_0, seed_1 = counted(0.5, 1, 0), counted(0.5, 1, 1)
    assert abs(np.corrcoef(seed_0, seed_1)[0, 1]) < 0.02
    assert (seed_0 == counted(0.5, 1, 0)).all()


def test_the_draw_does_not_depend_on_reading_order_or_on_other_documents() -> None:
    lengths, rates = np.arange(1, 61), np.where(np.arange(60) % 2, 0.3, 1.6)
    selection = take(lengths, KEYS, rates=rates)
    backwards = take(lengths[::-1], KEYS[::-1], rates=rates[::-1])
    assert sorted(selection.key.tolist()) == sorted(backwards.key.tolist())
    assert order(KEYS, rates) == order(KEYS[::-1], rates[::-1])
    fewer = take(lengths[:40], KEYS[:40], rates=rates[:40]).key.tolist()
    assert [k for k in selection.key.tolist() if k in set(KEYS[:40].tolist())] == fewer


def test_rates_of_1_change_nothing() -> None:
    lengths = np.arange(1, 61)
    for budget in (None, 500, 5000):
        unrated, rated = (
            take(lengths, KEYS, budget, usable=lengths > 3, rates=rates)
            for rates in (1.0, np.ones(60))
        )
        assert takings(unrated) == takings(rated)
        assert unrated.epoch.tolist() == rated.epoch.tolist()


def test_short_documents_get_the_share_that_fu_gives_them() -> None:
    """Half of the tokens are in documents below 4K: at rate 0.1 these fill 1/11 of a budget."""
    lengths = np.array([1000] * 3200 + [32_000] * 100)
    keys = np.array([hash_random.document_key(str(d)) for d in range(3300)], dtype=np.uint64)
    selection = take(lengths, keys, 3_520_000 * 10, rates=np.where(lengths < 4096, 0.1, 1.0))
    is_short = lengths[selection.index] < 4096
    assert abs(int(selection.lengths[is_short].sum()) / selection.tokens - 1 / 11) < 0.001
    assert Counter(selection.index[is_short].tolist()).most_common(1)[0][1] == 1


@pytest.mark.parametrize("rates", [np.zeros(4), 0.0])
def test_a_source_whose_documents_all_have_rate_0_is_refused(rates: np.ndarray) -> None:
    message = r"data\.sources\.a has no tokens to train on; .* length weight above 0"
    with pytest.raises(DataError, match=message):
        take(LENGTHS, KEYS[:4], 100, rates=rates)


@pytest.mark.parametrize(
    ("budget", "rate", "rounds"),
    [(1, 1, 1), (100, 1, 1), (101, 1, 2), (200, 1, 2), (201, 1, 3), (200, 2, 1), (201, 2, 2)],
)
def test_rounds_are_the_fewest_that_give_the_budget(budget: int, rate: int, rounds: int) -> None:
    """Counted by hand: a round of 100 tokens at rate 1, of 200 at rate 2."""
    usable, rates = np.ones(4, bool), np.full(4, float(rate))
    source = SamplingRounds("a", LENGTHS, usable, KEYS[:4], 0, rates)
    assert source.rounds_for(budget) == rounds
