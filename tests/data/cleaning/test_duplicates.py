"""Exact and near duplicates, held against Python's sets: equal tuples of tokens, and the exact Jaccard similarity."""

import random
import sys
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ropewalk.conf.errors import ConfigError
from ropewalk.data.cleaning import duplicates, signatures
from ropewalk.data.cleaning.documents import Texts
from ropewalk.data.cleaning.duplicates import EXACT, NEAR
from ropewalk.data.tokens.store import Store

Text = list[int]


def store_of(texts: list[Text]) -> Store:
    lengths = np.array([len(t) for t in texts], dtype=np.int64)
    offsets = np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64)
    tokens, count = (
        np.array([token for text in texts for token in text], dtype=np.uint16),
        len(texts),
    )
    ids, key = [f"{i}.txt" for i in range(count)], np.arange(count, dtype=np.uint64)
    return Store(tokens, offsets, lengths, np.zeros(count, dtype=bool), key, ids, {}, "")


def texts_of(*sources: list[Text]) -> Texts:
    return Texts({f"source{i}": store_of(texts) for i, texts in enumerate(sources)})


def everything(texts: Texts) -> np.ndarray:
    return np.ones(len(texts.length), dtype=bool)


def jaccard(one: Text, other: Text, n: int) -> float:
    a, b = ({tuple(t[i : i + n]) for i in range(len(t) - n + 1)} for t in (one, other))
    return len(a & b) / len(a | b)


def written(length: int, seed: int) -> Text:
    rng = random.Random(seed)
    return [rng.randrange(5000) for _ in range(length)]


def changed(text: Text, where: list[int]) -> Text:
    return [5000 + i if i in set(where) else token for i, token in enumerate(text)]


few = st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=3), min_size=1, max_size=12)


@pytest.mark.parametrize("colliding", [False, True])
def test_exact_duplicates_are_those_whose_tokens_came_before(
    colliding: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when every document has the same key."""
    if colliding:
        monkeypatch.setattr(
            duplicates, "keys", lambda store: np.full(len(store.length), 7, dtype=np.uint64)
        )

    @settings(max_examples=60, deadline=None)
    @given(one=few, two=few, data=st.data())
    def holds(one: list[Text], two: list[Text], data: st.DataObject) -> None:
        size = len(one) + len(two)
        among = data.draw(st.lists(st.booleans(), min_size=size, max_size=size))
        seen: set[tuple[int, ...]] = set()
        wanted = []
        for text, here in zip(one + two, among, strict=True):
            wanted.append(here and tuple(text) in seen)
            seen |= {tuple(text)} if here else set()
        assert duplicates.exact(texts_of(one, two), np.array(among)).tolist() == wanted

    holds()


def test_the_first_source_keeps_its_copy() -> None:
    one, two = [[1, 2], [3]], [[4], [1, 2]]
    assert duplicates.exact(texts_of(one, two), np.ones(4, bool)).tolist() == [
        False,
        False,
        False,
        True,
    ]
    assert duplicates.exact(texts_of(two, one), np.ones(4, bool)).tolist() == [
        False,
        False,
        True,
        False,
    ]


def test_the_estimate_is_within_its_error_of_the_exact_similarity() -> None:
    """Standard error sqrt(J (1 - J) / P); four of them on each of 45 pairs."""
    rng, text = random.Random(1), written(2000, 0)
    versions = [
        changed(text, rng.sample(range(2000), k))
        for k in (0, 5, 10, 20, 40, 60, 100, 200, 400, 800)
    ]
    found = signatures.signatures(texts_of(versions), 5, 512)
    for a, b in combinations(range(len(versions)), 2):
        exact = jaccard(versions[a], versions[b], 5)
        estimate = float((found[a] == found[b]).mean())
        assert abs(estimate - exact) <= 4 * (exact * (1 - exact) / 512) ** 0.5 + 1e-12


def test_signatures_are_datasketchs_own_of_the_same_set() -> None:
    from datasketch import MinHash

    from ropewalk.data.cleaning.ngrams import hashes

    text = written(300, 3)
    peer = MinHash(num_perm=64, seed=1, hashfunc=lambda number: number)
    for value in {h >> 32 for h in hashes(np.array(text, dtype=np.uint16), 5).tolist()}:
        peer.update(value)
    assert signatures.signatures(texts_of([text]), 5, 64)[0].tolist() == peer.hashvalues.tolist()


@settings(max_examples=20, deadline=None)
@given(chunk=st.integers(1, 400), within=st.integers(1, 400))
def test_signatures_are_the_same_for_any_chunk(chunk: int, within: int) -> None:
    texts = texts_of([written(300, 1), [1], written(40, 2)], [written(7, 3), [2, 3, 4, 5]])
    whole = signatures.signatures(texts, 5, 16)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(signatures, "AT_ONCE", within)
        assert np.array_equal(signatures.signatures(texts, 5, 16, chunk), whole)


def near_of(threshold: float, *texts: Text) -> list[bool]:
    row = texts_of(list(texts))
    return duplicates.near(signatures.signatures(row, 5, 128), everything(row), threshold).tolist()


def test_planted_near_duplicate_is_found_and_an_unrelated_document_is_not() -> None:
    """5% of the words changed, in one passage: nine tenths of the 5-grams are common."""
    text = written(2000, 0)
    edition = changed(text, list(range(700, 800)))
    assert jaccard(text, edition, 5) == pytest.approx(0.9, abs=0.01)
    assert near_of(0.8, text, written(2000, 1), edition) == [False, False, True]


def test_words_changed_here_and_there_cost_five_ngrams_each() -> None:
    """5% so changed leave 0.63, which is not alike at 0.8, as the setting's own words say; 2% are."""
    text, rng = written(3000, 0), random.Random(2)
    one, few = (changed(text, rng.sample(range(3000), k)) for k in (150, 50))
    assert jaccard(text, one, 5) == pytest.approx(0.63, abs=0.02)
    assert near_of(0.8, text, one) == [False, False]
    assert near_of(0.5, text, one) == [False, True]
    assert near_of(0.8, text, few) == [False, True]


def test_short_documents_are_alike_only_when_equal() -> None:
    assert near_of(0.8, [1, 2], [1, 2, 3], [1, 2], written(50, 1), [1, 2, 3, 4]) == [
        False,
        False,
        True,
        False,
        False,
    ]


def test_one_document_of_a_cluster_stays_the_first() -> None:
    """A chain: the second is linked to both ends, which are not alike; an unlike one beside them."""
    row = np.arange(100, dtype=np.uint32)
    middle, end = row.copy(), row.copy()
    middle[:15], end[:30] = 1000, 1000
    other = row + 5000
    found = duplicates.near(np.stack([end, other, row, middle]), np.ones(4, bool), 0.8)
    assert found.tolist() == [False, False, True, True]
    assert (
        duplicates.near(np.stack([end, other, row]), np.ones(3, bool), 0.8).tolist() == [False] * 3
    )
    assert not duplicates.near(
        np.stack([end, other, row, middle]), np.array([1, 1, 1, 0], bool), 0.8
    ).any()


@settings(max_examples=30, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6), threshold=st.sampled_from([0.4, 0.6, 0.8, 1.0]))
def test_what_is_found_is_what_all_pairs_would_find_but_for_what_the_index_misses(
    seed: int, threshold: float
) -> None:
    """All pairs by a graph search. Links that the index may miss are of pairs close to the threshold."""
    rng = np.random.default_rng(seed)
    base = rng.integers(0, 1 << 32, (4, 64), dtype=np.uint32)
    rows = base[rng.integers(0, 4, 16)]
    noise = rng.random(rows.shape) < rng.choice([0, 0.02, 0.2, 0.5], (16, 1))
    rows = np.where(noise, rng.integers(0, 1 << 32, rows.shape, dtype=np.uint32), rows)
    found = duplicates.near(rows, np.ones(16, bool), threshold)
    surely = min(threshold + (1 - threshold) / 2, 1.0)
    assert (
        set(later_of_clusters(rows, surely))
        <= set(np.flatnonzero(found).tolist())
        <= set(later_of_clusters(rows, threshold))
    )


