"""The reader, held against a reading of the pieces one token at a time."""

import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ropewalk.conf.manifest import Manifest, publish
from ropewalk.data import dataset, plan, store
from ropewalk.data.dataset import Row, Sequences, join, lay

sys.path.insert(0, str(Path(__file__).parent))
from pieces import Piece, packed_of  # noqa: E402

PIECES = st.lists(st.lists(st.integers(0, 999), min_size=1, max_size=12), min_size=1, max_size=6)


def row_of(pieces: list[list[int]], padding: int, *, mask: bool = True, restart: bool = True) -> Row:
    seq_len = sum(map(len, pieces)) + padding
    return lay([np.array(p) for p in pieces], seq_len, document_mask=mask, restart=restart)


@settings(deadline=None)
@given(PIECES, st.integers(0, 5))
def test_tokens_lie_end_to_end_then_padding(pieces: list[list[int]], padding: int) -> None:
    row = row_of(pieces, padding)
    assert row.input_ids.tolist() == sum(pieces, []) + [0] * padding
    assert {a.dtype for a in (row.input_ids, row.labels, row.position_ids)} == {np.dtype(np.int64)}


@settings(deadline=None)
@given(PIECES, st.integers(0, 5), st.booleans(), st.booleans())
def test_labels_are_the_next_token_of_the_piece(
    pieces: list[list[int]], padding: int, mask: bool, restart: bool
) -> None:
    wanted = [label for piece in pieces for label in [*piece[1:], -100]] + [-100] * padding
    assert row_of(pieces, padding, mask=mask, restart=restart).labels.tolist() == wanted


@settings(deadline=None)
@given(PIECES, st.integers(0, 5))
def test_positions_restart_at_each_piece(pieces: list[list[int]], padding: int) -> None:
    wanted = [i for piece in pieces for i in range(len(piece))] + list(range(padding))
    assert row_of(pieces, padding).position_ids.tolist() == wanted


@settings(deadline=None)
@given(PIECES, st.integers(0, 5))
def test_positions_may_go_on(pieces: list[list[int]], padding: int) -> None:
    row = row_of(pieces, padding, restart=False)
    assert row.position_ids.tolist() == list(range(len(row.input_ids)))


@settings(deadline=None)
@given(PIECES, st.integers(0, 5))
def test_borders_stand_between_documents_and_padding(pieces: list[list[int]], padding: int) -> None:
    row = row_of(pieces, padding)
    assert np.diff(row.cu_seqlens).tolist() == [len(p) for p in pieces] + ([padding] if padding else [])
    assert (row.cu_seqlens[0], row.cu_seqlens[-1], row.cu_seqlens.dtype) == (0, len(row.input_ids), np.int32)


def test_without_a_document_mask_the_sequence_is_one() -> None:
    row = row_of([[1, 2], [3, 4, 5]], 2, mask=False)
    assert row.cu_seqlens.tolist() == [0, 7]


@settings(deadline=None)
@given(st.lists(PIECES, min_size=1, max_size=4))
def test_join_keeps_every_sequence_apart(rows: list[list[list[int]]]) -> None:
    laid = [row_of(pieces, 2) for pieces in rows]
    joined = join(laid)
    for name in ("input_ids", "labels", "position_ids"):
        assert getattr(joined, name).tolist() == [v for r in laid for v in getattr(r, name).tolist()]
    assert np.diff(joined.cu_seqlens).tolist() == [n for r in laid for n in np.diff(r.cu_seqlens).tolist()]
    assert joined.cu_seqlens.dtype == np.int32


def finish(folder: Path, facts: dict) -> Path:
    made = Manifest.of("test", {})
    made.facts = facts
    done = folder.with_name(folder.name + ".done")
    publish(folder, done, made)
    return done


def stored(folder: Path, documents: list[np.ndarray]) -> Path:
    folder.mkdir()
    return finish(folder, store.write_ids(folder, documents, 70_000))


@pytest.fixture
def sequences(tmp_path: Path) -> Sequences:
    """Two stores of three documents; token t of document d is 1000 d + t."""
    documents = [1000 * d + np.arange(20 + d) for d in range(6)]
    stores = [stored(tmp_path / "one", documents[:3]), stored(tmp_path / "two", documents[3:])]
    (tmp_path / "plan").mkdir()
    rows = [[Piece(4, 3, 6), Piece(0, 0, 4)], [Piece(2, 21, 1)], [Piece(5, 0, 10)], [Piece(3, 22, 1), Piece(2, 0, 2)]]
    plan.write(tmp_path / "plan", packed_of(rows))
    return Sequences(finish(tmp_path / "plan", {"seq_len": 10, "document_mask": True, "positions": "restart"}), stores)


