"""Which sequences a step and a rank read: each once an epoch, the same from any step on; a rank's
slices.
"""

from collections import Counter
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plans import RankPosition, written

from ropewalk.data.loading.collate import Row, collate
from ropewalk.data.loading.loader import BatchLoader, SequenceRef, global_batch, local_batch
from ropewalk.data.loading.packed import PackedSequences


def numbers_of_step(step: int, *, seed: int, count: int, batch: int) -> list[int]:
    return [ref.number for ref in global_batch(step * batch, batch, seed=seed, count=count)]


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 100), st.integers(0, 3), st.integers(1, 3))
def test_steps_cover_each_sequence_once_an_epoch(
    count: int, batch: int, seed: int, epochs: int
) -> None:
    steps = -(-count * epochs // batch)
    seen = [
        ref
        for step in range(steps)
        for ref in global_batch(step * batch, batch, seed=seed, count=count)
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
    loader = BatchLoader(
        Numbers(count),  # type: ignore[arg-type]
        RankPosition(dp_size=dp_size),
        seed=3,
        micro_batch_size=2,
        batch_ramp=[(0, 1), *ramp],
        start=start,
    )
    steps = (firsts[-1] if firsts else 0) + 3
    sizes = [1] * steps
    for first, size in ramp:
        sizes[first:] = [size] * (steps - first)
    assert [loader.num_micro_batches(step) for step in range(steps)] == sizes
    seen = [ref for step in range(steps) for ref in loader.global_batch(step)]
    assert len(seen) == 2 * dp_size * sum(sizes)
    assert seen == global_batch(0, start + len(seen), seed=3, count=count)[start:]
    assert loader.global_batch(steps - 1) == seen[-2 * dp_size * sizes[-1] :]


@settings(deadline=None)
@given(st.integers(1, 30), st.integers(1, 5), st.integers(1, 4), st.booleans(), st.integers(0, 5))
def test_ranks_share_out_the_batch_whatever_the_deal(
    count: int, dp_size: int, rounds: int, balanced: bool, step: int
) -> None:
    refs = global_batch(step * dp_size * rounds, dp_size * rounds, seed=0, count=count)
    work = (lambda number: number % 7) if balanced else None
    parts = [local_batch(refs, rank, dp_size, work) for rank in range(dp_size)]
    assert {len(part) for part in parts} == {rounds}
    assert Counter(ref for part in parts for ref in part) == Counter(refs)


def test_equal_work_is_dealt_by_number() -> None:
    refs = [SequenceRef(n, 0) for n in (3, 0, 2, 1)]
    assert [local_batch(refs, r, 2, lambda _: 5) for r in (0, 1)] == [
        [(0, 0), (3, 0)],
        [(1, 0), (2, 0)],
    ]


def loader_of(
    sequences: PackedSequences, mesh: RankPosition, micro_batch_size: int, accumulated: int
) -> BatchLoader:
    ramp = [(0, accumulated)]
    return BatchLoader(sequences, mesh, seed=0, micro_batch_size=micro_batch_size, batch_ramp=ramp)


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
        loader = loader_of(sequences, RankPosition(dp_rank=rank, dp_size=2), 2, 3)
        rows = list(loader.micro_batches([4]))
        assert len(rows) == 3 and {len(row.input_ids) for row in rows} == {24}
        seen += [tuple(ids.tolist()) for row in rows for ids in np.split(row.input_ids, 2)]
        assert loader.num_labels(4) == sum(
            int((sequences[number].labels >= 0).sum()) for number in loader.sequence_ids(4)
        )
    assert Counter(seen) == Counter(
        tuple(sequences[number].input_ids.tolist()) for number in loader.sequence_ids(4)
    )


@pytest.mark.parametrize("micro", [1, 2, 3])
@pytest.mark.parametrize("sp_size", [2, 3, 4])
def test_slices_of_a_micro_batch_are_those_of_the_whole_line(
    sequences: PackedSequences, micro: int, sp_size: int
) -> None:
    rows = list(loader_of(sequences, RankPosition(), micro, 2).micro_batches([0, 1]))
    meshes = [RankPosition(sp_rank=rank, sp_size=sp_size) for rank in range(sp_size)]
    parts = [list(loader_of(sequences, m, micro, 2).micro_batches([0, 1])) for m in meshes]
    for row, slices in zip(rows, zip(*parts, strict=True), strict=True):
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
    full_row = next(loader_of(sequences, RankPosition(), micro, 1).micro_batches([0]))
    meshes = [RankPosition(sp_rank=rank, sp_size=sp_size) for rank in range(sp_size)]
    loaders = [loader_of(sequences, mesh, micro, 1) for mesh in meshes]
    slices = [next(loader.micro_batches([0])) for loader in loaders]
    padding = {"input_ids": [0] * more, "labels": [-100] * more, "position_ids": list(range(more))}
    for name, added in padding.items():
        assert (
            np.concatenate([getattr(s, name) for s in slices]).tolist()
            == getattr(full_row, name).tolist() + added
        )
    assert {len(s.input_ids) for s in slices} == {(12 * micro + more) // sp_size}
    borders = [*full_row.cu_seqlens.tolist(), 12 * micro + more]
    assert all(s.cu_seqlens.tolist() == borders for s in slices)
    sources = [loader.token_sources(loader.local_micro_batches(0)[0]) for loader in loaders]
    assert {len(indices) for indices in sources} == {(12 * micro + more) // sp_size}


def test_a_loader_that_starts_later_goes_on_as_one_from_the_first_step(
    sequences: PackedSequences,
) -> None:
    """Resume needs the number of the step and nothing else."""
    loader = loader_of(sequences, RankPosition(), 1, 5)
    rows, later_rows = loader.micro_batches(range(8)), loader.micro_batches(range(3, 8))
    assert [row.input_ids.tolist() for row in islice(rows, 15, None)] == [
        row.input_ids.tolist() for row in later_rows
    ]


def test_a_joined_row_of_slices_keeps_the_borders_of_whole_sequences(
    sequences: PackedSequences,
) -> None:
    halves = [sequences.read(n, 0, 0, 6) for n in (0, 1)]
    joined = collate(halves)
    assert isinstance(joined, Row) and joined.cu_seqlens.tolist() == [0, 1, 12, 14, 24]


def test_the_tokens_of_a_rank_are_named_by_sequence_and_padding_by_none() -> None:
    """Two sequences of 10 over three ranks: 7 tokens each, so one of padding at the end."""
    sequences: Any = SimpleNamespace(seq_len=10)
    refs, spans = [SequenceRef(5, 1), SequenceRef(8, 2)], {}
    for rank in range(3):
        mesh: Any = SimpleNamespace(sp_rank=rank, sp_size=3)
        loader = BatchLoader(sequences, mesh, 0, 2, ((0, 1),))
        spans[rank] = [tuple(span) for span in loader.token_spans(refs)]
    assert spans == {
        0: [(5, 1, 0, 7), (8, 2, 0, 0), (-1, 0, 0, 0)],
        1: [(5, 1, 7, 10), (8, 2, 0, 4), (-1, 0, 0, 0)],
        2: [(5, 1, 10, 10), (8, 2, 4, 10), (-1, 0, 0, 1)],
    }
