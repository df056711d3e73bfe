"""The mixture: what is taken of a source, how often, and the budgets of all."""

from collections import Counter
from fractions import Fraction
from math import floor, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ropewalk.conf.errors import DataError
from ropewalk.data import hash_random
from ropewalk.data.mixing.shares import (
    SamplingRounds,
    Selection,
    refuse_repeats,
    split_budget,
    token_budgets,
)

KEYS = np.array([hash_random.document_key(f"{d}.txt") for d in range(60)], dtype=np.uint64)


def documents(share: Selection) -> list[tuple[int, int]]:
    return list(zip(share.index.tolist(), share.lengths.tolist(), strict=True))


LENGTHS = np.array([10, 20, 30, 40])
ALL = np.ones(4, dtype=bool)


def test_without_a_budget_each_usable_document_comes_once() -> None:
    share = SamplingRounds.of("a", LENGTHS, np.array([True, False, True, True]), KEYS[:4], 0).take(
        None
    )
    assert sorted(documents(share)) == [(0, 10), (2, 30), (3, 40)]
    assert (share.tokens, share.epochs) == (80, 1.0)


@settings(deadline=None)
@given(
    st.lists(st.integers(1, 50), min_size=1, max_size=20), st.integers(1, 3000), st.integers(0, 5)
)
def test_a_budget_is_met_to_the_token_and_repeats_whole_epochs(
    lengths: list[int], budget: int, seed: int
) -> None:
    share = SamplingRounds.of(
        "a", np.array(lengths), np.ones(len(lengths), bool), KEYS[: len(lengths)], seed
    ).take(budget)
    taken = Counter(index for index, _ in documents(share))
    assert sum(length for _, length in documents(share)) == share.tokens == budget
    assert all(length == lengths[index] for index, length in documents(share)[:-1])
    assert max(taken.values()) - min(taken.get(i, 0) for i in range(len(lengths))) <= 1
    assert share.epochs == pytest.approx(budget / sum(lengths))


def test_another_seed_or_source_takes_another_order() -> None:
    lengths, usable = np.full(50, 7), np.ones(50, bool)
    orders = [
        documents(SamplingRounds.of(n, lengths, usable, KEYS[:50], s).take(None))
        for n, s in (("a", 0), ("a", 1), ("b", 0))
    ]
    assert orders[0] != orders[1] and orders[0] != orders[2]
    assert sorted(orders[0]) == sorted(orders[1]) == sorted(orders[2])
    assert orders[0] == documents(SamplingRounds.of("a", lengths, usable, KEYS[:50], 0).take(None))


def test_a_source_without_usable_tokens_is_refused_by_name() -> None:
    with pytest.raises(DataError, match=r"data\.sources\.books has no tokens"):
        SamplingRounds.of("books", LENGTHS, ~ALL, KEYS[:4], 0).take(None)


@pytest.mark.parametrize(
    ("weights", "available", "tokens", "wanted"),
    [
        ({"a": None, "b": None}, {"a": 100, "b": 300}, None, {"a": None, "b": None}),
        ({"a": None, "b": None}, {"a": 100, "b": 300}, 200, {"a": 50, "b": 150}),
        ({"a": 1.0, "b": 3.0}, {"a": 100, "b": 600}, None, {"a": 100, "b": 300}),
        ({"a": 1.0, "b": 1.0}, {"a": 100, "b": None}, None, {"a": 100, "b": 100}),
        ({"a": 0.2, "b": 0.8}, {"a": 10, "b": 10}, 1000, {"a": 200, "b": 800}),
        ({"a": 1.0, "b": 0.0}, {"a": 100, "b": 5}, None, {"a": 100, "b": 0}),
        ({"a": 1.0, "b": 1.0}, {"a": None, "b": None}, None, {"a": 0, "b": 0}),
    ],
)
def test_budgets(weights: dict, available: dict, tokens: int | None, wanted: dict) -> None:
    assert token_budgets(weights, available, tokens) == wanted


