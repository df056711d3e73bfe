"""Exact and near duplicates, compared with equal tuples and the exact Jaccard similarity."""

import random
import sys
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stores import in_memory, no_progress

from ropewalk.conf.errors import ConfigError
from ropewalk.data.cleaning import duplicates, minhash
from ropewalk.data.cleaning.duplicates import EXACT, NEAR
from ropewalk.data.tokens.corpus import Corpus

Ids = list[int]


def corpus_of(*sources: list[Ids]) -> Corpus:
    return Corpus({f"source{i}": in_memory(texts) for i, texts in enumerate(sources)})


def everything(corpus: Corpus) -> np.ndarray:
    return np.ones(len(corpus.length), dtype=bool)


def jaccard(first: Ids, other: Ids, n: int) -> float:
    a, b = ({tuple(t[i : i + n]) for i in range(len(t) - n + 1)} for t in (first, other))
    return len(a & b) / len(a | b)


def random_ids(length: int, seed: int) -> Ids:
    rng = random.Random(seed)
    return [rng.randrange(5000) for _ in range(length)]


def changed(text: Ids, positions: list[int]) -> Ids:
    return [5000 + i if i in set(positions) else token for i, token in enumerate(text)]


few = st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=3), min_size=1, max_size=12)


@pytest.mark.parametrize("colliding", [False, True])
def test_exact_duplicates_have_the_tokens_of_an_earlier_document(
    colliding: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when every document has the same key."""
    if colliding:
        monkeypatch.setattr(
            duplicates,
            "content_hashes",
            lambda store: np.full(len(store.length), 7, dtype=np.uint64),
        )

    @settings(max_examples=60, deadline=None)
    @given(first=few, second=few, data=st.data())
    def holds(first: list[Ids], second: list[Ids], data: st.DataObject) -> None:
        size = len(first) + len(second)
        eligible = data.draw(st.lists(st.booleans(), min_size=size, max_size=size))
        seen: set[tuple[int, ...]] = set()
        expected = []
        for text, is_eligible in zip(first + second, eligible, strict=True):
            expected.append(is_eligible and tuple(text) in seen)
            seen |= {tuple(text)} if is_eligible else set()
        assert (
            duplicates.exact_duplicates(corpus_of(first, second), np.array(eligible)).tolist()
            == expected
        )

    holds()


def test_the_first_source_keeps_its_copy() -> None:
    first, second = [[1, 2], [3]], [[4], [1, 2]]
    assert duplicates.exact_duplicates(corpus_of(first, second), np.ones(4, bool)).tolist() == [
        False,
        False,
        False,
        True,
    ]
    assert duplicates.exact_duplicates(corpus_of(second, first), np.ones(4, bool)).tolist() == [
        False,
        False,
        True,
        False,
    ]


def test_the_estimate_is_within_its_error_of_the_exact_similarity() -> None:
    """Standard error sqrt(J (1 - J) / P); four of them on each of 45 pairs."""
    rng, text = random.Random(1), random_ids(2000, 0)
    versions = [
        changed(text, rng.sample(range(2000), k))
        for k in (0, 5, 10, 20, 40, 60, 100, 200, 400, 800)
    ]
    result = minhash.signatures(corpus_of(versions), 5, 512, no_progress)
    for a, b in combinations(range(len(versions)), 2):
        exact = jaccard(versions[a], versions[b], 5)
        estimate = float((result[a] == result[b]).mean())
        assert abs(estimate - exact) <= 4 * (exact * (1 - exact) / 512) ** 0.5 + 1e-12


def test_signatures_are_datasketchs_own_of_the_same_set() -> None:
    from datasketch import MinHash

    from ropewalk.data.cleaning.ngrams import hashes

    text = random_ids(300, 3)
    peer = MinHash(num_perm=64, seed=1, hashfunc=lambda number: number)
    for value in {h >> 32 for h in hashes(np.array(text, dtype=np.uint16), 5).tolist()}:
        peer.update(value)
    assert (
        minhash.signatures(corpus_of([text]), 5, 64, no_progress)[0].tolist()
        == peer.hashvalues.tolist()
    )


@settings(max_examples=20, deadline=None)
@given(chunk=st.integers(1, 400), within=st.integers(1, 400))
def test_signatures_are_the_same_for_any_chunk(chunk: int, within: int) -> None:
    corpus = corpus_of(
        [random_ids(300, 1), [1], random_ids(40, 2)], [random_ids(7, 3), [2, 3, 4, 5]]
    )
    expected = minhash.signatures(corpus, 5, 16, no_progress)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(minhash, "NGRAMS_AT_ONCE", within)
        assert np.array_equal(minhash.signatures(corpus, 5, 16, no_progress, chunk), expected)


def near_of(threshold: float, *texts: Ids) -> list[bool]:
    corpus = corpus_of(list(texts))
    return duplicates.near_duplicates(
        minhash.signatures(corpus, 5, 128, no_progress), everything(corpus), threshold
    ).tolist()


def test_planted_near_duplicate_is_found_and_an_unrelated_document_is_not() -> None:
    """5% of the words changed, in one passage: nine tenths of the 5-grams are common."""
    text = random_ids(2000, 0)
    edition = changed(text, list(range(700, 800)))
    assert jaccard(text, edition, 5) == pytest.approx(0.9, abs=0.01)
    assert near_of(0.8, text, random_ids(2000, 1), edition) == [False, False, True]


def test_each_scattered_change_costs_five_ngrams() -> None:
    """5% of single words leave 0.63, below 0.8, as the setting's doc says; 2% stay above."""
    text, rng = random_ids(3000, 0), random.Random(2)
    first, few = (changed(text, rng.sample(range(3000), k)) for k in (150, 50))
    assert jaccard(text, first, 5) == pytest.approx(0.63, abs=0.02)
    assert near_of(0.8, text, first) == [False, False]
    assert near_of(0.5, text, first) == [False, True]
    assert near_of(0.8, text, few) == [False, True]


def test_short_documents_are_duplicates_only_when_equal() -> None:
    assert near_of(0.8, [1, 2], [1, 2, 3], [1, 2], random_ids(50, 1), [1, 2, 3, 4]) == [
        False,
        False,
        True,
        False,
        False,
    ]


def test_one_document_of_a_cluster_stays_the_first() -> None:
    """A chain whose middle is linked to both ends, which differ, and an unrelated document."""
    row = np.arange(100, dtype=np.uint32)
    middle, end = row.copy(), row.copy()
    middle[:15], end[:30] = 1000, 1000
    other = row + 5000
    result = duplicates.near_duplicates(np.stack([end, other, row, middle]), np.ones(4, bool), 0.8)
    assert result.tolist() == [False, False, True, True]
    assert (
        duplicates.near_duplicates(np.stack([end, other, row]), np.ones(3, bool), 0.8).tolist()
        == [False] * 3
    )
    assert not duplicates.near_duplicates(
        np.stack([end, other, row, middle]), np.array([1, 1, 1, 0], bool), 0.8
    ).any()


@settings(max_examples=30, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6), threshold=st.sampled_from([0.4, 0.6, 0.8, 1.0]))
def test_the_result_equals_a_search_of_all_pairs_but_for_misses_of_the_index(
    seed: int, threshold: float
) -> None:
    """All pairs by a graph search. The index may miss only pairs close to the threshold."""
    rng = np.random.default_rng(seed)
    base = rng.integers(0, 1 << 32, (4, 64), dtype=np.uint32)
    rows = base[rng.integers(0, 4, 16)]
    noise = rng.random(rows.shape) < rng.choice([0, 0.02, 0.2, 0.5], (16, 1))
    rows = np.where(noise, rng.integers(0, 1 << 32, rows.shape, dtype=np.uint32), rows)
    result = duplicates.near_duplicates(rows, np.ones(16, bool), threshold)
    surely = min(threshold + (1 - threshold) / 2, 1.0)
    assert (
        set(later_of_clusters(rows, surely))
        <= set(np.flatnonzero(result).tolist())
        <= set(later_of_clusters(rows, threshold))
    )


