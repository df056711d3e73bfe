"""A source's tokens by buckets of length: the ratio to the token, and what fills a bucket without documents."""

from fractions import Fraction
from math import floor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ropewalk.conf.data_mixture import rules
from ropewalk.conf.errors import DataError
from ropewalk.data import hash_random
from ropewalk.data.mixing.supply import BucketedSource, refuse_empty

KEYS = np.array([hash_random.document_key(f"{d}.txt") for d in range(60)], dtype=np.uint64)
OLMO3 = {"<8K": 0.66, ">=8K": 0.34}
SMALL = {"<10": 0.5, "10-30": 0.2, ">=30": 0.3}  # for lengths below 50


def supply(
    sizes: list[int], buckets: dict[str, float], rates: float = 1.0, seed: int = 0, name: str = "a"
) -> BucketedSource:
    lengths, usable = np.array(sizes), np.ones(len(sizes), bool)
    return BucketedSource.of(
        name, lengths, lengths, usable, KEYS[: len(sizes)], seed, rates, rules(buckets)
    )


def bucket(size: int) -> str:
    return "<10" if size < 10 else "10-30" if size < 30 else ">=30"


@settings(deadline=None)
@given(
    st.lists(st.integers(1, 49), min_size=1, max_size=30), st.integers(1, 3000), st.integers(0, 3)
)
def test_each_bucket_gives_its_share_to_the_token(sizes: list[int], budget: int, seed: int) -> None:
    """Counted document by document; a bucket that has none gives its share to the others, by theirs."""
    share = supply(sizes, SMALL, seed=seed).take(budget)
    assert share.tokens == budget
    there = {
        text: Fraction(str(weight)) for text, weight in SMALL.items() if text in map(bucket, sizes)
    }
    taken = dict.fromkeys(there, 0)
    for index, tokens in zip(share.index.tolist(), share.lengths.tolist(), strict=True):
        assert 0 < tokens <= sizes[index]
        taken[bucket(sizes[index])] += tokens
    for text, weight in there.items():
        assert taken[text] - floor(budget * weight / sum(there.values())) in (0, 1)
    cut = sum(
        n < sizes[i] for i, n in zip(share.index.tolist(), share.lengths.tolist(), strict=True)
    )
    assert cut <= len(there)


def test_two_thirds_short_and_a_third_long_by_hand() -> None:
    given = supply([1000] * 40 + [10_000] * 10, OLMO3)
    share = given.take(100_000)
    assert int(share.lengths[share.index < 40].sum()) == 66_000
    assert given.ledger_entry(100_000) == {
        "buckets": {
            "<8K": {"asked": 66_000, "taken": 66_000},
            ">=8K": {"asked": 34_000, "taken": 34_000},
        }
    }
    assert (share.repeats, round(share.epochs, 6)) == (2, round(100 / 140, 6))


def test_a_round_keeps_the_ratio_and_ends_with_the_first_bucket_to_run_out() -> None:
    assert supply([1000] * 40 + [10_000] * 10, OLMO3).round_tokens() == floor(40_000 / 0.66)
    assert supply([1000] * 40 + [10_000] * 2, OLMO3).round_tokens() == floor(20_000 / 0.34)
    assert supply([1000] * 40 + [10_000] * 10, {}).round_tokens() == 140_000
    assert supply([1000] * 40, OLMO3).round_tokens() == 40_000


def test_a_bucket_without_documents_is_filled_by_the_others_and_told() -> None:
    given = supply([5] * 30 + [40] * 10, SMALL)
    told = given.ledger_entry(400)["buckets"]
    assert told == {
        "<10": {"asked": 200, "taken": 250},
        "10-30": {"asked": 80, "taken": 0},
        ">=30": {"asked": 120, "taken": 150},
    }
    assert given.take(400).tokens == 400


def test_documents_of_weight_nothing_fill_no_bucket() -> None:
    sizes = [1000, 10_000]
    given = supply(sizes, OLMO3, rates=np.array([1.0, 0.0]))  # type: ignore[arg-type]
    assert given.filled_shares == {"<8K": 0.66}
    assert set(given.take(5000).index.tolist()) == {0}


def test_without_buckets_a_budget_is_met_as_without_ranges() -> None:
    given = supply([7] * 20, {})
    assert (given.take(None).tokens, given.take(100).tokens, given.ledger_entry(100)) == (
        140,
        100,
        {},
    )


def test_source_that_has_only_what_is_not_asked_for_is_refused() -> None:
    with pytest.raises(
        DataError,
        match=r"^data\.buckets asks for >=8K alone; .* and a has none; give another bucket a share",
    ):
        supply([1000] * 5, {"<8K": 0, ">=8K": 1}).take(100)


def test_bucket_in_which_no_source_has_a_document_is_refused() -> None:
    short, long = supply([1000], OLMO3), supply([9000], OLMO3, name="b")
    refuse_empty({"a": short, "b": long})
    with pytest.raises(
        DataError,
        match=r"^data\.buckets >=8K is 0\.34; a bucket must hold a training document, and no source has",
    ):
        refuse_empty({"a": short})


def test_documents_are_drawn_bucket_by_bucket_as_they_are_without_the_others() -> None:
    """Another bucket's documents move nothing."""
    sizes = [5] * 30 + [40] * 10
    one = supply(sizes, {"<10": 0.5, ">=10": 0.5}).take(100)
    two = supply(sizes[:35], {"<10": 0.5, ">=10": 0.5}).take(100)
    short = [[i for i in share.index.tolist() if i < 30] for share in (one, two)]
    assert short[0] == short[1] and len(short[0]) == 10