def test_one_more_document_moves_no_other() -> None:
    """The order goes by each document's key: a source read in another order, or with one more, mixes the rest the same."""
    lengths, usable = np.arange(1, 51), np.ones(50, bool)
    whole = [
        KEYS[i] for i in SamplingRounds.of("a", lengths, usable, KEYS[:50], 0).take(None).index
    ]
    fewer = [
        KEYS[i]
        for i in SamplingRounds.of("a", lengths[:49], usable[:49], KEYS[:49], 0).take(None).index
    ]
    backwards = [
        KEYS[:50][::-1][i]
        for i in SamplingRounds.of("a", lengths[::-1], usable, KEYS[:50][::-1], 0).take(None).index
    ]
    assert [k for k in whole if k != KEYS[49]] == fewer
    assert backwards == whole


def test_ranks_are_even_and_unlike_for_other_seeds_labels_and_epochs() -> None:
    keys = np.arange(100_000, dtype=np.uint64)
    draws = [
        hash_random.sort_keys(*a)
        for a in ((0, "a", keys), (1, "a", keys), (0, "b", keys), (0, "a", keys, 1))
    ]
    for found in draws:
        assert len(np.unique(found)) == len(keys)
        assert (
            np.abs(
                np.bincount((found >> np.uint64(60)).astype(int), minlength=16) / len(keys) - 1 / 16
            ).max()
            < 0.004
        )
    for other in draws[1:]:
        assert abs(np.corrcoef(draws[0].astype(float), other.astype(float))[0, 1]) < 0.02


def by_definition(
    lengths: list[int], usable: list[bool], budget: int | None, seed: int, rates: list[float]
) -> list[tuple[int, int, int]]:
    """`(document, tokens, times before)`, document by document and round by round, as the module's first lines say."""
    start = [
        float(r >> np.uint64(32)) / 2**32 for r in hash_random.sort_keys(seed, "a:repeats", KEYS)
    ]
    found: list[tuple[int, int, int]] = []
    before, k = [0] * len(lengths), 0
    while k < 1 if budget is None else sum(n for _, n, _ in found) < budget:
        k += 1
        coming = []
        for d, rate in enumerate(rates):
            while usable[d] and before[d] < floor(rate * k + start[d]):
                coming.append(
                    (
                        int(hash_random.sort_keys(seed, "a", KEYS[d : d + 1], before[d])[0]),
                        d,
                        before[d],
                    )
                )
                before[d] += 1
        for _, d, times in sorted(coming):
            left = lengths[d] if budget is None else budget - sum(n for _, n, _ in found)
            found += [(d, min(lengths[d], left), times)] if left else []
    return found


RATES = st.sampled_from([0, 0.05, 0.1, 0.3, 0.5, 1, 1.7, 2, 2.5, 7])


@st.composite
def rated(draw: st.DrawFn) -> tuple[list[int], list[bool], list[float]]:
    count = draw(st.integers(1, 12))
    lengths = draw(st.lists(st.integers(1, 40), min_size=count, max_size=count))
    usable = draw(st.lists(st.booleans(), min_size=count, max_size=count))
    rates = draw(st.lists(RATES, min_size=count, max_size=count))
    return lengths, [True, *usable[1:]], [rates[0] or 1, *rates[1:]]


@settings(deadline=None, max_examples=300)
@given(rated(), st.one_of(st.none(), st.integers(1, 600)), st.integers(0, 5))
def test_expected_repeats_are_the_definition(case: tuple, budget: int | None, seed: int) -> None:
    lengths, usable, rates = case
    share = SamplingRounds.of(
        "a", np.array(lengths), np.array(usable), KEYS[: len(lengths)], seed, np.array(rates)
    ).take(budget)
    found = list(
        zip(share.index.tolist(), share.lengths.tolist(), share.epoch.tolist(), strict=True)
    )
    assert found == by_definition(lengths, usable, budget, seed, rates)
    assert budget is None or share.tokens == budget
    assert share.repeats == max(Counter(share.index.tolist()).values(), default=0)
    assert share.key.tolist() == KEYS[share.index].tolist()


