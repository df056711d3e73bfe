"""Counts over a plan's pieces, against Python that counts token by token."""

import time
from collections import Counter

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ropewalk.data.dataset import concatenate
from ropewalk.data.ledger import statistics
from ropewalk.data.ledger.piece_sums import PieceSums
from ropewalk.data.ledger.statistics import DocumentCounts, Pieces
from ropewalk.data.tokens.store import BoundaryTokens

Row = list[tuple[int, int, int]]  # pieces (document, start, length) of a sequence


def pieces_of(rows: list[Row]) -> Pieces:
    flat = np.array([p for row in rows for p in row], dtype=np.int64).reshape(-1, 3)
    return Pieces(flat[:, 0], flat[:, 1], flat[:, 2], np.cumsum([0, *map(len, rows)]))


def plans(documents: int = 4) -> st.SearchStrategy[list[Row]]:
    """Any pieces in any order, also copies and pieces with a gap between them."""
    piece = st.tuples(st.integers(0, documents - 1), st.integers(0, 12), st.integers(1, 9))
    return st.lists(st.lists(piece, min_size=1, max_size=6), min_size=1, max_size=5)


def own_contexts(rows: list[Row], document_mask: bool) -> list[tuple[int, int]]:
    """`(document, number of earlier tokens of it)` for every target.

    A token is `(document, offset)`. It attends within the borders of the loader's row. A copy of a
    document begins its context anew.
    """
    contexts = []
    for row in rows:
        loaded = concatenate([np.ones(n) for _, _, n in row], 64, document_mask=document_mask)
        tokens = [(d, s + t) for d, s, n in row for t in range(n)]
        for index in range(len(tokens) - 1):
            if loaded.labels[index] == -100:
                continue
            border = max(int(b) for b in loaded.cu_seqlens if b <= index)
            target, _ = tokens[index + 1]
            offsets: list[int] = []
            for document, offset in tokens[border : index + 1]:
                if document == target:
                    is_copy = offsets and offset <= offsets[-1]
                    offsets = [offset] if is_copy else [*offsets, offset]
            contexts.append((target, len(offsets)))
    return contexts


@settings(deadline=None, max_examples=150)
@given(plans(), st.booleans(), st.integers(0, 20))
@example([[(0, 0, 2), (0, 2, 1)]], False, 0)
def test_own_context_counts_the_visible_tokens_of_a_targets_document(
    rows: list[Row], mask: bool, bound: int
) -> None:
    pieces = pieces_of(rows)
    context = statistics.context_before(pieces, mask)
    source = (pieces.document >= 2).astype(int)
    beyond = statistics.targets_beyond(pieces, context, bound)
    targets = own_contexts(rows, mask)
    for index, belongs in enumerate([lambda d: d < 2, lambda d: d >= 2]):
        expected = sum(n > bound for d, n in targets if belongs(d))
        assert statistics.by_source(source, beyond, 2)[index] == expected
    assert len(targets) == pieces.targets.sum()
    assert statistics.longest_context(pieces, context) == max([n for _, n in targets], default=0)


def test_own_context_by_hand() -> None:
    """Two pieces of one document: only without the mask the second sees the first."""
    pieces = pieces_of([[(0, 0, 10), (0, 10, 5)]])
    assert statistics.context_before(pieces, True).tolist() == [0, 0]
    assert statistics.context_before(pieces, False).tolist() == [0, 10]
    for mask, expected in ((True, [1, 0]), (False, [1, 4])):
        context = statistics.context_before(pieces, mask)
        assert statistics.targets_beyond(pieces, context, 8).tolist() == expected


def test_a_copy_of_a_document_is_not_context() -> None:
    pieces = pieces_of([[(0, 0, 6), (0, 0, 6), (1, 0, 3), (0, 6, 2)]])
    assert statistics.context_before(pieces, False).tolist() == [0, 0, 0, 6]


def test_an_earlier_sequence_is_not_context() -> None:
    pieces = pieces_of([[(0, 0, 6)], [(0, 6, 6)]])
    assert statistics.context_before(pieces, False).tolist() == [0, 0]


