"""The packer, held to its promises by counting tokens one by one."""

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ropewalk.data.pack import Piece, window_fill

SEQ_LENS = st.integers(2, 200)


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[tuple[int, int]], int, int]:
    """`(document, length)` in a shuffled order, a sequence length, and a piece that any document can keep to."""
    seq_len = draw(SEQ_LENS)
    lengths = draw(st.lists(st.integers(1, 3 * seq_len), max_size=60))
    numbers = draw(st.permutations(range(len(lengths))))
    return list(zip(numbers, lengths, strict=True)), seq_len, draw(st.integers(1, max(1, seq_len // 2)))


def pack(case: tuple[list[tuple[int, int]], int, int]) -> list[list[Piece]]:
    return list(window_fill(*case))


@settings(max_examples=200, deadline=None)
@given(cases())
def test_each_token_stands_once_and_in_document_order(case: tuple[list[tuple[int, int]], int, int]) -> None:
    seen: dict[int, list[int]] = {document: [] for document, _ in case[0]}
    for row in pack(case):
        for piece in row:
            seen[piece.document] += range(piece.start, piece.start + piece.length)
    assert seen == {document: list(range(length)) for document, length in case[0]}


@settings(max_examples=200, deadline=None)
@given(cases())
def test_no_sequence_is_too_long_or_empty(case: tuple[list[tuple[int, int]], int, int]) -> None:
    sums = [sum(p.length for p in row) for row in pack(case)]
    assert all(0 < total <= case[1] for total in sums)


@settings(max_examples=200, deadline=None)
@given(cases())
def test_no_piece_is_shorter_than_asked(case: tuple[list[tuple[int, int]], int, int]) -> None:
    whole = dict(case[0])
    for row in pack(case):
        for piece in row:
            assert piece.length >= min(case[2], whole[piece.document])


@settings(max_examples=100, deadline=None)
@given(cases())
def test_same_input_gives_the_same_sequences(case: tuple[list[tuple[int, int]], int, int]) -> None:
    assert pack(case) == pack(case)


@settings(max_examples=100, deadline=None)
@given(st.integers(2, 50), st.lists(st.integers(1, 150), max_size=30), st.integers(1, 50))
def test_a_piece_longer_than_can_be_loses_no_token(seq_len: int, lengths: list[int], least: int) -> None:
    rows = list(window_fill(list(enumerate(lengths)), seq_len, min(least, seq_len)))
    assert sum(p.length for row in rows for p in row) == sum(lengths)
    assert all(sum(p.length for p in row) <= seq_len for row in rows)


@settings(max_examples=100, deadline=None)
@given(cases())
def test_what_fills_a_sequence_alone_is_never_cut(case: tuple[list[tuple[int, int]], int, int]) -> None:
    documents, seq_len, least = case
    exact = {document for document, length in documents if length == seq_len}
    pieces = [p for row in window_fill(documents, seq_len, least) for p in row if p.document in exact]
    assert Counter((p.document, p.start, p.length) for p in pieces) == Counter((d, 0, seq_len) for d in exact)


@settings(max_examples=100, deadline=None)
@given(cases(), st.data())
def test_what_must_stay_whole_is_never_cut(case: tuple[list[tuple[int, int]], int, int], data: st.DataObject) -> None:
    documents, seq_len, least = case
    short = [document for document, length in documents if length <= seq_len]
    whole = data.draw(st.sets(st.sampled_from(short))) if short else set()
    rows = list(window_fill(documents, seq_len, least, whole))
    pieces = [(p.document, p.start, p.length) for row in rows for p in row if p.document in whole]
    assert sorted(pieces) == sorted((d, 0, length) for d, length in documents if d in whole)
    assert sum(p.length for row in rows for p in row) == sum(length for _, length in documents)


@pytest.mark.parametrize("seed", range(3))
def test_a_cut_document_is_not_shredded(seed: int) -> None:
    """Its rest waits for its turn, and is not cut again for each small gap that comes by."""
    rng = random.Random(seed)
    lengths = [rng.randint(300, 1000) for _ in range(500)]
    rows = list(window_fill(list(enumerate(lengths)), 1024, 8))
    small = sum(p.length <= 16 for row in rows for p in row)
    assert small == 0


def test_a_gap_beside_whole_sequences_is_padded_not_filled_by_cutting_one() -> None:
    rows = list(window_fill([(0, 30), (1, 64), (2, 64)], 64, 8))
    assert sorted(rows, key=lambda row: row[0].document) == [
        [Piece(n, 0, length)] for n, length in enumerate((30, 64, 64))
    ]


@pytest.mark.parametrize("seed", range(3))
def test_short_documents_stay_whole_while_small_ones_come(seed: int) -> None:
    rng = random.Random(seed)
    lengths = [rng.randint(1, 400) for _ in range(5000)]
    rows = list(window_fill(list(enumerate(lengths)), 4096, 32))
    while_full = [p for row in rows[: len(rows) // 2] for p in row]  # the window still finds small ones
    assert len(while_full) > 1000
    assert all(p.length == lengths[p.document] for p in while_full)


def test_only_the_needed_documents_are_cut() -> None:
    rng = random.Random(5)
    lengths = [min(int(rng.lognormvariate(6.0, 1.0)) + 1, 8192) for _ in range(4000)]
    rows = list(window_fill(list(enumerate(lengths)), 8192, 32))
    cut = sum(len(row) for row in rows) - len(lengths)
    assert cut <= len(rows) // 50


@pytest.mark.parametrize("seed", range(2))
def test_20_000_lognormal_documents_at_32k_are_999_per_mille_full(seed: int) -> None:
    rng = random.Random(seed)
    lengths = [max(1, int(rng.lognormvariate(7.5, 1.4))) for _ in range(20_000)]
    rows = list(window_fill(list(enumerate(lengths)), 32_768, 32))
    assert sum(p.length for row in rows for p in row) == sum(lengths)
    assert sum(lengths) / (len(rows) * 32_768) >= 0.999


def test_a_long_document_is_cut_only_at_sequence_length() -> None:
    assert list(window_fill([(7, 250)], 100, 10)) == [[Piece(7, 0, 100)], [Piece(7, 100, 100)], [Piece(7, 200, 50)]]


def test_the_last_cut_moves_to_leave_a_piece_that_is_long_enough() -> None:
    assert list(window_fill([(7, 103)], 100, 10)) == [[Piece(7, 0, 93)], [Piece(7, 93, 10)]]


def test_no_documents_give_no_sequences() -> None:
    assert list(window_fill([], 100, 10)) == []
