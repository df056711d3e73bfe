"""Every packer with every choice of the plan: tokens, boundary tokens and losses counted."""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pieces import Piece, rows_of
from plans import pack_selections, take

from ropewalk.conf.errors import DataError
from ropewalk.data.mixing import overlong
from ropewalk.data.mixing.rounds import SamplingRounds, Selection
from ropewalk.data.packing.packers import PACKERS
from ropewalk.data.tokens.store import BoundaryTokens, Store

BEGIN, END = 7, 9
NAMES = ("a", "b")


def store_of(lengths: list[int], heldout: list[bool] | None = None, first: int = 0) -> Store:
    """Token t of document d is 1000 (d + first) + t."""
    sizes = np.array(lengths, dtype=np.int64)
    offset = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)
    tokens = np.concatenate(
        [1000 * (first + d) + 100 + np.arange(n) for d, n in enumerate(lengths)]
    )
    mask = np.array(heldout if heldout is not None else [False] * len(lengths))
    return Store(
        tokens,
        offset,
        sizes,
        mask,
        np.arange(len(lengths), dtype=np.uint64),
        [f"{d}.txt" for d in range(len(lengths))],
        {},
        "",
    )


def selection_of(*takings: tuple[int, int]) -> Selection:
    """Each taking `(document, tokens)`, in the first epoch."""
    index, tokens = np.array(takings, dtype=np.int64).T
    return Selection(index, tokens, np.zeros(len(index), np.int64), index.astype(np.uint64))


@dataclass
class Case:
    """Two sources and every choice; `tokens_of` gives the tokens that the plan must hold."""

    lengths: dict[str, list[int]]
    heldout: dict[str, list[bool]]
    seq_len: int
    min_piece: int
    piece_len: dict[str, int]
    packer: str
    overlong: str
    boundary_tokens: BoundaryTokens
    seed: int = 0
    budget: int | None = None
    selections: dict[str, Selection] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.first = {"a": 0, "b": len(self.lengths["a"])}
        self.stores = {n: store_of(self.lengths[n], self.heldout[n], self.first[n]) for n in NAMES}
        self.candidates = {
            n: overlong.candidates(
                n, self.stores[n], self.max_piece(n), self.overlong, self.boundary_tokens
            )
            for n in NAMES
            if self.tokens_of(n)
        }
        self.selections = {
            n: take(
                SamplingRounds(n, c.lengths, c.usable, self.stores[n].key, self.seed), self.budget
            )
            for n, c in self.candidates.items()
        }

    def max_piece(self, name: str) -> int:
        return self.piece_len.get(name, self.seq_len)

    def tokens_of(self, name: str) -> list[tuple[int, list[int]]]:
        """`(global document, ids with boundary tokens)` of each document of the plan."""
        documents = []
        rows = zip(self.lengths[name], self.heldout[name], strict=True)
        for d, (length, heldout) in enumerate(rows):
            number = self.first[name] + d
            ids = [1000 * number + 100 + t for t in range(length)]
            if self.boundary_tokens.begin is not None:
                ids = [BEGIN, *ids]
            if self.boundary_tokens.end is not None:
                ids.append(END)
            too_long = len(ids) > self.max_piece(name)
            if heldout or (too_long and self.overlong == "drop"):
                continue
            if self.overlong == "truncate":
                ids = ids[: self.max_piece(name)]
            documents.append((number, ids))
        return documents

    def build(self, seed: int | None = None, names: tuple[str, ...] = NAMES) -> list[list[Piece]]:
        selections = {n: self.selections[n] for n in names if n in self.selections}
        seed = self.seed if seed is None else seed
        packed = pack_selections(
            selections,
            self.first,
            self.seq_len,
            self.min_piece,
            seed,
            packer=self.packer,
            max_piece={name: self.max_piece(name) for name in selections},
        )
        return rows_of(packed)

    def source(self, document: int) -> str:
        return "a" if document < self.first["b"] else "b"

    def read(self, piece: Piece) -> list[int]:
        name = self.source(piece.document)
        index = piece.document - self.first[name]
        store = self.stores[name]
        return self.boundary_tokens.read(store, index, piece.start, piece.length).tolist()


