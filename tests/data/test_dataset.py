"""Held-out windows and text: their documents and their order."""

from collections import Counter

import numpy as np
import pytest

from ropewalk.data import dataset
from ropewalk.data.tokens import store


def store_of(lengths: list[int], heldout: list[bool], source: str = "") -> store.Store:
    """Token t of document d is 1000 d + t, and its id the source's name and d."""
    offset = np.cumsum([0, *lengths[:-1]])
    ids = [f"{source}{index}" for index in range(len(lengths))]
    tokens = np.concatenate([1000 * index + np.arange(n) for index, n in enumerate(lengths)])
    keys = np.arange(len(ids), dtype=np.uint64)
    return store.Store(tokens, offset, np.array(lengths), np.array(heldout), keys, ids, {}, "")


def test_windows_come_from_long_held_out_documents_only() -> None:
    lengths = [100, 30, 55, 80]
    windows = dataset.heldout_windows(
        [store_of(lengths, [True, True, False, True])], 40, None, per_document=2
    )
    assert Counter(window.document for window in windows) == {"0": 2, "3": 2}
    for window in windows:
        first = int(window.ids[0])
        assert window.ids.tolist() == list(range(first, first + 40))
        document = int(window.document)
        assert 0 <= first - 1000 * document <= lengths[document] - 40


def test_windows_of_a_document_do_not_overlap() -> None:
    windows = dataset.heldout_windows([store_of([103], [True])], 25, 10, per_document=4)
    tokens = [token for window in windows for token in window.ids.tolist()]
    assert len(windows) == 4 and len(set(tokens)) == 100


def test_few_windows_are_spread_over_documents_first() -> None:
    windows = dataset.heldout_windows([store_of([100] * 4, [True] * 4)], 20, 4, per_document=3)
    assert [window.document for window in windows] == ["0", "1", "2", "3"]


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (4, ["a0", "b0", "c0", "a1"]),
        (None, ["a0", "b0", "c0", "a1", "b0", "c2", "a2", "c0", "a0", "c2", "a1", "a2"]),
        (0, []),
    ],
)
def test_the_sources_give_windows_in_turn(count: int | None, expected: list[str]) -> None:
    """A source without further windows is skipped, and the others continue in turn."""
    stores = [
        store_of([100] * 3, [True] * 3, "a"),
        store_of([100, 10], [True, True], "b"),
        store_of([100, 100, 100], [True, False, True], "c"),
    ]
    windows = dataset.heldout_windows(stores, 40, count, per_document=2)
    assert [window.document for window in windows] == expected


def test_a_source_without_held_out_text_changes_no_window_of_another() -> None:
    books = store_of([100, 90, 80], [True] * 3, "a")
    alone = dataset.heldout_windows([books], 30, 5, per_document=3)
    windows = dataset.heldout_windows(
        [store_of([100], [False], "b"), books, store_of([29], [True], "c")], 30, 5, per_document=3
    )
    assert [w.document for w in windows] == [w.document for w in alone]
    assert [w.ids.tolist() for w in windows] == [w.ids.tolist() for w in alone]


def test_heldout_text_joins_all_held_out_documents_and_no_other() -> None:
    stores = [store_of([3, 2, 2], [True, False, True]), store_of([2], [True])]
    assert dataset.heldout_text(stores).tolist() == [0, 1, 2, 2000, 2001, 0, 1]
    assert len(dataset.heldout_text([store_of([3], [False])])) == 0