def later_of_clusters(rows: np.ndarray, threshold: float) -> list[int]:
    alike = (rows[:, None] == rows[None]).mean(axis=2) >= threshold
    later = []
    for number in range(len(rows)):
        reached, todo = {number}, [number]
        while todo:
            new = set(np.flatnonzero(alike[todo.pop()]).tolist()) - reached
            reached, todo = reached | new, todo + sorted(new)
        later += [number] if min(reached) < number else []
    return later


@pytest.mark.parametrize("permutations", [16, 64, 128, 500])
@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.8, 0.95, 1.0])
def test_bands_fit_and_find_what_is_just_alike(threshold: float, permutations: int) -> None:
    count, length = duplicates.bands(threshold, permutations)
    assert count >= 2 and length >= 1 and count * length <= permutations
    assert 1 - (1 - threshold**length) ** count >= 0.95
    longer = permutations // (length + 1)
    assert longer < 2 or 1 - (1 - threshold ** (length + 1)) ** longer < 0.95


def test_exact_copies_are_told_from_near_ones() -> None:
    text = written(500, 0)
    row = texts_of([text, changed(text, list(range(10)))], [text, written(500, 1)])
    found = duplicates.kinds(row, everything(row), signatures.signatures(row, 5, 128), 0.8)
    assert found.tolist() == [0, NEAR, EXACT, 0]
    assert duplicates.kinds(row, everything(row), None, 0.8).tolist() == [0, 0, EXACT, 0]
    told = duplicates.account(row, found, True)
    assert told["source0"] == {
        "exact_documents": 0,
        "exact_tokens": 0,
        "near_documents": 1,
        "near_tokens": 500,
    }
    assert told["source1"] == {
        "exact_documents": 1,
        "exact_tokens": 500,
        "near_documents": 0,
        "near_tokens": 0,
    }
    assert duplicates.account(row, found, False)["source0"]["near_documents"] is None


def test_missing_package_is_told_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasketch", None)
    with pytest.raises(
        ConfigError, match=r"^data\.duplicates\.near is set; .*; pip install 'ropewalk\[dedup\]'"
    ):
        signatures.require()
