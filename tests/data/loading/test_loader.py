"""Which sequences a step and a rank read: each once an epoch, the same from any step on, and a rank's slices of the whole."""

from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plans import written

from ropewalk.data.loading.collate import Row, collate
from ropewalk.data.loading.loader import BatchLoader, SequenceRef, global_batch, local_batch
from ropewalk.data.loading.packed import PackedSequences


def numbers_of_step(step: int, *, seed: int, count: int, batch: int) -> list[int]:
    return [turn.number for turn in global_batch(step, seed=seed, count=count, batch=batch)]


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 100), st.integers(0, 3), st.integers(1, 3))
def test_steps_cover_each_sequence_once_an_epoch(
    count: int, batch: int, seed: int, epochs: int
) -> None:
    steps = -(-count * epochs // batch)
    seen = [
        t for step in range(steps) for t in global_batch(step, seed=seed, count=count, batch=batch)
    ]
    assert len(seen) == steps * batch
    for epoch in range(epochs):
        part = seen[epoch * count : (epoch + 1) * count]
        assert sorted(part) == [SequenceRef(number, epoch) for number in range(count)]


def test_order_differs_by_epoch_and_seed_and_needs_no_history() -> None:
    first = numbers_of_step(0, seed=0, count=50, batch=50)
    assert first != numbers_of_step(1, seed=0, count=50, batch=50)
    assert first != numbers_of_step(0, seed=1, count=50, batch=50)
    assert first == numbers_of_step(0, seed=0, count=50, batch=50)


def test_batch_size_only_cuts_the_same_order_elsewhere() -> None:
    by_three = [n for step in range(8) for n in numbers_of_step(step, seed=3, count=10, batch=3)]
    by_four = [n for step in range(6) for n in numbers_of_step(step, seed=3, count=10, batch=4)]
    assert by_three == by_four


class Numbers:
    """A plan of which only the number of sequences matters."""

    seq_len = 8

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count


@settings(deadline=None)
@given(
    st.integers(1, 20),
    st.lists(st.tuples(st.integers(1, 6), st.integers(1, 4)), max_size=4),
    st.integers(1, 3),
    st.integers(0, 30),
)
def test_a_ramp_cuts_the_same_order_elsewhere_and_needs_no_history(
    count: int, spans: list[tuple[int, int]], dp_size: int, start: int
) -> None:
    firsts = np.cumsum([span for span, _ in spans]).tolist()
    ramp = [(first, size) for first, (_, size) in zip(firsts, spans, strict=True)]
    feed = BatchLoader(Numbers(count), 3, 2, 1, dp_size=dp_size, ramp=ramp, start=start)  # type: ignore[arg-type]
    steps = (firsts[-1] if firsts else 0) + 3
    sizes = [1] * steps
    for first, size in ramp:
        sizes[first:] = [size] * (steps - first)
    assert [feed.accumulated_at(step) for step in range(steps)] == sizes
    seen = [turn for step in range(steps) for turn in feed.turns(step)]
    assert len(seen) == 2 * dp_size * sum(sizes)
    assert seen == global_batch(0, seed=3, count=count, batch=start + len(seen))[start:]
    assert feed.turns(steps - 1) == seen[-2 * dp_size * sizes[-1] :]


@settings(deadline=None)
@given(st.integers(1, 30), st.integers(1, 5), st.integers(1, 4), st.booleans(), st.integers(0, 5))
def test_ranks_share_out_the_batch_whatever_the_deal(
    count: int, dp_size: int, rounds: int, balanced: bool, step: int
) -> None:
    turns = global_batch(step, seed=0, count=count, batch=dp_size * rounds)
    work = (lambda number: number % 7) if balanced else None
    parts = [local_batch(turns, rank, dp_size, work) for rank in range(dp_size)]
    assert {len(part) for part in parts} == {rounds}
    assert Counter(t for part in parts for t in part) == Counter(turns)


def test_equal_work_is_dealt_by_number() -> None:
    turns = [SequenceRef(n, 0) for n in (3, 0, 2, 1)]
    assert [local_batch(turns, r, 2, lambda _: 5) for r in (0, 1)] == [
        [(0, 0), (3, 0)],
        [(1, 0), (2, 0)],
    ]


@pytest.fixture
def sequences(tmp_path: Path) -> PackedSequences:
    """Six sequences of 12 tokens."""
    rows = [[(d, 0, 1 + d), (d + 1, 0, 11 - d)] for d in range(6)]
    return written(
        tmp_path, [1000 * d + np.arange(20) for d in range(7)], rows, seq_len=12
    ).sequences()


def test_micro_batches_are_the_ranks_sequences_end_to_end(sequences: PackedSequences) -> None:
    seen = []
    for rank in range(2):
        feed = BatchLoader(sequences, seed=0, micro=2, accumulated=3, dp_rank=rank, dp_size=2)
        rows = list(feed.micro_batches([4]))
        assert len(rows) == 3 and {len(row.input_ids) for row in rows} == {24}
        seen += [tuple(row.input_ids[at : at + 12].tolist()) for row in rows for at in (0, 12)]
        assert feed.labels(4) == sum(
            int((sequences[t.number].labels >= 0).sum()) for t in feed.turns(4)
        )
    assert Counter(seen) == Counter(
        tuple(sequences[t.number].input_ids.tolist()) for t in feed.turns(4)
    )


@pytest.mark.parametrize("micro", [1, 2, 3])
@pytest.mark.parametrize("sp_size", [2, 3, 4])
def test_slices_of_a_micro_batch_are_those_of_the_whole_line(
    sequences: PackedSequences, micro: int, sp_size: int
) -> None:
    words = {"seed": 0, "micro": micro, "accumulated": 2}
    whole = list(BatchLoader(sequences, **words).micro_batches([0, 1]))
    parts = [
        list(BatchLoader(sequences, **words, sp_rank=r, sp_size=sp_size).micro_batches([0, 1]))
        for r in range(sp_size)
    ]
    for row, slices in zip(whole, zip(*parts, strict=True), strict=True):
        for name in ("input_ids", "labels", "position_ids"):
            assert (
                np.concatenate([getattr(s, name) for s in slices]).tolist()
                == getattr(row, name).tolist()
            )
        assert {len(s.input_ids) for s in slices} == {12 * micro // sp_size}
        assert all(s.cu_seqlens.tolist() == row.cu_seqlens.tolist() for s in slices)


@pytest.mark.parametrize(
    ("micro", "sp_size", "more"), [(1, 5, 3), (2, 5, 1), (3, 7, 6), (1, 24, 12)]
)
def test_a_line_that_does_not_divide_ends_in_padding_of_its_own(
    sequences: PackedSequences, micro: int, sp_size: int, more: int
) -> None:
    """The last slices may be of padding alone."""
    words = {"seed": 0, "micro": micro, "accumulated": 1}
    whole = next(BatchLoader(sequences, **words).micro_batches([0]))
    feeds = [BatchLoader(sequences, **words, sp_rank=r, sp_size=sp_size) for r in range(sp_size)]
    slices = [next(feed.micro_batches([0])) for feed in feeds]
    padding = {"input_ids": [0] * more, "labels": [-100] * more, "position_ids": list(range(more))}
    for name, added in padding.items():
        assert (
            np.concatenate([getattr(s, name) for s in slices]).tolist()
            == getattr(whole, name).tolist() + added
        )
    assert {len(s.input_ids) for s in slices} == {(12 * micro + more) // sp_size}
    borders = [*whole.cu_seqlens.tolist(), 12 * micro + more]
    assert all(s.cu_seqlens.tolist() == borders for s in slices)
    assert {len(feed.sources_of(feed.mine(0)[0])) for feed in feeds} == {
        (12 * micro + more) // sp_size
    }


def test_a_feed_that_starts_later_goes_on_as_the_whole_one(sequences: PackedSequences) -> None:
    """Resume needs the number of the step and nothing else."""
    feed = BatchLoader(sequences, seed=2, micro=1, accumulated=5)
    whole, later = feed.micro_batches(range(8)), feed.micro_batches(range(3, 8))
    assert [r.input_ids.tolist() for r in islice(whole, 15, None)] == [
        r.input_ids.tolist() for r in later
    ]


def test_a_joined_row_of_slices_keeps_the_borders_of_whole_sequences(
    sequences: PackedSequences,
) -> None:
    halves = [sequences.read(n, 0, 0, 6) for n in (0, 1)]
    joined = collate(halves)
    assert isinstance(joined, Row) and joined.cu_seqlens.tolist() == [0, 1, 12, 14, 24]
