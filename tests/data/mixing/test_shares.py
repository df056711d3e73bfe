"""The budgets of the sources, and what a mixture refuses."""

from fractions import Fraction
from math import floor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ropewalk.conf.errors import DataError
from ropewalk.data.mixing.shares import refuse_repeats, split_budget, token_budgets


@pytest.mark.parametrize(
    ("weights", "available", "tokens", "expected"),
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
def test_budgets(weights: dict, available: dict, tokens: int | None, expected: dict) -> None:
    assert token_budgets(weights, available, tokens) == expected


WEIGHTS = st.dictionaries(
    st.sampled_from("abcdef"), st.integers(0, 1000).map(lambda n: n / 100), min_size=1
)


@given(WEIGHTS, st.integers(0, 10**13))
def test_budgets_add_up_and_differ_by_less_than_a_token_from_their_share(
    weights: dict[str, float], total: int
) -> None:
    """Hamilton's method: the shares with the largest remainders are rounded up."""
    budgets = split_budget(total, weights)
    weight_sum = sum(Fraction(round(w * 100)) for w in weights.values())
    if not weight_sum:
        assert set(budgets.values()) == {0}
        return
    exact = {name: total * Fraction(round(w * 100)) / weight_sum for name, w in weights.items()}
    assert sum(budgets.values()) == total
    remainder = {name: exact[name] - floor(exact[name]) for name in weights}
    up = [name for name in weights if budgets[name] == floor(exact[name]) + 1]
    down = [name for name in weights if name not in up]
    assert all(budgets[name] == floor(exact[name]) for name in down)
    assert not up or min(remainder[n] for n in up) >= max((remainder[n] for n in down), default=0)


@pytest.mark.parametrize(
    ("total", "weights", "expected"),
    [
        (10, {"a": 1, "b": 1, "c": 1}, {"a": 4, "b": 3, "c": 3}),
        (1000, {"a": 0.34, "b": 0.66}, {"a": 340, "b": 660}),
        (100, {"a": 0.1, "b": 0.2, "c": 0.7}, {"a": 10, "b": 20, "c": 70}),
        (7, {"a": 0.0, "b": 3.0}, {"a": 0, "b": 7}),
        (5, {"a": 1, "b": 1}, {"a": 3, "b": 2}),
    ],
)
def test_shares_by_hand(total: int, weights: dict, expected: dict) -> None:
    assert split_budget(total, weights) == expected


@pytest.mark.parametrize(
    ("weights", "tokens", "rounds", "expected"),
    [
        # 400 and 200 tokens, rounds of 100 and 200: a runs out first; the ratio is the tokens'
        ({"a": None, "b": None}, None, {"a": 100, "b": 200}, {"a": 100, "b": 50}),
        ({"a": None, "b": None}, 90, {"a": 100, "b": 200}, {"a": 60, "b": 30}),
        ({"a": 1.0, "b": 1.0}, None, {"a": 100, "b": 200}, {"a": 100, "b": 100}),
        ({"a": 1.0, "b": 3.0}, None, {"a": None, "b": 300}, {"a": 100, "b": 300}),
    ],
)
def test_budgets_where_a_round_differs_from_the_available_tokens(
    weights: dict, tokens: int | None, rounds: dict, expected: dict
) -> None:
    assert token_budgets(weights, {"a": 400, "b": 200}, tokens, rounds) == expected


def test_too_many_repeats_are_refused_with_the_ways_out() -> None:
    refuse_repeats("a", 4, 3.2, 4)
    message = (
        r"^data\.max_epochs is 4; .* of a one would be taken 5 times "
        r"\(4\.20 epochs of all its tokens\); add documents, "
    )
    with pytest.raises(DataError, match=message):
        refuse_repeats("a", 5, 4.2, 4)
