"""Length limits, repeats by length, and a source's buckets, counted document by document."""

import math
from fractions import Fraction
from math import floor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plans import take

from ropewalk.conf.data_mixture import Range, rules
from ropewalk.conf.errors import DataError
from ropewalk.data import hash_random
from ropewalk.data.mixing import supply
from ropewalk.data.mixing.supply import BucketedSource, refuse_empty

KEYS = np.array([hash_random.document_key(f"{d}.txt") for d in range(60)], dtype=np.uint64)
OLMO3 = {"<8K": 0.66, ">=8K": 0.34}
SMALL = {"<10": 0.5, "10-30": 0.2, ">=30": 0.3}  # for lengths below 50
AT_BORDERS = st.sampled_from([(1 << n) + step for n in range(10, 22, 2) for step in (-1, 0, 1)])
SIZES = st.lists(st.one_of(st.integers(1, 3_000_000), AT_BORDERS), min_size=1, max_size=30)


def test_rates_of_fu_by_hand() -> None:
    """Documents below 4K are in one round of ten, documents above 8K twice in a round."""
    lengths = np.array([1, 4095, 4096, 8192, 8193, 500_000])
    rates = supply.rates(lengths, rules({">8K": 2.0, "<4K": 0.1}))
    assert rates.tolist() == [0.1, 0.1, 1, 1, 2, 2]  # type: ignore[union-attr]
    assert supply.rates(np.array([5]), []) == 1.0


@given(SIZES, st.integers(1, 3_000_000), st.integers(1, 3_000_000))
def test_shorter_and_longer_training_documents_are_outside(
    sizes: list[int], low: int, high: int
) -> None:
    low, high = sorted((low, high))
    train = np.array([size % 3 > 0 for size in sizes])
    expected = [
        t and (size < low or size > high) for t, size in zip(train.tolist(), sizes, strict=True)
    ]
    if train.any() and sum(expected) == train.sum():
        message = r"^data\.sources\.a\.m(in|ax)_len is \d+; a source must keep a document, and all"
        with pytest.raises(DataError, match=message):
            supply.outside("a", np.array(sizes), train, Range(low, high + 1))
    else:
        outside = supply.outside("a", np.array(sizes), train, Range(low, high + 1))
        assert outside.tolist() == expected


def test_the_error_names_the_limit_that_excludes_all_documents() -> None:
    sizes, train = np.array([10, 20, 500]), np.array([True, True, False])
    message = (
        r"^data\.sources\.a\.min_len is 30; .* all 2 training .* \(they have 10 to 20 tokens\)"
    )
    with pytest.raises(DataError, match=message):
        supply.outside("a", sizes, train, Range(30, math.inf))
    with pytest.raises(DataError, match=r"^data\.sources\.a\.max_len is 9; "):
        supply.outside("a", sizes, train, Range(1, 10))


def bucketed(
    sizes: list[int], buckets: dict[str, float], rates: float = 1.0, seed: int = 0, name: str = "a"
) -> BucketedSource:
    lengths, usable = np.array(sizes), np.ones(len(sizes), bool)
    return BucketedSource.from_documents(
        name, lengths, lengths, usable, KEYS[: len(sizes)], seed, rates, rules(buckets)
    )


def bucket(size: int) -> str:
    if size < 10:
        return "<10"
    return "10-30" if size < 30 else ">=30"


@settings(deadline=None)
@given(
    st.lists(st.integers(1, 49), min_size=1, max_size=30), st.integers(1, 3000), st.integers(0, 3)
)
def test_each_bucket_gives_its_share_to_the_token(sizes: list[int], budget: int, seed: int) -> None:
    """The share of an empty bucket goes to the others, in proportion to their shares."""
    selection = take(bucketed(sizes, SMALL, seed=seed), budget)
    assert selection.tokens == budget
    filled = set(map(bucket, sizes))
    shares = {text: Fraction(str(share)) for text, share in SMALL.items() if text in filled}
    tokens = dict.fromkeys(shares, 0)
    takings = list(zip(selection.index.tolist(), selection.lengths.tolist(), strict=True))
    for index, length in takings:
        assert 0 < length <= sizes[index]
        tokens[bucket(sizes[index])] += length
    for text, share in shares.items():
        assert tokens[text] - floor(budget * share / sum(shares.values())) in (0, 1)
    assert sum(length < sizes[index] for index, length in takings) <= len(shares)


def test_two_thirds_short_and_a_third_long_by_hand() -> None:
    source = bucketed([1000] * 40 + [10_000] * 10, OLMO3)
    selection = take(source, 100_000)
    assert int(selection.lengths[selection.index < 40].sum()) == 66_000
    assert source.ledger_entry(100_000) == {
        "buckets": {
            "<8K": {"asked": 66_000, "taken": 66_000},
            ">=8K": {"asked": 34_000, "taken": 34_000},
        }
    }
    assert selection.repeats == 2


def test_a_round_keeps_the_ratio_and_ends_with_the_first_bucket_to_run_out() -> None:
    assert bucketed([1000] * 40 + [10_000] * 10, OLMO3).round_tokens() == floor(40_000 / 0.66)
    assert bucketed([1000] * 40 + [10_000] * 2, OLMO3).round_tokens() == floor(20_000 / 0.34)
    assert bucketed([1000] * 40 + [10_000] * 10, {}).round_tokens() == 140_000
    assert bucketed([1000] * 40, OLMO3).round_tokens() == 40_000


def test_the_other_buckets_fill_an_empty_one_and_the_ledger_reports_it() -> None:
    source = bucketed([5] * 30 + [40] * 10, SMALL)
    assert source.ledger_entry(400)["buckets"] == {
        "<10": {"asked": 200, "taken": 250},
        "10-30": {"asked": 80, "taken": 0},
        ">=30": {"asked": 120, "taken": 150},
    }
    assert take(source, 400).tokens == 400


def test_documents_of_rate_0_do_not_fill_a_bucket() -> None:
    source = bucketed([1000, 10_000], OLMO3, rates=np.array([1.0, 0.0]))  # type: ignore[arg-type]
    assert source.filled_shares == {"<8K": 0.66}
    assert set(take(source, 5000).index.tolist()) == {0}


def test_without_buckets_a_budget_is_met() -> None:
    source = bucketed([7] * 20, {})
    assert (take(source).tokens, take(source, 100).tokens) == (140, 100)
    assert source.ledger_entry(100) == {}


def test_a_source_without_a_document_in_any_bucket_with_a_share_is_refused() -> None:
    message = r"^data\.buckets asks for >=8K alone; .* and a has none; give another bucket a share"
    with pytest.raises(DataError, match=message):
        take(bucketed([1000] * 5, {"<8K": 0, ">=8K": 1}), 100)


def test_a_bucket_without_a_document_in_any_source_is_refused() -> None:
    short, long = bucketed([1000], OLMO3), bucketed([9000], OLMO3, name="b")
    refuse_empty({"a": short, "b": long})
    message = (
        r"^data\.buckets >=8K is 0\.34; a bucket must hold a training document, and no source has"
    )
    with pytest.raises(DataError, match=message):
        refuse_empty({"a": short})


def test_the_draw_in_a_bucket_does_not_depend_on_other_buckets() -> None:
    sizes = [5] * 30 + [40] * 10
    buckets = {"<10": 0.5, ">=10": 0.5}
    selections = [take(bucketed(n, buckets), 100) for n in (sizes, sizes[:35])]
    short = [[i for i in selection.index.tolist() if i < 30] for selection in selections]
    assert short[0] == short[1] and len(short[0]) == 10