def counted(rates: float, rounds: int, seed: int = 0, count: int = 100_000) -> np.ndarray:
    """(documents,) how often each of many comes in so many rounds."""
    keys = np.arange(count, dtype=np.uint64)
    given = SamplingRounds.of(
        "a", np.ones(count, np.int64), np.ones(count, bool), keys, seed, np.full(count, rates)
    )
    return np.bincount(given.takings(rounds)[0], minlength=count)


@pytest.mark.parametrize("rate", [0.1, 0.5, 1.25, 2.0, 3.9])
def test_a_round_takes_the_whole_part_always_and_the_rest_by_a_fair_draw(rate: float) -> None:
    """Fu et al.: a document below 4K tokens is kept with probability 0.1. Within five deviations of the binomial."""
    found, part = counted(rate, 1), rate - floor(rate)
    assert set(found.tolist()) <= {floor(rate), floor(rate) + 1}
    more = int((found > floor(rate)).sum())
    assert abs(more - part * len(found)) <= 5 * sqrt(len(found) * part * (1 - part))


def test_ten_rounds_of_a_tenth_take_each_document_once() -> None:
    """Down-sampled text is not repeated while there is text that has not come."""
    assert set(counted(0.1, 10, count=2000).tolist()) == {1}
    assert set(counted(2.5, 4, count=2000).tolist()) == {10}
    assert set(counted(0.3, 5, count=2000).tolist()) == {1, 2}


def test_another_seed_keeps_other_documents() -> None:
    one, two = counted(0.5, 1, 0), counted(0.5, 1, 1)
    assert abs(np.corrcoef(one, two)[0, 1]) < 0.02
    assert (one == counted(0.5, 1, 0)).all()


def test_what_is_kept_does_not_depend_on_order_or_on_other_documents() -> None:
    lengths, rates = np.arange(1, 61), np.where(np.arange(60) % 2, 0.3, 1.6)
    whole = SamplingRounds.of("a", lengths, np.ones(60, bool), KEYS, 0, rates).take(None)
    back = SamplingRounds.of(
        "a", lengths[::-1], np.ones(60, bool), KEYS[::-1], 0, rates[::-1]
    ).take(None)
    some = SamplingRounds.of("a", lengths[:40], np.ones(40, bool), KEYS[:40], 0, rates[:40]).take(
        None
    )
    assert (
        whole.key.tolist() == back.key.tolist() and whole.lengths.tolist() == back.lengths.tolist()
    )
    assert [k for k in whole.key.tolist() if k in set(KEYS[:40].tolist())] == some.key.tolist()


def test_rates_that_are_all_one_change_nothing() -> None:
    lengths = np.arange(1, 61)
    for budget in (None, 500, 5000):
        one, two = (
            SamplingRounds.of("a", lengths, lengths > 3, KEYS, 0, rates).take(budget)
            for rates in (1.0, np.ones(60))
        )
        assert documents(one) == documents(two) and one.epoch.tolist() == two.epoch.tolist()


def test_long_documents_get_the_tokens_that_fu_gives_them() -> None:
    """Half the tokens in documents below 4K, half above: with 0.1 the short ones are 1/11 of a budget of whole rounds."""
    lengths = np.array([1000] * 3200 + [32_000] * 100)
    keys = np.array([hash_random.document_key(str(d)) for d in range(3300)], dtype=np.uint64)
    share = SamplingRounds.of(
        "a", lengths, np.ones(3300, bool), keys, 0, np.where(lengths < 4096, 0.1, 1.0)
    ).take(3_520_000 * 10)
    short = int(share.lengths[lengths[share.index] < 4096].sum())
    assert abs(short / share.tokens - 1 / 11) < 0.001
    assert Counter(share.index[lengths[share.index] < 4096].tolist()).most_common(1)[0][1] == 1


@pytest.mark.parametrize("rates", [np.zeros(4), 0.0])
def test_a_source_whose_documents_are_all_weighted_to_nothing_is_refused(rates: np.ndarray) -> None:
    with pytest.raises(
        DataError, match=r"data\.sources\.a has no tokens to train on; .* length weight above 0"
    ):
        SamplingRounds.of("a", LENGTHS, ALL, KEYS[:4], 0, rates).take(100)


