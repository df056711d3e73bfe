"""Held-out windows and text, the part of the public face that is its own."""

from collections import Counter

import numpy as np

from ropewalk.data import dataset
from ropewalk.data.tokens import store


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
