"""Best fit against a search of every bin, concat against slices of all tokens, and single."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pieces import Piece, pack

from ropewalk.data.packing.packers import PACKERS, best_fit, best_fit_bins, concat, parts, single

SIZES = st.integers(1, 300).flatmap(
    lambda room: st.tuples(st.lists(st.integers(1, room), max_size=60), st.just(room))
)
ROOMS = st.integers(2, 100)


def slow_best_fit(sizes: list[int], room: int) -> list[int]:
    """Tokens in each bin, looking at every bin for every item."""
    bins: list[int] = []
    for size in sorted(sizes, reverse=True):
        fits = [(room - filled, i) for i, filled in enumerate(bins) if filled + size <= room]
        if fits:
            bins[min(fits)[1]] += size
        else:
            bins.append(size)
    return bins


@settings(max_examples=300, deadline=None)
@given(SIZES)
def test_best_fit_fills_bins_as_the_slow_search(case: tuple[list[int], int]) -> None:
    sizes, room = case
    bins = best_fit_bins(np.array(sizes, dtype=np.int64), room)
    filled = np.bincount(bins, weights=sizes).astype(int).tolist()
    assert sorted(filled) == sorted(slow_best_fit(sizes, room))


@settings(max_examples=200, deadline=None)
@given(SIZES)
def test_each_item_goes_to_the_fullest_bin_that_fits(case: tuple[list[int], int]) -> None:
    sizes, room = case
    bins = best_fit_bins(np.array(sizes, dtype=np.int64), room).tolist()
    left: dict[int, int] = {}
    for item in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        fits = [r for r in left.values() if r >= sizes[item]]
        assert left.get(bins[item], room) == min(fits, default=room)
        assert fits or bins[item] not in left
        left[bins[item]] = left.get(bins[item], room) - sizes[item]
    assert sorted(left) == list(range(len(left)))


@settings(max_examples=200, deadline=None)
@given(SIZES)
def test_no_two_bins_of_best_fit_could_be_joined(case: tuple[list[int], int]) -> None:
    sizes, room = case
    filled = np.bincount(best_fit_bins(np.array(sizes, dtype=np.int64), room), weights=sizes)
    assert all(a + b > room for i, a in enumerate(filled) for b in filled[:i])


def test_best_fit_of_long_bins_equals_the_slow_search() -> None:
    """Rooms in many words of the bit table, more than the property tests reach."""
    rng = random.Random(0)
    sizes = [min(int(rng.lognormvariate(7, 1.5)) + 1, 131_072) for _ in range(1500)]
    filled = np.bincount(best_fit_bins(np.array(sizes), 131_072), weights=sizes)
    assert sorted(filled.astype(int).tolist()) == sorted(slow_best_fit(sizes, 131_072))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 120), max_size=30), ROOMS, st.randoms(use_true_random=False))
def test_the_fill_of_best_fit_does_not_depend_on_document_order(
    lengths: list[int], room: int, rng: random.Random
) -> None:
    shuffled = list(lengths)
    rng.shuffle(shuffled)
    fills = [
        sorted(sum(p.length for p in row) for row in pack(best_fit, documents, room, 1))
        for documents in (lengths, shuffled)
    ]
    assert fills[0] == fills[1]


def test_sequences_of_best_fit_are_shuffled() -> None:
    rng = random.Random(0)
    lengths = [min(int(rng.lognormvariate(5, 1.2)) + 1, 4096) for _ in range(20_000)]
    rows = pack(best_fit, lengths, 4096, 8)
    longest = [max(p.length for p in row) for row in rows]
    assert len(rows) > 500
    assert abs(np.corrcoef(np.arange(len(rows)), longest)[0, 1]) < 0.1
    begins_with_longest = [
        row[0].length == max(p.length for p in row) for row in rows if len(row) > 3
    ]
    assert len(begins_with_longest) > 100
    assert np.mean(begins_with_longest) < 0.5


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 120), max_size=30), ROOMS)
def test_concat_is_slices_of_all_documents_end_to_end(lengths: list[int], room: int) -> None:
    tokens = [(d, t) for d, length in enumerate(lengths) for t in range(length)]
    rows = [
        [(p.document, t) for p in row for t in range(p.start, p.start + p.length)]
        for row in pack(concat, lengths, room, 1)
    ]
    assert rows == [tokens[start : start + room] for start in range(0, len(tokens), room)]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 120), max_size=30), ROOMS)
def test_concat_cuts_a_document_only_where_a_sequence_ends(lengths: list[int], room: int) -> None:
    rows = pack(concat, lengths, room, 1)
    ends = {sum(lengths[: i + 1]) for i in range(len(lengths))}
    ends |= set(range(room, sum(lengths), room))
    assert np.cumsum([p.length for row in rows for p in row]).astype(int).tolist() == sorted(ends)


def test_single_gives_each_document_its_own_sequence() -> None:
    assert pack(single, [7, 20, 25], 10, 2) == [
        [Piece(0, 0, 7)],
        [Piece(1, 0, 10)],
        [Piece(1, 10, 10)],
        [Piece(2, 0, 10)],
        [Piece(2, 10, 10)],
        [Piece(2, 20, 5)],
    ]


@st.composite
def documents(draw: st.DrawFn) -> tuple[list[int], list[int], int]:
    """Lengths, the limit of a part of each, and a `min_piece` that all of them can meet."""
    limits = draw(st.lists(st.integers(1, 100), min_size=1, max_size=8))
    return [draw(st.integers(1, 500)) for _ in limits], limits, draw(st.integers(1, min(limits)))


@settings(max_examples=300, deadline=None)
@given(documents())
def test_all_parts_before_the_last_cut_are_as_long_as_the_limit(
    case: tuple[list[int], list[int], int],
) -> None:
    lengths, limits, min_piece = case
    columns = parts(np.array(lengths), np.array(limits), min_piece)
    all_parts = list(zip(*(column.tolist() for column in columns), strict=True))
    assert [part[0] for part in all_parts] == sorted(part[0] for part in all_parts)
    for document, (length, limit) in enumerate(zip(lengths, limits, strict=True)):
        spans = [(start, size) for number, start, size in all_parts if number == document]
        sizes = [size for _, size in spans]
        tokens = [t for start, size in spans for t in range(start, start + size)]
        assert tokens == list(range(length))
        assert len(sizes) == -(-length // limit)
        assert all(size == limit for size in sizes[:-2]) and max(sizes) <= limit
        assert sizes[-1] >= min(min_piece, length)
        if length % limit == 0 or length % limit >= min_piece:
            assert all(size == limit for size in sizes[:-1])


@pytest.mark.parametrize("name", PACKERS)
def test_no_documents_give_no_sequences(name: str) -> None:
    assert pack(PACKERS[name], [], 100, 10) == []