def test_sequence_reads_its_pieces_from_the_right_stores(sequences: Sequences) -> None:
    assert len(sequences) == 4
    assert sequences[0].input_ids.tolist() == [4003, 4004, 4005, 4006, 4007, 4008, 0, 1, 2, 3]
    assert sequences[1].input_ids.tolist() == [2021] + [0] * 9
    assert sequences[2].input_ids.tolist() == list(range(5000, 5010))
    assert sequences[3].input_ids.tolist() == [3022, 2000, 2001] + [0] * 7
    assert sequences[3].cu_seqlens.tolist() == [0, 1, 3, 10]


def test_marks_stand_around_a_document_and_not_around_a_piece(tmp_path: Path) -> None:
    """Documents of 6, 3 and 2 tokens, the first in two pieces; begin is 60001, end 60002."""
    stores = [stored(tmp_path / "one", [10 * d + np.arange(n) for d, n in ((1, 6), (2, 3), (3, 2))])]
    (tmp_path / "plan").mkdir()
    plan.write(tmp_path / "plan", packed_of([[Piece(1, 0, 5), Piece(0, 0, 4)], [Piece(0, 4, 4), Piece(2, 0, 4)]]))
    facts = {"seq_len": 10, "document_mask": True, "positions": "restart", "begin": 60001, "end": 60002}
    found = Sequences(finish(tmp_path / "plan", facts), stores)
    assert found[0].input_ids.tolist() == [60001, 20, 21, 22, 60002, 60001, 10, 11, 12, 0]
    assert found[0].labels.tolist() == [20, 21, 22, 60002, -100, 10, 11, 12, -100, -100]
    assert found[0].position_ids.tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 3, 0]
    assert found[0].cu_seqlens.tolist() == [0, 5, 9, 10]
    assert found[1].input_ids.tolist() == [13, 14, 15, 60002, 60001, 30, 31, 60002, 0, 0]
    assert found[1].labels.tolist() == [14, 15, 60002, -100, 30, 31, 60002, -100, -100, -100]
    assert [found.labels(n) for n in (0, 1)] == [7, 6]


@pytest.mark.parametrize("number", range(4))
def test_count_of_labels_is_what_the_row_holds(sequences: Sequences, number: int) -> None:
    assert sequences.labels(number) == int((sequences[number].labels != -100).sum())


def heldout_store(lengths: list[int], held: list[bool]) -> store.Store:
    offset = np.cumsum([0, *lengths[:-1]])
    ids = [str(i) for i in range(len(lengths))]
    tokens = np.concatenate([1000 * i + np.arange(n) for i, n in enumerate(lengths)])
    keys = np.arange(len(ids), dtype=np.uint64)
    return store.Store(tokens, offset, np.array(lengths), np.array(held), keys, ids, {}, "")


def test_windows_come_from_long_held_out_documents_only() -> None:
    opened = heldout_store([100, 30, 55, 80], [True, True, False, True])
    found = dataset.heldout_windows(opened, 40, 10, 2)
    assert Counter(w.document for w in found) == {"0": 2, "3": 2}
    for window in found:
        start = int(window.ids[0]) - 1000 * int(window.document)
        assert window.ids.tolist() == list(range(int(window.ids[0]), int(window.ids[0]) + 40))
        assert 0 <= start <= [100, 30, 55, 80][int(window.document)] - 40


def test_windows_of_a_document_do_not_overlap() -> None:
    found = dataset.heldout_windows(heldout_store([103], [True]), 25, 10, 4)
    tokens = [t for w in found for t in w.ids.tolist()]
    assert len(found) == 4 and len(set(tokens)) == 100


def test_few_windows_are_spread_over_documents_first() -> None:
    found = dataset.heldout_windows(heldout_store([100] * 4, [True] * 4), 20, 4, 3)
    assert [w.document for w in found] == ["0", "1", "2", "3"]


def test_heldout_text_is_all_of_it_and_nothing_else() -> None:
    opened = heldout_store([3, 2, 2], [True, False, True])
    assert dataset.heldout_text(opened).tolist() == [0, 1, 2, 2000, 2001]
    assert len(dataset.heldout_text(heldout_store([3], [False]))) == 0
