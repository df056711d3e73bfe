"""Mixture, budget and what the ledger says of a plan."""

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ropewalk.conf.errors import DataError
from ropewalk.data import plan
from ropewalk.data.pack import Piece

LENGTHS = np.array([10, 20, 30, 40])
ALL = np.ones(4, dtype=bool)


def test_without_a_budget_each_usable_document_comes_once() -> None:
    share = plan.choose("a", LENGTHS, np.array([True, False, True, True]), None, 0)
    assert sorted(share.documents) == [(0, 10), (2, 30), (3, 40)]
    assert (share.tokens, share.epochs) == (80, 1.0)


@settings(deadline=None)
@given(st.lists(st.integers(1, 50), min_size=1, max_size=20), st.integers(1, 3000), st.integers(0, 5))
def test_a_budget_is_met_to_the_token_and_repeats_whole_epochs(lengths: list[int], budget: int, seed: int) -> None:
    share = plan.choose("a", np.array(lengths), np.ones(len(lengths), bool), budget, seed)
    taken = Counter(index for index, _ in share.documents)
    assert sum(length for _, length in share.documents) == share.tokens == budget
    assert all(length == lengths[index] for index, length in share.documents[:-1])
    assert max(taken.values()) - min(taken.get(i, 0) for i in range(len(lengths))) <= 1
    assert share.epochs == pytest.approx(budget / sum(lengths))


def test_another_seed_or_source_takes_another_order() -> None:
    lengths, usable = np.full(50, 7), np.ones(50, bool)
    orders = [plan.choose(n, lengths, usable, None, s).documents for n, s in (("a", 0), ("a", 1), ("b", 0))]
    assert orders[0] != orders[1] and orders[0] != orders[2]
    assert sorted(orders[0]) == sorted(orders[1]) == sorted(orders[2])
    assert orders[0] == plan.choose("a", lengths, usable, None, 0).documents


def test_a_source_without_usable_tokens_is_refused_by_name() -> None:
    with pytest.raises(DataError, match=r"data\.sources\.books has no tokens"):
        plan.choose("books", LENGTHS, ~ALL, None, 0)


@pytest.mark.parametrize(
    ("weights", "available", "tokens", "wanted"),
    [
        ({"a": None, "b": None}, {"a": 100, "b": 300}, None, {"a": None, "b": None}),
        ({"a": None, "b": None}, {"a": 100, "b": 300}, 200, {"a": 50, "b": 150}),
        ({"a": 1.0, "b": 3.0}, {"a": 100, "b": 600}, None, {"a": 100, "b": 300}),
        ({"a": 1.0, "b": 1.0}, {"a": 100, "b": None}, None, {"a": 100, "b": 100}),
        ({"a": 0.2, "b": 0.8}, {"a": 10, "b": 10}, 1000, {"a": 200, "b": 800}),
        ({"a": 1.0, "b": 0.0}, {"a": 100, "b": 5}, None, {"a": 100, "b": 0}),
        ({"a": 1.0, "b": 1.0}, {"a": None, "b": None}, None, {"a": 0, "b": 0}),
    ],
)
def test_budgets(weights: dict, available: dict, tokens: int | None, wanted: dict) -> None:
    assert plan.budgets(weights, available, tokens) == wanted


def test_build_numbers_documents_across_sources_and_keeps_every_token() -> None:
    shares = {"a": plan.Share([(0, 5), (1, 30)], 35, 1.0), "b": plan.Share([(0, 12), (0, 12)], 24, 2.0)}
    rows = plan.build(shares, {"a": 0, "b": 2}, 16, 2, seed=0)
    tokens = Counter((p.document, t) for row in rows for p in row for t in range(p.start, p.start + p.length))
    wanted = {(0, t): 1 for t in range(5)} | {(1, t): 1 for t in range(30)} | {(2, t): 2 for t in range(12)}
    assert tokens == wanted


def test_build_depends_on_the_seed_alone() -> None:
    shares = {"a": plan.Share([(i, 10 + i) for i in range(40)], 1180, 1.0)}
    first, again, other = (plan.build(shares, {"a": 0}, 64, 4, seed) for seed in (0, 0, 1))
    assert first == again != other


def test_written_plan_is_read_by_arrow_as_lists_of_structs(tmp_path: Path) -> None:
    plan.write(tmp_path, [[Piece(3, 0, 5), Piece(1, 7, 2)], [Piece(9, 4, 1)]])
    table = pa.ipc.open_file(pa.memory_map(str(tmp_path / "plan.arrow"))).read_all()
    assert table["pieces"].to_pylist() == [
        [{"document": 3, "start": 0, "length": 5}, {"document": 1, "start": 7, "length": 2}],
        [{"document": 9, "start": 4, "length": 1}],
    ]


def test_describe_counts_by_hand() -> None:
    told = plan.describe([[Piece(0, 0, 1000)], [Piece(1, 0, 300), Piece(2, 0, 100)]], 1000)
    assert (told["sequences"], told["tokens"], told["padding"], told["pieces"]) == (2, 1400, 600, 3)
    assert told["fill"] == 0.7
    # beyond their piece's first 256 tokens: 744 of the first, 44 of the second
    assert told["own_context_share"] == {"256": pytest.approx(788 / 1400, abs=1e-6)}
    assert told["piece_lengths"] == {"1-256": 1, "257-1000": 2}


def test_marks_fill_a_sequence_and_are_told_apart() -> None:
    told = plan.describe([[Piece(0, 0, 600), Piece(1, 0, 300)]], 1000, 4)
    assert (told["tokens"], told["marks"], told["padding"], told["fill"]) == (896, 4, 100, 0.9)


def test_describe_of_nothing_is_zero_not_an_error() -> None:
    assert plan.describe([], 1000)["fill"] == 0.0
