"""Attention work and waiting, against loops and against the research's synthetic corpus."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ropewalk.data import work
from ropewalk.data.dataset import lay
from ropewalk.data.tally import Pieces


def pieces_of(rows: list[list[int]]) -> Pieces:
    """Pieces by their lengths alone."""
    flat = np.array([n for row in rows for n in row], dtype=np.int64)
    return Pieces(np.arange(len(flat)), np.zeros_like(flat), flat, np.cumsum([0, *map(len, rows)]))


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(1, 8), min_size=1, max_size=8), min_size=1, max_size=5), st.booleans())
def test_work_is_the_squares_of_the_readers_borders(rows: list[list[int]], mask: bool) -> None:
    laid = [lay([np.ones(n) for n in row], 64, document_mask=mask) for row in rows]
    wanted = [sum(int(n) ** 2 for n in np.diff(row.cu_seqlens)) for row in laid]
    assert work.of_sequences(pieces_of(rows), 64, mask).tolist() == wanted


def test_spread_by_hand() -> None:
    told = work.spread(np.array([100.0, 50.0, 30.0]), 10)
    assert (told["mean"], told["share_of_full"], told["most_over_mean"]) == (60, 0.6, pytest.approx(100 / 60, abs=1e-6))
    assert told["variation"] == pytest.approx((((40**2 + 10**2 + 30**2) / 3) ** 0.5) / 60, abs=1e-6)
    assert {k for k, n in told["sequences"].items() if n} == {"20-30%", "40-50%", "90-100%"}
    assert work.spread(np.empty(0), 10) == {}


def waiting(cost: list[float], groups: int, batch: int, balanced: bool) -> float:
    """From the definition: whole batches, a sequence a group and micro-step, all wait for the slowest."""
    busy = there = 0.0
    for at in range(0, len(cost) - batch + 1, batch):
        mine = cost[at : at + batch]
        mine = sorted(mine) if balanced else mine
        for step in range(0, batch, groups):
            busy += sum(mine[step : step + groups])
            there += groups * max(mine[step : step + groups])
    return 1 - busy / there


@settings(deadline=None)
@given(st.lists(st.floats(0, 1e10), min_size=8, max_size=40), st.sampled_from([(2, 4), (4, 8), (2, 2)]), st.booleans())
def test_idle_is_what_waits_for_the_slowest(sums: list[float], shape: tuple[int, int], balanced: bool) -> None:
    groups, batch = shape
    cost = [16e9 * 1000 + 262144 * s for s in sums]
    got = work.idle(np.array(sums), 1000, groups, batch, balanced)
    assert got == pytest.approx(waiting(cost, groups, batch, balanced), abs=1e-9)


def test_idle_of_long_packed_text_is_as_it_was_measured() -> None:
    """Random order 38 to 41% of a step of 8 groups at 131,072, balanced in batches of 64 about 7%: lengths as there, packed by
    next fit, which the figures hardly depend on."""
    rng = np.random.default_rng(0)
    count, seq_len = 200_000, 131_072
    lengths = np.where(
        rng.random(count) < 0.01, rng.lognormal(np.log(30_000), 1.1, count), rng.lognormal(np.log(1000), 1.3, count)
    )
    rows: list[list[int]] = [[]]
    for length in np.clip(lengths, 1, 500_000).astype(int).tolist():
        for part in [seq_len] * (length // seq_len) + [length % seq_len]:
            if sum(rows[-1]) + part > seq_len:
                rows.append([])
            rows[-1] += [part] * (part > 0)
    told = work.predicted_idle(work.of_sequences(pieces_of(rows), seq_len, True), seq_len)
    assert (told["dp_size"], told["batch"]) == (8, 64)
    assert 0.34 < told["in_order"] < 0.45 and 0.05 < told["balanced"] < 0.11


def test_a_plan_smaller_than_the_groups_predicts_nothing() -> None:
    assert work.predicted_idle(np.ones(7), 10) == {}
    assert work.predicted_idle(np.ones(20), 10)["batch"] == 16
