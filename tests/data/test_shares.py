"""The mixture: what is taken of a source, how often, and the budgets of all."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ropewalk.conf.errors import DataError
from ropewalk.data import draw
from ropewalk.data.shares import Share, budgets, choose

KEYS = np.array([draw.key(f"{d}.txt") for d in range(60)], dtype=np.uint64)


def documents(share: Share) -> list[tuple[int, int]]:
    return list(zip(share.index.tolist(), share.taken.tolist(), strict=True))


LENGTHS = np.array([10, 20, 30, 40])
ALL = np.ones(4, dtype=bool)


def test_without_a_budget_each_usable_document_comes_once() -> None:
    share = choose("a", LENGTHS, np.array([True, False, True, True]), KEYS[:4], None, 0)
    assert sorted(documents(share)) == [(0, 10), (2, 30), (3, 40)]
    assert (share.tokens, share.epochs) == (80, 1.0)


@settings(deadline=None)
@given(st.lists(st.integers(1, 50), min_size=1, max_size=20), st.integers(1, 3000), st.integers(0, 5))
def test_a_budget_is_met_to_the_token_and_repeats_whole_epochs(lengths: list[int], budget: int, seed: int) -> None:
    share = choose("a", np.array(lengths), np.ones(len(lengths), bool), KEYS[: len(lengths)], budget, seed)
    taken = Counter(index for index, _ in documents(share))
    assert sum(length for _, length in documents(share)) == share.tokens == budget
    assert all(length == lengths[index] for index, length in documents(share)[:-1])
    assert max(taken.values()) - min(taken.get(i, 0) for i in range(len(lengths))) <= 1
    assert share.epochs == pytest.approx(budget / sum(lengths))


def test_another_seed_or_source_takes_another_order() -> None:
    lengths, usable = np.full(50, 7), np.ones(50, bool)
    orders = [documents(choose(n, lengths, usable, KEYS[:50], None, s)) for n, s in (("a", 0), ("a", 1), ("b", 0))]
    assert orders[0] != orders[1] and orders[0] != orders[2]
    assert sorted(orders[0]) == sorted(orders[1]) == sorted(orders[2])
    assert orders[0] == documents(choose("a", lengths, usable, KEYS[:50], None, 0))


def test_a_source_without_usable_tokens_is_refused_by_name() -> None:
    with pytest.raises(DataError, match=r"data\.sources\.books has no tokens"):
        choose("books", LENGTHS, ~ALL, KEYS[:4], None, 0)


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
    assert budgets(weights, available, tokens) == wanted


def test_one_more_document_moves_no_other() -> None:
    """The order goes by each document's key: a source read in another order, or with one more, mixes the rest the same."""
    lengths, usable = np.arange(1, 51), np.ones(50, bool)
    whole = [KEYS[i] for i in choose("a", lengths, usable, KEYS[:50], None, 0).index]
    fewer = [KEYS[i] for i in choose("a", lengths[:49], usable[:49], KEYS[:49], None, 0).index]
    backwards = [KEYS[:50][::-1][i] for i in choose("a", lengths[::-1], usable, KEYS[:50][::-1], None, 0).index]
    assert [k for k in whole if k != KEYS[49]] == fewer
    assert backwards == whole


def test_ranks_are_even_and_unlike_for_other_seeds_labels_and_epochs() -> None:
    keys = np.arange(100_000, dtype=np.uint64)
    draws = [draw.ranks(*a) for a in ((0, "a", keys), (1, "a", keys), (0, "b", keys), (0, "a", keys, 1))]
    for found in draws:
        assert len(np.unique(found)) == len(keys)
        assert (
            np.abs(np.bincount((found >> np.uint64(60)).astype(int), minlength=16) / len(keys) - 1 / 16).max() < 0.004
        )
    for other in draws[1:]:
        assert abs(np.corrcoef(draws[0].astype(float), other.astype(float))[0, 1]) < 0.02