def later_of_clusters(rows: np.ndarray, threshold: float) -> list[int]:
    alike = (rows[:, None] == rows[None]).mean(axis=2) >= threshold
    later = []
    for number in range(len(rows)):
        reached, pending = {number}, [number]
        while pending:
            new = set(np.flatnonzero(alike[pending.pop()]).tolist()) - reached
            reached, pending = reached | new, pending + sorted(new)
        later += [number] if min(reached) < number else []
    return later


@pytest.mark.parametrize("permutations", [16, 64, 128, 500])
@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.8, 0.95, 1.0])
def test_bands_fit_and_reach_the_recall(threshold: float, permutations: int) -> None:
    count, length = duplicates.bands(threshold, permutations)
    assert count >= 2 and length >= 1 and count * length <= permutations
    assert 1 - (1 - threshold**length) ** count >= 0.95
    longer = permutations // (length + 1)
    assert longer < 2 or 1 - (1 - threshold ** (length + 1)) ** longer < 0.95


def test_exact_and_near_copies_are_distinguished() -> None:
    text = random_ids(500, 0)
    corpus = corpus_of([text, changed(text, list(range(10)))], [text, random_ids(500, 1)])
    result = duplicates.find_duplicates(
        corpus, everything(corpus), minhash.signatures(corpus, 5, 128, no_progress), 0.8
    )
    assert result.tolist() == [0, NEAR, EXACT, 0]
    assert duplicates.find_duplicates(corpus, everything(corpus), None, 0.8).tolist() == [
        0,
        0,
        EXACT,
        0,
    ]
    rows = duplicates.ledger_rows(corpus, result, True)
    assert rows["source0"] == {
        "exact_documents": 0,
        "exact_tokens": 0,
        "near_documents": 1,
        "near_tokens": 500,
    }
    assert rows["source1"] == {
        "exact_documents": 1,
        "exact_tokens": 500,
        "near_documents": 0,
        "near_tokens": 0,
    }
    assert duplicates.ledger_rows(corpus, result, False)["source0"]["near_documents"] is None


def test_missing_package_is_refused_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasketch", None)
    with pytest.raises(
        ConfigError, match=r"^data\.duplicates\.near is set; .*; pip install 'ropewalk\[dedup\]'"
    ):
        minhash.require_datasketch()
