"""Skipped positions against the paper's rules, and against its authors' construction, rewritten."""

import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ropewalk.data.loading.pose import Pose


def positions(pose: Pose, number: int, epoch: int, lengths: list[int]) -> list[list[int]]:
    """The position of every token of each context, one token at a time."""
    starts = np.cumsum([0, *lengths[:-1]])
    runs, shifts = pose.runs(number, epoch, starts, np.array(lengths))
    result = []
    for start, length in zip(starts.tolist(), lengths, strict=True):
        indices = range(start, start + length)
        run_of = [max(i for i in range(len(runs)) if runs[i] <= index) for index in indices]
        result.append([index + int(shifts[i]) for index, i in zip(indices, run_of, strict=True)])
    return result


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=6),
    st.integers(2, 5),
    st.integers(40, 500),
    st.integers(0, 2**40),
    st.integers(0, 3),
    st.integers(0, 3),
)
def test_positions_rise_from_0_below_the_target_and_keep_the_distances_inside_chunks(
    lengths: list[int], chunks: int, target: int, number: int, epoch: int, seed: int
) -> None:
    for rising, length in zip(
        positions(Pose(target, chunks, seed), number, epoch, lengths), lengths, strict=True
    ):
        steps = np.diff(rising)
        assert len(rising) == length and rising[0] == 0 and rising[-1] < target
        assert (steps >= 1).all() and (steps > 1).sum() <= chunks - 1


@pytest.mark.parametrize("chunks", [2, 3])
def test_a_draw_depends_on_seed_sequence_and_epoch_and_on_nothing_else(chunks: int) -> None:
    lengths = [30, 40]
    first = positions(Pose(5000, chunks, 7), 3, 1, lengths)
    assert first == positions(Pose(5000, chunks, 7), 3, 1, lengths)
    others = [(8, 3, 1), (7, 4, 1), (7, 3, 2)]
    assert all(
        positions(Pose(5000, chunks, seed), n, epoch, lengths) != first for seed, n, epoch in others
    )
    assert first[0][1:] != first[1][1 : len(first[0])]


def authors(rng: random.Random, length: int, target: int, chunks: int) -> list[int]:
    """The paper's rule u_i ~ U(u_(i-1) .. T - L); the first of two chunks has, as in its code,
    1 .. (L + 1) // 2 tokens.
    """
    cuts, cut = [], 0
    for left in range(chunks, 1, -1):
        cut += rng.randint(1, (length - cut + 1) // left)
        cuts.append(cut)
    result, skip = [], 0
    for index in range(length):
        for _ in range(cuts.count(index)):
            skip = rng.randint(skip, target - length)
        result.append(index + skip)
    return result


def distances(rows: list[list[int]]) -> np.ndarray:
    """How often each distance between two tokens occurs, per row."""
    counts: Counter[int] = Counter()
    for row in rows:
        counts.update(b - a for i, a in enumerate(row) for b in row[i + 1 :])
    return np.array([counts[d] for d in range(max(counts) + 1)]) / len(rows)


@pytest.mark.parametrize("chunks", [2, 3])
def test_distances_are_spread_as_in_the_authors_construction_and_reach_all_of_the_target(
    chunks: int,
) -> None:
    length, target, draws = 12, 40, 6000
    rng, pose = random.Random(0), Pose(target, chunks, 0)
    ours = [row for n in range(draws // 6) for row in positions(pose, n, 0, [length] * 6)]
    actual = distances(ours)
    expected = distances([authors(rng, length, target, chunks) for _ in range(draws)])
    assert len(actual) == target and (actual[1:] > 0).all()
    assert np.abs(actual - expected).max() < 0.04 * expected[1:].max()
    assert actual[1:].sum() == pytest.approx(66)


def test_skips_and_cuts_are_even() -> None:
    """Two chunks: 6 lengths of the first, 29 skips, equally often (chi squared below 5 sigma)."""
    lengths, skips = Counter[int](), Counter[int]()
    for row in (row for n in range(3000) for row in positions(Pose(40, 2, 1), n, 0, [12, 12])):
        jump = int(np.argmax(np.diff(row))) + 1 if row[-1] > 11 else 0
        skips[row[-1] - 11] += 1
        if jump:
            lengths[jump] += 1
    for counts, kinds in ((lengths, 6), (skips, 29)):
        assert len(counts) == kinds
        even = sum(counts.values()) / kinds
        chi = sum((c - even) ** 2 / even for c in counts.values())
        assert chi < kinds - 1 + 5 * (2 * (kinds - 1)) ** 0.5


def test_a_chunk_takes_at_most_its_even_share_of_the_rest() -> None:
    """By hand, 8 tokens in 3 chunks: the first has 1 to (8 + 1) // 3 of them, so 7, 6 or 5 remain,
    of which the second has 1 to 4, 1 to 3 or 1 to 3.
    """
    starts, lengths, pose = np.array([0]), np.array([8]), Pose(40, 3, 0)
    sizes = {tuple(np.diff(pose.runs(n, 0, starts, lengths)[0]).tolist()) for n in range(600)}
    expected = {1: 4, 2: 3, 3: 3}
    assert sizes == {(a, b) for a, limit in expected.items() for b in range(1, limit + 1)}