WEIGHTS = st.dictionaries(
    st.sampled_from("abcdef"), st.integers(0, 1000).map(lambda n: n / 100), min_size=1
)


@given(WEIGHTS, st.integers(0, 10**13))
def test_shares_add_up_to_the_token_and_none_is_a_token_off(
    weights: dict[str, float], total: int
) -> None:
    """Hamilton's method: rounded down or up, and whoever was rounded up had at least the remainder of whoever was not."""
    found, whole = (
        split_budget(total, weights),
        sum(Fraction(round(w * 100)) for w in weights.values()),
    )
    if not whole:
        assert set(found.values()) == {0}
        return
    exact = {name: total * Fraction(round(w * 100)) / whole for name, w in weights.items()}
    assert sum(found.values()) == total
    rest = {name: exact[name] - floor(exact[name]) for name in weights}
    up = [name for name in weights if found[name] == floor(exact[name]) + 1]
    assert all(found[name] == floor(exact[name]) for name in weights if name not in up)
    assert not up or min(rest[n] for n in up) >= max(
        (rest[n] for n in weights if n not in up), default=0
    )


@pytest.mark.parametrize(
    ("total", "weights", "wanted"),
    [
        (10, {"a": 1, "b": 1, "c": 1}, {"a": 4, "b": 3, "c": 3}),
        (1000, {"a": 0.34, "b": 0.66}, {"a": 340, "b": 660}),
        (100, {"a": 0.1, "b": 0.2, "c": 0.7}, {"a": 10, "b": 20, "c": 70}),
        (7, {"a": 0.0, "b": 3.0}, {"a": 0, "b": 7}),
        (5, {"a": 1, "b": 1}, {"a": 3, "b": 2}),
    ],
)
def test_shares_by_hand(total: int, weights: dict, wanted: dict) -> None:
    assert split_budget(total, weights) == wanted


@pytest.mark.parametrize(
    ("weights", "tokens", "rounds", "wanted"),
    [
        # 400 and 200 tokens there, a round of 100 and 200: a runs out first, and the sources stand as their tokens do
        ({"a": None, "b": None}, None, {"a": 100, "b": 200}, {"a": 100, "b": 50}),
        ({"a": None, "b": None}, 90, {"a": 100, "b": 200}, {"a": 60, "b": 30}),
        ({"a": 1.0, "b": 1.0}, None, {"a": 100, "b": 200}, {"a": 100, "b": 100}),
        ({"a": 1.0, "b": 3.0}, None, {"a": None, "b": 300}, {"a": 100, "b": 300}),
    ],
)
def test_budgets_where_a_round_is_not_what_there_is(
    weights: dict, tokens: int | None, rounds: dict, wanted: dict
) -> None:
    assert token_budgets(weights, {"a": 400, "b": 200}, tokens, rounds) == wanted


def test_too_many_repeats_are_refused_with_the_ways_out() -> None:
    refuse_repeats("a", 4, 3.2, 4)
    with pytest.raises(
        DataError,
        match=r"^data\.max_epochs is 4; .* of a one would be taken 5 times \(4\.20 epochs of all its tokens\); add documents, ",
    ):
        refuse_repeats("a", 5, 4.2, 4)


@pytest.mark.parametrize(
    ("budget", "rate", "rounds"),
    [(1, 1, 1), (100, 1, 1), (101, 1, 2), (200, 1, 2), (201, 1, 3), (200, 2, 1), (201, 2, 2)],
)
def test_rounds_are_the_fewest_that_give_the_budget(budget: int, rate: int, rounds: int) -> None:
    """Counted by hand: a round of 100 tokens at rate 1, of 200 at rate 2."""
    source = SamplingRounds.of("a", LENGTHS, ALL, KEYS[:4], 0, np.full(4, float(rate)))
    assert source.rounds_for(budget) == rounds
