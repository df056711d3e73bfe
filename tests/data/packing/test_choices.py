"""Every packer with every choice of the plan: tokens, marks and losses counted one by one."""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pieces import Piece, rows_of
from plans import pack_selections

from ropewalk.conf.errors import DataError
from ropewalk.data.mixing import overlong
from ropewalk.data.mixing.shares import SamplingRounds, Selection
from ropewalk.data.packing.packers import PACKERS
from ropewalk.data.tokens.store import BoundaryTokens, Store

BEGIN, END = 7, 9
NAMES = ("a", "b")


def store_of(lengths: list[int], held: list[bool] | None = None, first: int = 0) -> Store:
    """Token t of document d is 1000 (d + first) + t."""
    sizes = np.array(lengths, dtype=np.int64)
    offset = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)
    tokens = np.concatenate(
        [1000 * (first + d) + 100 + np.arange(n) for d, n in enumerate(lengths)]
    )
    heldout = np.array(held if held is not None else [False] * len(lengths))
    return Store(
        tokens,
        offset,
        sizes,
        heldout,
        np.arange(len(lengths), dtype=np.uint64),
        [f"{d}.txt" for d in range(len(lengths))],
        {},
        "",
    )


def share_of(*takings: tuple[int, int]) -> Selection:
    """Each taking `(document, tokens)` of its first time."""
    index, taken = np.array(takings, dtype=np.int64).T
    return Selection(index, taken, np.zeros(len(index), np.int64), index.astype(np.uint64), 1.0)


@dataclass
class Case:
    """Two sources and every choice; `promised` is what the plan must hold, written out by hand."""

    lengths: dict[str, list[int]]
    held: dict[str, list[bool]]
    seq_len: int
    min_piece: int
    piece_len: dict[str, int]
    packer: str
    overlong: str
    marks: BoundaryTokens
    seed: int = 0
    budget: int | None = None
    shares: dict[str, Selection] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.first = {"a": 0, "b": len(self.lengths["a"])}
        self.stores = {n: store_of(self.lengths[n], self.held[n], self.first[n]) for n in NAMES}
        self.offers = {
            n: overlong.candidates(n, self.stores[n], self.most(n), self.overlong, self.marks)
            for n in NAMES
            if self.tokens_of(n)
        }
        self.shares = {
            n: SamplingRounds.of(n, o.lengths, o.usable, self.stores[n].key, self.seed).take(
                self.budget
            )
            for n, o in self.offers.items()
        }

    def most(self, name: str) -> int:
        return self.piece_len.get(name, self.seq_len)

    def tokens_of(self, name: str) -> list[tuple[int, list[int]]]:
        """`(global document, ids with marks)` of each document that the choices leave in the plan."""
        found = []
        for d, (length, held) in enumerate(zip(self.lengths[name], self.held[name], strict=True)):
            number = self.first[name] + d
            ids = [1000 * number + 100 + t for t in range(length)]
            ids = (
                [BEGIN] * (self.marks.begin is not None)
                + ids
                + [END] * (self.marks.end is not None)
            )
            too_long = len(ids) > self.most(name)
            if held or (too_long and self.overlong == "drop"):
                continue
            found.append((number, ids[: self.most(name)] if self.overlong == "truncate" else ids))
        return found

    def build(self, seed: int | None = None, names: tuple[str, ...] = NAMES) -> list[list[Piece]]:
        shares = {n: self.shares[n] for n in names if n in self.shares}
        seed = self.seed if seed is None else seed
        packed = pack_selections(
            shares,
            self.first,
            self.seq_len,
            self.min_piece,
            seed,
            packer=self.packer,
            max_piece={name: self.most(name) for name in shares},
        )
        return rows_of(packed)

    def source(self, document: int) -> str:
        return "a" if document < self.first["b"] else "b"

    def read(self, piece: Piece) -> list[int]:
        name = self.source(piece.document)
        index = piece.document - self.first[name]
        return self.marks.read(self.stores[name], index, piece.start, piece.length).tolist()


