"""Attention work, its deal and the waiting: by brute force, by the borders that the loader gives,
and as measured before this code existed.
"""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ropewalk.data.ledger import balance
from ropewalk.data.loading.collate import concatenate
from ropewalk.data.loading.loader import deal, round_robin
from ropewalk.data.loading.packed import attention_work

# Llama-8B, 8 groups: idle shares of random order, then of batches of 16, 32, 64 and 512 sequences,
# sorted
MEASURED = {131_072: (0.395, 0.28, 0.16, 0.075, 0.01), 32_768: (0.19, 0.09, 0.04, 0.02, 0.003)}
BATCHES = (16, 32, 64, 512)


def synthetic(documents: int) -> np.ndarray:
    """Lognormal lengths of median 1,000, sigma 1.3; 1 in 100 of median 30,000, sigma 1.1."""
    rng = np.random.default_rng(0)
    short, long = (
        rng.lognormal(np.log(1000), 1.3, documents),
        rng.lognormal(np.log(30_000), 1.1, documents),
    )
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
    shares = [balance.idle_share(works, seq_len, 8, 64, False)]
    shares += [balance.idle_share(works, seq_len, 8, batch, True) for batch in BATCHES]
    assert shares == pytest.approx(MEASURED[seq_len], abs=0.03)
    assert balance.predicted_idle(works, seq_len) == {
        "dp_size": 8,
        "batch": 64,
        "in_order": round(shares[0], 6),
        "balanced": round(shares[3], 6),
    }


def test_idle_share_by_hand() -> None:
    """Two groups pay for squares alone: in rounds (9, 1) and (1, 9) one group waits for 8 of 9;
    dealt as (9, 9) and (1, 1) none.
    """
    works = np.array([9, 1, 1, 9]) * 10**12
    assert balance.idle_share(works, 0, 2, 4, False) == pytest.approx(1 - 10 / 18)
    assert balance.idle_share(works, 0, 2, 4, True) == 0
    assert balance.idle_share(works, 0, 2, 8, True) == 0


def waiting(cost: list[float], groups: int, batch: int, balanced: bool) -> float:
    """By definition: full batches, a sequence a group in each round, all wait for the slowest."""
    busy = total = 0.0
    for first in range(0, len(cost) - batch + 1, batch):
        costs = cost[first : first + batch]
        costs = sorted(costs) if balanced else costs
        for start in range(0, batch, groups):
            busy += sum(costs[start : start + groups])
            total += groups * max(costs[start : start + groups])
    return 1 - busy / total


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 10**10), min_size=8, max_size=40),
    st.sampled_from([(2, 4), (4, 8), (2, 2)]),
    st.booleans(),
)
def test_idle_share_is_the_time_spent_waiting_for_the_slowest(
    sums: list[int], shape: tuple[int, int], balanced: bool
) -> None:
    groups, batch = shape
    cost = [16e9 * 1000 + 262144 * s for s in sums]
    share = balance.idle_share(np.array(sums), 1000, groups, batch, balanced)
    assert share == pytest.approx(waiting(cost, groups, batch, balanced), abs=1e-9)


def test_a_plan_smaller_than_the_groups_predicts_nothing() -> None:
    assert balance.predicted_idle(np.ones(7, int), 10) == {}
    assert balance.predicted_idle(np.ones(20, int), 10)["batch"] == 16


@settings(deadline=None)
@given(
    st.lists(st.lists(st.integers(1, 50), max_size=6), min_size=1, max_size=6),
    st.integers(0, 9),
    st.booleans(),
)
def test_work_is_the_sum_of_squares_between_the_loaders_borders(
    rows: list[list[int]], more: int, mask: bool
) -> None:
    """Padding is a separate document under the mask, and part of the sequence without it."""
    seq_len = max(1, max(map(sum, rows)) + more)
    lengths, offsets = np.array(sum(rows, []), np.int32), np.cumsum([0, *map(len, rows)])
    joined = [concatenate([np.ones(n) for n in row], seq_len, document_mask=mask) for row in rows]
    expected = [sum(int(n) ** 2 for n in np.diff(row.cu_seqlens)) for row in joined]
    assert attention_work(lengths, offsets, seq_len, mask).tolist() == expected


def test_work_by_hand() -> None:
    """Pieces of 3 and 2 in a sequence of 6, and one of 6."""
    works = [
        attention_work(np.array([3, 2, 6]), np.array([0, 2, 3]), 6, mask).tolist()
        for mask in (True, False)
    ]
    assert works == [[9 + 4 + 1, 36], [36, 36]]


def test_work_statistics_by_hand() -> None:
    statistics = balance.work_statistics(np.array([100.0, 50.0, 30.0]), 10)
    assert (statistics["mean"], statistics["share_of_full"], statistics["most_over_mean"]) == (
        60,
        0.6,
        pytest.approx(100 / 60, abs=1e-6),
    )
    assert statistics["variation"] == pytest.approx(
        (((40**2 + 10**2 + 30**2) / 3) ** 0.5) / 60, abs=1e-6
    )
    assert {k for k, n in statistics["sequences"].items() if n} == {"20-30%", "40-50%", "90-100%"}
    assert balance.work_statistics(np.empty(0), 10) == {}


@settings(deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.data())
def test_deal_gives_each_index_once_and_rounds_of_neighbours(
    groups: int, rounds: int, data: st.DataObject
) -> None:
    works = data.draw(
        st.lists(st.integers(0, 99), min_size=groups * rounds, max_size=groups * rounds)
    )
    dealt = deal(works, groups)
    assert dealt.shape == (groups, rounds) and sorted(dealt.ravel().tolist()) == list(
        range(len(works))
    )
    by_round = [[works[index] for index in dealt[:, k]] for k in range(rounds)]
    assert all(min(heavier) >= max(lighter) for heavier, lighter in pairwise(by_round))


def test_no_group_has_the_most_in_every_round() -> None:
    assert deal([8, 7, 6, 5, 4, 3, 2, 1], 2).tolist() == [[0, 3, 4, 7], [1, 2, 5, 6]]
    assert round_robin(6, 2).tolist() == [[0, 2, 4], [1, 3, 5]]
