"""Rows laid from pieces, held against a reading of the pieces one token at a time."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ropewalk.data.loading.collate import Row, collate, concatenate

PIECES = st.lists(st.lists(st.integers(0, 999), min_size=1, max_size=12), min_size=1, max_size=6)


def row_of(
    pieces: list[list[int]], padding: int, *, mask: bool = True, restart: bool = True
) -> Row:
    seq_len = sum(map(len, pieces)) + padding
    return concatenate(
        [np.array(p) for p in pieces], seq_len, document_mask=mask, restart_positions=restart
    )


@given(PIECES, st.integers(0, 5))
def test_tokens_lie_end_to_end_then_padding(pieces: list[list[int]], padding: int) -> None:
    row = row_of(pieces, padding)
    assert row.input_ids.tolist() == sum(pieces, []) + [0] * padding
    assert {a.dtype for a in (row.input_ids, row.labels, row.position_ids)} == {np.dtype(np.int64)}


@given(PIECES, st.integers(0, 5), st.booleans(), st.booleans())
def test_labels_are_the_next_token_of_the_piece(
    pieces: list[list[int]], padding: int, mask: bool, restart: bool
) -> None:
    expected = [label for piece in pieces for label in [*piece[1:], -100]] + [-100] * padding
    assert row_of(pieces, padding, mask=mask, restart=restart).labels.tolist() == expected


@given(PIECES, st.integers(0, 5))
def test_positions_restart_at_each_piece(pieces: list[list[int]], padding: int) -> None:
    expected = [i for piece in pieces for i in range(len(piece))] + list(range(padding))
    assert row_of(pieces, padding).position_ids.tolist() == expected


@given(PIECES, st.integers(0, 5))
def test_positions_may_go_on(pieces: list[list[int]], padding: int) -> None:
    row = row_of(pieces, padding, restart=False)
    assert row.position_ids.tolist() == list(range(len(row.input_ids)))


@given(PIECES, st.integers(0, 5))
def test_borders_stand_between_documents_and_padding(pieces: list[list[int]], padding: int) -> None:
    row = row_of(pieces, padding)
    assert np.diff(row.cu_seqlens).tolist() == [len(p) for p in pieces] + (
        [padding] if padding else []
    )
    assert (row.cu_seqlens[0], row.cu_seqlens[-1], row.cu_seqlens.dtype) == (
        0,
        len(row.input_ids),
        np.int32,
    )


def test_without_a_document_mask_the_sequence_is_one() -> None:
    row = row_of([[1, 2], [3, 4, 5]], 2, mask=False)
    assert row.cu_seqlens.tolist() == [0, 7]


@given(st.lists(PIECES, min_size=1, max_size=4))
def test_join_keeps_every_sequence_apart(rows: list[list[list[int]]]) -> None:
    laid = [row_of(pieces, 2) for pieces in rows]
    joined = collate(laid)
    for name in ("input_ids", "labels", "position_ids"):
        assert getattr(joined, name).tolist() == [
            v for r in laid for v in getattr(r, name).tolist()
        ]
    assert np.diff(joined.cu_seqlens).tolist() == [
        n for r in laid for n in np.diff(r.cu_seqlens).tolist()
    ]
    assert joined.cu_seqlens.dtype == np.int32


def test_pieces_that_do_not_fit_are_no_row() -> None:
    with pytest.raises(AssertionError, match="pieces of 5 tokens do not fit into 4"):
        concatenate([np.arange(2), np.arange(3)], 4)


def test_nothing_but_padding() -> None:
    row = concatenate([], 3)
    assert (row.input_ids.tolist(), row.labels.tolist(), row.cu_seqlens.tolist()) == (
        [0] * 3,
        [-100] * 3,
        [0, 3],
    )
