"""The window-fill packer, by counting tokens, and against a search of all waiting documents."""

import random
from collections import Counter
from collections.abc import Collection, Iterator
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pieces import Piece, pack, rows_of

from ropewalk.data.packing import window as window_module
from ropewalk.data.packing import window_fill as window_fill_module
from ropewalk.data.packing.window_fill import window_fill

Case = tuple[list[int], int, int]
SEQ_LENS = st.integers(2, 200)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Document lengths, a sequence length, and a `min_piece` that every document can meet."""
    seq_len = draw(SEQ_LENS)
    lengths = draw(st.lists(st.integers(1, 3 * seq_len), max_size=60))
    return lengths, seq_len, draw(st.integers(1, max(1, seq_len // 2)))


def fill(
    lengths: list[int], seq_len: int, min_piece: int, intact: Collection[int] = ()
) -> list[list[Piece]]:
    return pack(window_fill, lengths, seq_len, min_piece, intact)


class SlowWindowFill:
    """Searches all waiting documents for each piece.

    `waiting` has entries `(arrival, document, start, rest)`, the oldest first.
    """

    def __init__(self, case: Case, intact: set[int], window: int) -> None:
        lengths, self.seq_len, self.min_piece = case
        self.incoming = [(document, 0, length) for document, length in enumerate(lengths)]
        self.intact = intact
        self.window = window
        self.waiting: list[tuple[int, int, int, int]] = []
        self.arrivals = 0

    def arrive(self, index: int, document: int, start: int, rest: int) -> None:
        self.arrivals += 1
        self.waiting.insert(index, (self.arrivals, document, start, rest))

    def next(self, room: int) -> tuple[int, int, int, int] | None:
        fits = [w for w in self.waiting if w[3] <= room]
        if fits or room < self.min_piece:
            return max(fits, key=lambda w: (w[3], w[0]), default=None)
        cuttable = [w for w in self.waiting if w[3] != self.seq_len and w[1] not in self.intact]
        longest = max(cuttable, key=lambda w: (w[3], w[0]), default=None)
        if longest and (longest[3] > self.seq_len or room > self.seq_len // 64):
            return longest
        return None

    def sequence(self) -> list[Piece]:
        row: list[Piece] = []
        room, entry = self.seq_len, self.waiting[0] if self.waiting else None
        while entry and room:
            _, document, start, rest = entry
            take = rest if rest <= room else min(room, rest - self.min_piece)
            if take < rest and take < self.min_piece and row:
                break
            take = max(take, 1)
            self.waiting.remove(entry)
            if take < rest:
                self.arrive(len(self.waiting) if row else 0, document, start + take, rest - take)
            row.append(Piece(document, start, take))
            room -= take
            entry = self.next(room)
        return row

    def rows(self) -> Iterator[list[Piece]]:
        while True:
            while self.incoming and len(self.waiting) < self.window:
                self.arrive(len(self.waiting), *self.incoming.pop(0))
            if not (row := self.sequence()):
                return
            yield row


@settings(max_examples=300, deadline=None)
@given(cases(), st.integers(1, 20), st.sets(st.integers(0, 60)))
def test_window_fill_equals_the_slow_search(case: Case, window: int, intact: set[int]) -> None:
    with patch.object(window_module, "WINDOW", window):
        assert fill(*case, intact) == list(SlowWindowFill(case, intact, window).rows())


@settings(max_examples=200, deadline=None)
@given(cases())
def test_each_token_occurs_once_and_in_document_order(case: Case) -> None:
    seen: dict[int, list[int]] = {document: [] for document in range(len(case[0]))}
    for row in fill(*case):
        for piece in row:
            seen[piece.document] += range(piece.start, piece.start + piece.length)
    assert seen == {document: list(range(length)) for document, length in enumerate(case[0])}


@settings(max_examples=200, deadline=None)
@given(cases())
def test_no_sequence_is_too_long_or_empty(case: Case) -> None:
    sums = [sum(p.length for p in row) for row in fill(*case)]
    assert all(0 < total <= case[1] for total in sums)


@settings(max_examples=200, deadline=None)
@given(cases())
def test_no_piece_is_shorter_than_min_piece(case: Case) -> None:
    for row in fill(*case):
        for piece in row:
            assert piece.length >= min(case[2], case[0][piece.document])


@settings(max_examples=100, deadline=None)
@given(cases())
def test_same_input_gives_the_same_sequences(case: Case) -> None:
    assert fill(*case) == fill(*case)


@settings(max_examples=100, deadline=None)
@given(st.integers(2, 50), st.lists(st.integers(1, 150), max_size=30), st.integers(1, 50))
def test_a_min_piece_that_cannot_be_met_loses_no_token(
    seq_len: int, lengths: list[int], min_piece: int
) -> None:
    rows = fill(lengths, seq_len, min(min_piece, seq_len))
    assert sum(p.length for row in rows for p in row) == sum(lengths)
    assert all(sum(p.length for p in row) <= seq_len for row in rows)


@settings(max_examples=100, deadline=None)
@given(cases())
def test_a_document_of_sequence_length_is_never_cut(case: Case) -> None:
    lengths, seq_len, min_piece = case
    exact = {document for document, length in enumerate(lengths) if length == seq_len}
    pieces = [p for row in fill(lengths, seq_len, min_piece) for p in row if p.document in exact]
    assert Counter((p.document, p.start, p.length) for p in pieces) == Counter(
        (d, 0, seq_len) for d in exact
    )


@settings(max_examples=100, deadline=None)
@given(cases(), st.data())
def test_documents_to_keep_intact_are_never_cut(case: Case, data: st.DataObject) -> None:
    lengths, seq_len, min_piece = case
    short = [document for document, length in enumerate(lengths) if length <= seq_len]
    intact = data.draw(st.sets(st.sampled_from(short))) if short else set()
    rows = fill(lengths, seq_len, min_piece, intact)
    pieces = [(p.document, p.start, p.length) for row in rows for p in row if p.document in intact]
    assert sorted(pieces) == sorted((d, 0, lengths[d]) for d in intact)
    assert sum(p.length for row in rows for p in row) == sum(lengths)


@pytest.mark.parametrize("seed", range(3))
def test_a_cut_document_is_not_shredded(seed: int) -> None:
    """Its rest waits for its turn and is not cut again for each small gap."""
    rng = random.Random(seed)
    lengths = [rng.randint(300, 1000) for _ in range(500)]
    rows = fill(lengths, 1024, 8)
    small = sum(p.length <= 16 for row in rows for p in row)
    assert small == 0


def test_a_gap_is_padded_when_only_documents_of_sequence_length_wait() -> None:
    rows = fill([30, 64, 64], 64, 8)
    assert sorted(rows, key=lambda row: row[0].document) == [
        [Piece(n, 0, length)] for n, length in enumerate((30, 64, 64))
    ]


@pytest.mark.parametrize("seed", range(3))
def test_short_documents_are_not_cut_while_smaller_ones_wait(seed: int) -> None:
    rng = random.Random(seed)
    lengths = [rng.randint(1, 400) for _ in range(5000)]
    rows = fill(lengths, 4096, 32)
    pieces = [p for row in rows[: len(rows) // 2] for p in row]  # the window is still full
    assert len(pieces) > 1000
    assert all(p.length == lengths[p.document] for p in pieces)


def test_only_the_needed_documents_are_cut() -> None:
    rng = random.Random(5)
    lengths = [min(int(rng.lognormvariate(6.0, 1.0)) + 1, 8192) for _ in range(4000)]
    rows = fill(lengths, 8192, 32)
    cut = sum(len(row) for row in rows) - len(lengths)
    assert cut <= len(rows) // 50


@pytest.mark.parametrize("seed", range(2))
def test_20_000_lognormal_documents_at_32k_are_999_per_mille_full(seed: int) -> None:
    rng = random.Random(seed)
    lengths = [max(1, int(rng.lognormvariate(7.5, 1.4))) for _ in range(20_000)]
    rows = fill(lengths, 32_768, 32)
    assert sum(p.length for row in rows for p in row) == sum(lengths)
    assert sum(lengths) / (len(rows) * 32_768) >= 0.999


def test_a_long_document_is_cut_only_at_sequence_length() -> None:
    assert fill([250], 100, 10) == [[Piece(0, 0, 100)], [Piece(0, 100, 100)], [Piece(0, 200, 50)]]


def test_the_last_cut_moves_so_that_the_rest_has_min_piece() -> None:
    assert fill([103], 100, 10) == [[Piece(0, 0, 93)], [Piece(0, 93, 10)]]


def test_no_documents_give_no_sequences() -> None:
    assert fill([], 100, 10) == []


@settings(max_examples=200, deadline=None)
@given(cases(), st.integers(1, 20), st.integers(1, 40), st.sets(st.integers(0, 60)))
def test_chunks_change_no_sequence(case: Case, window: int, more: int, intact: set[int]) -> None:
    chunk = patch.object(window_fill_module, "CHUNK", window + more)
    with patch.object(window_module, "WINDOW", window), chunk:
        assert fill(*case, intact) == list(SlowWindowFill(case, intact, window).rows())


@settings(max_examples=100, deadline=None)
@given(cases(), st.integers(1, 20), st.sets(st.integers(0, 60)))
def test_large_integers_as_keys_change_no_sequence(
    case: Case, window: int, intact: set[int]
) -> None:
    """Sequences of two million tokens and more have keys that a float cannot hold."""
    lengths, seq_len, min_piece = case
    longer = [length << 22 for length in lengths], seq_len << 22, min_piece
    with patch.object(window_module, "WINDOW", window):
        assert fill(*longer, intact) == list(SlowWindowFill(longer, intact, window).rows())


@pytest.mark.parametrize("cut", [0.0, 0.3])
def test_blocks_with_more_to_come_change_no_sequence(cut: float) -> None:
    """Each block starts with what waited at the end of the last one."""
    rng = np.random.default_rng(0)
    lengths = np.where(rng.random(9000) < cut, 3000, rng.lognormal(5, 1, 9000)).astype(int) + 1
    intact = rng.random(len(lengths)) < 0.1
    expected = window_fill(lengths, 2048, 32, intact)
    rows, waiting = [], np.empty((0, 4), dtype=np.int64)
    for block in np.split(np.arange(len(lengths)), [1, 50, 2000, 2001, 6000]):
        columns = [block, np.zeros_like(block), lengths[block], intact[block]]
        table = np.concatenate([waiting, np.stack(columns, axis=1)])
        more = block[-1] < len(lengths) - 1
        packed = window_fill(table[:, 2], 2048, 32, table[:, 3].astype(bool), more=more)
        pieces = np.stack([table[packed.document, 0], packed.start, packed.length], axis=1)
        pieces[:, 1] += table[packed.document, 1]
        rows += [row.tolist() for row in np.split(pieces, packed.offsets[1:-1]) if len(row)]
        rest = packed.waiting
        waiting = table[rest.document]
        waiting[:, 1] += rest.start
        waiting[:, 2] = rest.length
    assert rows == [[list(piece) for piece in row] for row in rows_of(expected)]