@st.composite
def cases(draw: st.DrawFn, budget: bool = False) -> Case:
    seq_len = draw(st.integers(4, 60))
    min_piece = draw(st.integers(1, seq_len // 2))
    lengths = {
        n: draw(st.lists(st.integers(1, 3 * seq_len), min_size=1, max_size=15)) for n in NAMES
    }
    case = {
        "lengths": lengths,
        "held": {n: [draw(st.integers(0, 3)) == 0 for _ in lengths[n]] for n in NAMES},
        "piece_len": {
            n: draw(st.integers(max(3, min_piece), seq_len)) for n in NAMES if draw(st.booleans())
        },
        "packer": draw(st.sampled_from(sorted(PACKERS))),
        "overlong": draw(st.sampled_from(["split", "truncate", "drop"])),
        "marks": BoundaryTokens(*(draw(st.sampled_from([None, i])) for i in (BEGIN, END))),
        "seed": draw(st.integers(0, 3)),
        "budget": draw(st.integers(1, 400)) if budget else None,
    }
    return Case(seq_len=seq_len, min_piece=min_piece, **case)


@settings(max_examples=400, deadline=None)
@given(cases())
def test_each_token_and_mark_stands_once_and_is_read_from_its_place(case: Case) -> None:
    found: dict[int, dict[int, int]] = {}
    for row in case.build():
        for piece in row:
            for at, token in enumerate(case.read(piece), piece.start):
                assert at not in found.setdefault(piece.document, {})
                found[piece.document][at] = token
    wanted = {d: dict(enumerate(ids)) for n in NAMES for d, ids in case.tokens_of(n)}
    assert found == wanted


@settings(max_examples=200, deadline=None)
@given(cases(budget=True))
def test_a_budget_is_in_the_plan_to_the_token_however_often_documents_repeat(case: Case) -> None:
    wanted: Counter[tuple[int, int]] = Counter()
    for name, share in case.shares.items():
        assert share.tokens == case.budget
        for index, length in zip(share.index.tolist(), share.lengths.tolist(), strict=True):
            wanted.update((case.first[name] + index, t) for t in range(length))
    pieces = [p for row in case.build() for p in row]
    assert (
        Counter((p.document, t) for p in pieces for t in range(p.start, p.start + p.length))
        == wanted
    )


@settings(max_examples=300, deadline=None)
@given(cases())
def test_no_piece_and_no_sequence_is_too_long(case: Case) -> None:
    for row in case.build():
        assert 0 < sum(p.length for p in row) <= case.seq_len
        assert all(p.length <= case.most(case.source(p.document)) for p in row)
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
def test_only_what_is_longer_than_a_piece_is_cut_by_best_fit_and_single(case: Case) -> None:
    if case.packer not in ("best_fit", "single"):
        return
    pieces = Counter(p.document for row in case.build() for p in row)
    wanted = {d: -(-len(ids) // case.most(n)) for n in NAMES for d, ids in case.tokens_of(n)}
    assert pieces == wanted


@settings(max_examples=300, deadline=None)
@given(cases())
def test_no_piece_is_shorter_than_asked_but_by_concat(case: Case) -> None:
    if case.packer == "concat" or any(case.most(n) < 2 * case.min_piece for n in NAMES):
        return
    whole = {d: len(ids) for n in NAMES for d, ids in case.tokens_of(n)}
    for row in case.build():
        assert all(p.length >= min(case.min_piece, whole[p.document]) for p in row)


@settings(max_examples=300, deadline=None)
@given(cases())
def test_what_is_not_in_the_plan_is_in_the_ledger(case: Case) -> None:
    for name, offer in case.offers.items():
        opened = case.stores[name]
        row = overlong.ledger_row(case.shares[name], opened, case.marks)
        train = int(opened.length[~opened.heldout].sum())
        assert row["tokens_in_plan"] + row["cut"] + offer.dropped == train
        ids = [token for _, ids in case.tokens_of(name) for token in ids]
        assert row["marks"] == sum(token in (BEGIN, END) for token in ids)
        assert row["tokens_in_plan"] == len(ids) - row["marks"]
        count = int((~opened.heldout).sum())
        assert offer.dropped_documents == count - len(case.tokens_of(name))


@settings(max_examples=150, deadline=None)
@given(cases(budget=True))
def test_the_plan_depends_on_settings_and_seed_alone(case: Case) -> None:
    assert case.build() == case.build() == case.build(names=NAMES[::-1])


def plain(packer: str, **changes: object) -> Case:
    choices: dict = {
        "lengths": {"a": list(range(1, 31)), "b": [5, 17, 64, 90, 200]},
        "held": {"a": [False] * 30, "b": [False] * 5},
        "seq_len": 64,
        "min_piece": 4,
        "piece_len": {},
        "packer": packer,
        "overlong": "split",
        "marks": BoundaryTokens(),
    }
    return Case(**{**choices, **changes})


@pytest.mark.parametrize("packer", PACKERS)
def test_another_seed_gives_another_plan_of_the_same_tokens(packer: str) -> None:
    case = plain(packer)
    one, two = case.build(seed=0), case.build(seed=1)
    assert one != two
    held = [
        sorted((p.document, t) for r in rows for p in r for t in range(p.start, p.start + p.length))
        for rows in (one, two)
    ]
    assert held[0] == held[1]


@pytest.mark.parametrize("packer", PACKERS)
def test_two_piece_lengths_live_in_one_plan(packer: str) -> None:
    """ProLong's 512K and 64K pieces, in small."""
    lengths = {"a": [100, 128, 40], "b": [100, 128, 40]}
    case = plain(
        packer,
        lengths=lengths,
        held={n: [False] * 3 for n in NAMES},
        seq_len=128,
        piece_len={"b": 32},
    )
    longest = {
        n: max(p.length for r in case.build() for p in r if case.source(p.document) == n)
        for n in NAMES
    }
    assert longest["b"] == 32
    assert longest["a"] > 60


def test_documents_of_a_source_that_must_stay_whole_are_kept_whole() -> None:
    """Parts of another's shift the packer's own numbers."""
    shares = {"a": share_of((0, 300)), "b": share_of(*((i, 40) for i in range(20)))}
    packed = pack_selections(
        shares, {"a": 0, "b": 1}, 64, 4, 0, keep_intact={"b"}, max_piece={"a": 16}
    )
    rows = rows_of(packed)
    whole = set(range(1, 21))
    assert sorted(p.document for r in rows for p in r if p.document in whole) == sorted(whole)
    assert all(p.length == 40 for r in rows for p in r if p.document in whole)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 12), st.sampled_from([None, BEGIN]), st.sampled_from([None, END]))
def test_marks_read_every_stretch_of_a_document(
    size: int, begin: int | None, end: int | None
) -> None:
    marks, opened = BoundaryTokens(begin, end), store_of([5, size, 3])
    whole = (
        [BEGIN] * (begin is not None) + [1100 + t for t in range(size)] + [END] * (end is not None)
    )
    for start in range(len(whole)):
        for stop in range(start + 1, len(whole) + 1):
            assert marks.read(opened, 1, start, stop - start).tolist() == whole[start:stop]


def test_too_long_a_document_is_refused_by_name_with_the_way_out() -> None:
    opened = store_of([90, 10, 70, 100], [True, False, False, False])
    with pytest.raises(
        DataError,
        match=r"^data\.overlong is error; document 2\.txt of source a has 70 tokens and a piece holds 64; .*set split",
    ):
        overlong.candidates("a", opened, 64, "error", BoundaryTokens())
    assert overlong.candidates("a", opened, 100, "error", BoundaryTokens()).tokens == 180
    with pytest.raises(
        DataError,
        match=r"document 3\.txt .* has 101 tokens with data\.begin and data\.end and a piece",
    ):
        overlong.candidates("a", opened, 100, "error", BoundaryTokens(end=END))


def test_source_that_would_be_dropped_whole_is_refused() -> None:
    with pytest.raises(
        DataError,
        match=r"^data\.overlong is drop; .* all 2 training documents of a are longer than 5",
    ):
        overlong.candidates(
            "a", store_of([3, 6, 7], [True, False, False]), 5, "drop", BoundaryTokens()
        )


@pytest.mark.parametrize(
    ("policy", "ids", "tokens", "marks", "cut"),
    [
        ("split", (None, None), 30, 0, 0),
        ("split", (BEGIN, END), 30, 6, 0),
        ("truncate", (None, None), 20, 0, 10),
        (
            "truncate",
            (BEGIN, END),
            19,
            5,
            11,
        ),  # the first just fits, the last keeps its begin and 9 tokens
        ("truncate", (None, END), 20, 2, 10),
        ("drop", (None, None), 10, 0, 0),
        ("drop", (BEGIN, END), 10, 4, 0),
    ],
)
def test_account_by_hand(
    policy: str, ids: tuple[int | None, int | None], tokens: int, marks: int, cut: int
) -> None:
    """Documents of 8, 2 and 20 tokens, pieces of 10."""
    opened, chosen = store_of([8, 2, 20]), BoundaryTokens(*ids)
    offer = overlong.candidates("a", opened, 10, policy, chosen)
    share = SamplingRounds.of("a", offer.lengths, offer.usable, opened.key, 0).take(None)
    wanted = {"tokens_in_plan": tokens, "marks": marks, "cut": cut, "epochs": 1.0, "repeats": 1}
    assert overlong.ledger_row(share, opened, chosen) == wanted


def test_a_budget_that_ends_inside_a_document_leaves_its_end_out() -> None:
    opened = store_of([20])
    share = SamplingRounds.of("a", np.array([22]), np.array([True]), opened.key, 0).take(15)
    told = overlong.ledger_row(share, opened, BoundaryTokens(BEGIN, END))
    assert (told["tokens_in_plan"], told["marks"], told["cut"]) == (14, 1, 6)
