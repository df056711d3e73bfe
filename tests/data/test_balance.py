"""The deal by attention work: counted by brute force, and the idle shares that were measured before there was such code."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ropewalk.data import balance

# Llama-8B, 8 groups: measured idle shares of random order and of batches sorted in 16, 32, 64 and 512 sequences
MEASURED = {131_072: (0.395, 0.28, 0.16, 0.075, 0.01), 32_768: (0.19, 0.09, 0.04, 0.02, 0.003)}
BATCHES = (16, 32, 64, 512)


def synthetic(documents: int) -> np.ndarray:
    """Lengths: lognormal of median 1,000, sigma 1.3; one in a hundred of median 30,000, sigma 1.1; at most 500,000."""
    rng = np.random.default_rng(0)
    short, long = rng.lognormal(np.log(1000), 1.3, documents), rng.lognormal(np.log(30_000), 1.1, documents)
    return np.clip(np.where(rng.random(documents) < 0.01, long, short), 1, 500_000).astype(np.int64)


def works_of(sizes: np.ndarray, seq_len: int) -> np.ndarray:
    """Documents end to end, cut at every border, the sequences shuffled."""
    ends = np.cumsum(sizes)
    cuts = np.unique(np.concatenate([[0], ends, np.arange(seq_len, ends[-1], seq_len)]))
    squares = np.bincount(cuts[:-1] // seq_len, weights=np.diff(cuts).astype(float) ** 2)
    return np.random.default_rng(1).permutation(squares[:-1].astype(np.int64))


@pytest.mark.parametrize("seq_len", MEASURED)
def test_predicted_idle_shares_are_the_measured_ones(seq_len: int) -> None:
    works = works_of(synthetic(200_000), seq_len)
    found = [balance.idle_share(works, 64, 8, seq_len, balanced=False)]
    found += [balance.idle_share(works, batch, 8, seq_len, balanced=True) for batch in BATCHES]
    assert found == pytest.approx(MEASURED[seq_len], abs=0.03)
    told = balance.idle_facts(works, 64, 8, seq_len)
    assert (told["in_order"], told["balanced"]) == (round(found[0], 4), round(found[3], 4))


def test_idle_share_by_hand() -> None:
    """Two groups, no cost but squares: rounds (9, 1) and (1, 9) wait 8 of 10 each; dealt (9, 9) and (1, 1) nobody waits."""
    works = np.array([9, 1, 1, 9]) * 10**12
    assert balance.idle_share(works, 4, 2, 0, balanced=False) == pytest.approx(1 - 10 / 18)
    assert balance.idle_share(works, 4, 2, 0, balanced=True) == 0
    assert balance.idle_share(works, 8, 2, 0, balanced=True) == 0


def test_facts_of_a_plan_shorter_than_a_batch_and_of_none() -> None:
    told = balance.idle_facts(np.array([9, 1]), 3, 2, 0)
    assert (told["batch"], told["in_order"], told["spread"]) == (4, pytest.approx(1 - 5 / 9, abs=1e-4), 0.8)
    assert balance.idle_facts(np.array([], int), 3, 2, 8)["in_order"] == 0.0


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(1, 50), max_size=6), min_size=1, max_size=6), st.integers(0, 9))
def test_work_is_the_sum_of_squared_documents_padding_among_them(rows: list[list[int]], more: int) -> None:
    seq_len = max(map(sum, rows)) + more
    lengths, offsets = np.array(sum(rows, []), np.int32), np.cumsum([0, *map(len, rows)])
    wanted = [sum(n * n for n in row) + (seq_len - sum(row)) ** 2 for row in rows]
    assert balance.work(lengths, offsets, seq_len).tolist() == wanted
    assert balance.work(lengths, offsets, seq_len, document_mask=False).tolist() == [seq_len**2] * len(rows)


@settings(deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.data())
def test_deal_gives_each_place_once_and_rounds_of_neighbours(groups: int, rounds: int, data: st.DataObject) -> None:
    works = data.draw(st.lists(st.integers(0, 99), min_size=groups * rounds, max_size=groups * rounds))
    dealt = balance.deal(works, groups)
    assert dealt.shape == (groups, rounds) and sorted(dealt.ravel().tolist()) == list(range(len(works)))
    each = [[works[place] for place in dealt[:, k]] for k in range(rounds)]
    assert all(min(before) >= max(after) for before, after in pairwise(each))


def test_no_group_has_the_most_in_every_round() -> None:
    assert balance.deal([8, 7, 6, 5, 4, 3, 2, 1], 2).tolist() == [[0, 3, 4, 7], [1, 2, 5, 6]]
    assert balance.in_turn(6, 2).tolist() == [[0, 2, 4], [1, 3, 5]]