@st.composite
def cases(draw: st.DrawFn, budget: bool = False) -> Case:
    seq_len = draw(st.integers(4, 60))
    min_piece = draw(st.integers(1, seq_len // 2))
    lengths = {
        n: draw(st.lists(st.integers(1, 3 * seq_len), min_size=1, max_size=15)) for n in NAMES
    }
    case = {
        "lengths": lengths,
        "heldout": {n: [draw(st.integers(0, 3)) == 0 for _ in lengths[n]] for n in NAMES},
        "piece_len": {
            n: draw(st.integers(max(3, min_piece), seq_len)) for n in NAMES if draw(st.booleans())
        },
        "packer": draw(st.sampled_from(sorted(PACKERS))),
        "overlong": draw(st.sampled_from(["split", "truncate", "drop"])),
        "boundary_tokens": BoundaryTokens(
            *(draw(st.sampled_from([None, i])) for i in (BEGIN, END))
        ),
        "seed": draw(st.integers(0, 3)),
        "budget": draw(st.integers(1, 400)) if budget else None,
    }
    return Case(seq_len=seq_len, min_piece=min_piece, **case)


@settings(max_examples=400, deadline=None)
@given(cases())
def test_each_token_and_boundary_token_occurs_once_at_its_offset(case: Case) -> None:
    actual: dict[int, dict[int, int]] = {}
    for row in case.build():
        for piece in row:
            for offset, token in enumerate(case.read(piece), piece.start):
                assert offset not in actual.setdefault(piece.document, {})
                actual[piece.document][offset] = token
    expected = {d: dict(enumerate(ids)) for n in NAMES for d, ids in case.tokens_of(n)}
    assert actual == expected


@settings(max_examples=200, deadline=None)
@given(cases(budget=True))
def test_the_plan_holds_a_budget_to_the_token_with_repeats(case: Case) -> None:
    expected: Counter[tuple[int, int]] = Counter()
    for name, selection in case.selections.items():
        assert selection.tokens == case.budget
        for index, length in zip(selection.index.tolist(), selection.lengths.tolist(), strict=True):
            expected.update((case.first[name] + index, t) for t in range(length))
    pieces = [p for row in case.build() for p in row]
    tokens = ((p.document, t) for p in pieces for t in range(p.start, p.start + p.length))
    assert Counter(tokens) == expected


@settings(max_examples=300, deadline=None)
@given(cases())
def test_no_piece_and_no_sequence_is_too_long(case: Case) -> None:
    for row in case.build():
        assert 0 < sum(p.length for p in row) <= case.seq_len
        assert all(p.length <= case.max_piece(case.source(p.document)) for p in row)
        assert len(row) == 1 or case.packer != "single"


@settings(max_examples=300, deadline=None)
@given(cases())
def test_pieces_of_a_document_lie_side_by_side_in_its_order(case: Case) -> None:
    for row in case.build():
        assert all(
            a.start < b.start
            for a, b in zip(row, row[1:], strict=False)
            if a.document == b.document
        )
        changes = sum(a.document != b.document for a, b in zip(row, row[1:], strict=False))
        assert changes + 1 == len({p.document for p in row})


@settings(max_examples=300, deadline=None)
@given(cases())
def test_best_fit_and_single_cut_only_documents_longer_than_a_piece(case: Case) -> None:
    if case.packer not in ("best_fit", "single"):
        return
    pieces = Counter(p.document for row in case.build() for p in row)
    expected = {d: -(-len(ids) // case.max_piece(n)) for n in NAMES for d, ids in case.tokens_of(n)}
    assert pieces == expected


@settings(max_examples=300, deadline=None)
@given(cases())
def test_no_packer_but_concat_makes_a_piece_shorter_than_min_piece(case: Case) -> None:
    if case.packer == "concat" or any(case.max_piece(n) < 2 * case.min_piece for n in NAMES):
        return
    lengths = {d: len(ids) for n in NAMES for d, ids in case.tokens_of(n)}
    for row in case.build():
        assert all(p.length >= min(case.min_piece, lengths[p.document]) for p in row)


@settings(max_examples=300, deadline=None)
@given(cases())
def test_the_ledger_counts_the_tokens_that_are_not_in_the_plan(case: Case) -> None:
    for name, usable in case.candidates.items():
        store = case.stores[name]
        row = overlong.count_taken(case.selections[name], store, case.boundary_tokens)
        train = int(store.length[~store.heldout].sum())
        assert row["tokens_in_plan"] + row["cut"] + usable.dropped == train
        ids = [token for _, ids in case.tokens_of(name) for token in ids]
        assert row["marks"] == sum(token in (BEGIN, END) for token in ids)
        assert row["tokens_in_plan"] == len(ids) - row["marks"]
        count = int((~store.heldout).sum())
        assert usable.dropped_documents == count - len(case.tokens_of(name))


@settings(max_examples=150, deadline=None)
@given(cases(budget=True))
def test_the_plan_depends_only_on_settings_and_seed(case: Case) -> None:
    assert case.build() == case.build() == case.build(names=NAMES[::-1])


def case_of(packer: str, **changes: object) -> Case:
    choices: dict = {
        "lengths": {"a": list(range(1, 31)), "b": [5, 17, 64, 90, 200]},
        "heldout": {"a": [False] * 30, "b": [False] * 5},
        "seq_len": 64,
        "min_piece": 4,
        "piece_len": {},
        "packer": packer,
        "overlong": "split",
        "boundary_tokens": BoundaryTokens(),
    }
    return Case(**{**choices, **changes})


@pytest.mark.parametrize("packer", PACKERS)
def test_another_seed_gives_another_plan_of_the_same_tokens(packer: str) -> None:
    case = case_of(packer)
    plans = [case.build(seed=seed) for seed in (0, 1)]
    assert plans[0] != plans[1]
    tokens = [
        sorted((p.document, t) for r in rows for p in r for t in range(p.start, p.start + p.length))
        for rows in plans
    ]
    assert tokens[0] == tokens[1]


@pytest.mark.parametrize("packer", PACKERS)
def test_two_sources_have_their_own_piece_lengths_in_one_plan(packer: str) -> None:
    """ProLong's pieces of 512K and 64K tokens, at a small scale."""
    lengths = {"a": [100, 128, 40], "b": [100, 128, 40]}
    case = case_of(
        packer,
        lengths=lengths,
        heldout={n: [False] * 3 for n in NAMES},
        seq_len=128,
        piece_len={"b": 32},
    )
    longest = {
        n: max(p.length for r in case.build() for p in r if case.source(p.document) == n)
        for n in NAMES
    }
    assert longest["b"] == 32
    assert longest["a"] > 60


def test_documents_of_a_source_to_keep_intact_are_not_cut() -> None:
    """The parts of the other source shift the packer's document numbers."""
    selections = {"a": selection_of((0, 300)), "b": selection_of(*((i, 40) for i in range(20)))}
    packed = pack_selections(
        selections, {"a": 0, "b": 1}, 64, 4, 0, keep_intact={"b"}, max_piece={"a": 16}
    )
    rows = rows_of(packed)
    pieces = [piece for row in rows for piece in row if piece.document > 0]
    assert sorted(piece.document for piece in pieces) == list(range(1, 21))
    assert all(piece.length == 40 for piece in pieces)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 12), st.sampled_from([None, BEGIN]), st.sampled_from([None, END]))
def test_boundary_tokens_read_every_span_of_a_document(
    size: int, begin: int | None, end: int | None
) -> None:
    boundary_tokens, store = BoundaryTokens(begin, end), store_of([5, size, 3])
    ids = [1100 + t for t in range(size)]
    expected = [token for token in (begin, *ids, end) if token is not None]
    for start in range(len(expected)):
        for stop in range(start + 1, len(expected) + 1):
            actual = boundary_tokens.read(store, 1, start, stop - start)
            assert actual.tolist() == expected[start:stop]


def test_an_overlong_document_is_refused_by_name_with_the_way_out() -> None:
    store = store_of([90, 10, 70, 100], [True, False, False, False])
    message = (
        r"^data\.overlong is error; document 2\.txt of source a has 70 tokens and a piece "
        r"holds 64; .*set split"
    )
    with pytest.raises(DataError, match=message):
        overlong.candidates("a", store, 64, "error", BoundaryTokens())
    assert overlong.candidates("a", store, 100, "error", BoundaryTokens()).tokens == 180
    with pytest.raises(
        DataError,
        match=r"document 3\.txt .* has 101 tokens with data\.begin and data\.end and a piece",
    ):
        overlong.candidates("a", store, 100, "error", BoundaryTokens(end=END))


def test_dropping_all_documents_of_a_source_is_refused() -> None:
    with pytest.raises(
        DataError,
        match=r"^data\.overlong is drop; .* all 2 training documents of a are longer than 5",
    ):
        overlong.candidates(
            "a", store_of([3, 6, 7], [True, False, False]), 5, "drop", BoundaryTokens()
        )


@pytest.mark.parametrize(
    ("policy", "ids", "tokens", "boundary_tokens", "cut"),
    [
        ("split", (None, None), 30, 0, 0),
        ("split", (BEGIN, END), 30, 6, 0),
        ("truncate", (None, None), 20, 0, 10),
        # the first document just fits, the last keeps BEGIN and 9 tokens
        ("truncate", (BEGIN, END), 19, 5, 11),
        ("truncate", (None, END), 20, 2, 10),
        ("drop", (None, None), 10, 0, 0),
        ("drop", (BEGIN, END), 10, 4, 0),
    ],
)
def test_takings_are_counted_by_hand(
    policy: str, ids: tuple[int | None, int | None], tokens: int, boundary_tokens: int, cut: int
) -> None:
    """Documents of 8, 2 and 20 tokens, pieces of 10."""
    store, around = store_of([8, 2, 20]), BoundaryTokens(*ids)
    usable = overlong.candidates("a", store, 10, policy, around)
    selection = take(SamplingRounds("a", usable.lengths, usable.usable, store.key, 0))
    expected = {"tokens_in_plan": tokens, "marks": boundary_tokens, "cut": cut}
    assert overlong.count_taken(selection, store, around) == expected
    assert selection.repeats == 1


def test_a_budget_that_ends_inside_a_document_cuts_its_end() -> None:
    store = store_of([20])
    selection = take(SamplingRounds("a", np.array([22]), np.array([True]), store.key, 0), 15)
    row = overlong.count_taken(selection, store, BoundaryTokens(BEGIN, END))
    assert (row["tokens_in_plan"], row["marks"], row["cut"]) == (14, 1, 6)