@settings(deadline=None)
@given(
    st.lists(st.integers(1, 30), min_size=4, max_size=4),
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 30), st.integers(0, 32)), max_size=6),
    st.sampled_from(
        [
            BoundaryTokens(),
            BoundaryTokens(begin=1),
            BoundaryTokens(end=2),
            BoundaryTokens(begin=1, end=2),
            BoundaryTokens(begin=(1, 3, 4), end=(2, 5)),
        ]
    ),
    st.integers(0, 4),
)
def test_counts_of_each_document(
    lengths: list[int],
    takings: list[tuple[int, int, int]],
    boundary_tokens: BoundaryTokens,
    border: int,
) -> None:
    """In two ranges of documents and two blocks of sequences.

    Takings `(document, tokens, where it is cut in two)`, prefixes of begin + stored + end."""
    rows: list[Row] = [[]]
    expected: Counter[tuple[int, int]] = Counter()
    for document, tokens, cut in takings:
        tokens = min(tokens, lengths[document] + boundary_tokens.count)
        if 0 < cut < tokens:
            rows += [[(document, 0, cut)], [(document, cut, tokens - cut)]]
        else:
            rows.append([(document, 0, tokens)])
        stored = [None] * boundary_tokens.before + list(range(lengths[document]))
        expected.update((document, t) for t in stored[:tokens] if t is not None)
    blocks = [pieces_of(rows[:2]), pieces_of(rows[2:])] if rows[2:] else [pieces_of(rows)]
    parts = [
        statistics.count_documents(blocks, first, np.array(lengths)[first:end], boundary_tokens)
        for first, end in ((0, border), (border, 4))
    ]
    counts = DocumentCounts(
        *(
            np.concatenate([getattr(part, key) for part in parts])
            for key in ("times", "tokens", "distinct")
        )
    )
    for document in range(4):
        times = [n for (d, _), n in expected.items() if d == document]
        assert counts.times[document] == sum(d == document for d, _, _ in takings)
        assert (counts.tokens[document], counts.distinct[document]) == (sum(times), len(times))


def test_lengths_by_hand() -> None:
    length = np.array([256, 257, 1000, 5000, 2_000_000])
    heldout = np.array([False, False, True, False, False])
    counts = DocumentCounts(
        np.array([2, 1, 0, 1, 0]),
        np.array([512, 200, 0, 5000, 0]),
        np.array([256, 200, 0, 5000, 0]),
    )
    keys = [
        f"{kind}{unit}"
        for kind in ("", "heldout_", "taken_", "plan_")
        for unit in ("documents", "tokens")
    ]
    assert statistics.by_length(length, heldout, counts) == {
        label: dict(zip(keys, values, strict=True))
        for label, values in {
            "1-256": (1, 256, 0, 0, 2, 512, 1, 512),
            "257-1024": (2, 1257, 1, 1000, 1, 257, 1, 200),
            "4097-16384": (1, 5000, 0, 0, 1, 5000, 1, 5000),
            ">1048576": (1, 2_000_000, 0, 0, 0, 0, 0, 0),
        }.items()
    }


@pytest.mark.parametrize(
    ("tokens", "few"), [([5, 1, 1, 1], 1), ([1, 1, 1, 1], 2), ([3, 3, 3], 2), ([0, 0], 0), ([], 0)]
)
def test_documents_for_half(tokens: list[int], few: int) -> None:
    assert statistics.documents_for_half(Counter(tokens)) == few


@given(st.lists(st.integers(0, 9), max_size=30))
def test_documents_for_half_are_the_largest(tokens: list[int]) -> None:
    few = statistics.documents_for_half(Counter(tokens))
    largest = sorted(tokens, reverse=True)
    assert 2 * sum(largest[:few]) >= sum(tokens)
    assert few == 0 or 2 * sum(largest[: few - 1]) < sum(tokens)


def test_pieces_and_tokens_by_length() -> None:
    counts = statistics.histogram(np.array([1, 256, 257, 600, 600]), 600)
    assert counts.tolist() == [[2, 3], [257, 1457]]
    assert statistics.length_names(600) == ["1-256", "257-600"]


def test_sequences_that_hold_a_source() -> None:
    pieces = pieces_of([[(0, 0, 1), (5, 0, 1), (0, 1, 1)], [(5, 1, 1)]])
    source = (pieces.document == 5).astype(int)
    assert statistics.sources_of_sequences(pieces, source, 3).tolist() == [1, 2, 0]


def test_bounds_of_own_context_include_a_quarter_and_a_half_of_the_sequence() -> None:
    assert statistics.own_bounds(2048) == [256, 512, 1024]
    assert statistics.own_bounds(131072) == [256, 1024, 4096, 16384, 32768, 65536]
    assert statistics.own_bounds(2) == [1]


def test_a_million_pieces_are_counted_within_seconds() -> None:
    rng = np.random.default_rng(0)
    length = rng.integers(1, 4000, 1_000_000)
    pieces = Pieces(
        np.arange(len(length)) // 2,
        np.where(np.arange(len(length)) % 2, 4000, 0),
        length,
        np.arange(0, len(length) + 1, 10),
    )
    source = (pieces.document > 250_000).astype(int)
    started = time.process_time()
    PieceSums(131072, False, 2).add(pieces, source)
    statistics.count_documents([pieces], 0, np.full(500_000, 8000), BoundaryTokens(begin=1, end=2))
    assert time.process_time() - started < 3  # 0.6 s when this was written
