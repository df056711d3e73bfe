"""n-grams and their hashes, compared with tuples of tokens in Python's sets and lists."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stores import in_memory

from ropewalk.data.cleaning import ngrams
from ropewalk.data.tokens.corpus import Corpus

documents = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=40), min_size=1, max_size=8)


def grams(text: list[int], n: int) -> list[tuple[int, ...]]:
    return [tuple(text[i : i + n]) for i in range(len(text) - n + 1)]


@settings(max_examples=60, deadline=None)
@given(texts=documents, n=st.integers(1, 12))
def test_ngrams_have_equal_hashes_exactly_when_their_tokens_are_equal(
    texts: list[list[int]], n: int
) -> None:
    pairs = set()
    for text in texts:
        hashed = ngrams.hashes(np.array(text, dtype=np.uint16), n).tolist()
        assert len(hashed) == max(len(text) - n + 1, 0)
        pairs |= set(zip(grams(text, n), hashed, strict=True))
    assert len(pairs) == len({g for g, _ in pairs}) == len({h for _, h in pairs})


@pytest.mark.parametrize("n", [1, 2, 5, 13, 32, 50])
def test_a_hash_is_the_polynomial_of_its_tokens(n: int) -> None:
    """Computed in Python's integers, one n-gram at a time."""
    mask, base = (1 << 64) - 1, 0x9E3779B97F4A7C15

    def splitmix(x: int) -> int:
        x = (x + base) & mask
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
        return x ^ (x >> 31)

    text = np.random.default_rng(n).integers(0, 1 << 17, 60).tolist()
    expected = []
    for gram in grams(text, n):
        value = 0
        for token in gram:
            value = (value * base + splitmix(token)) & mask
        expected.append(value)
    assert ngrams.hashes(np.array(text, dtype=np.uint32), n).tolist() == expected


@settings(max_examples=60, deadline=None)
@given(first=documents, second=documents, n=st.integers(1, 7), chunk=st.integers(1, 60))
def test_each_ngram_occurs_once_in_order_for_any_chunk(
    first: list[list[int]], second: list[list[int]], n: int, chunk: int
) -> None:
    corpus = Corpus({"one": in_memory(first), "two": in_memory(second)})
    numbers = list(range(0, len(first) + len(second), 2))
    expected = [(d, g) for d in numbers for g in grams((first + second)[d], n)]
    pairs = [
        pair
        for o, h in ngrams.batches(corpus, numbers, n, chunk)
        for pair in zip(o.tolist(), h.tolist(), strict=True)
    ]
    assert [d for d, _ in pairs] == [d for d, _ in expected]
    assert len({(g, h) for (_, g), (_, h) in zip(expected, pairs, strict=True)}) == len(
        {g for _, g in expected}
    )


def test_a_batch_is_bounded_for_a_document_of_any_length() -> None:
    corpus = Corpus({"one": in_memory([list(range(50_000)), [1, 2, 3]])})
    sizes = [len(hashed) for _, hashed in ngrams.batches(corpus, [0, 1], 3, 1000)]
    assert max(sizes) <= 1000 + 1 and sum(sizes) == 49_998 + 1


def test_documents_are_numbered_through_the_sources() -> None:
    corpus = Corpus(
        {
            "one": in_memory([[1], [2, 2]]),
            "none": in_memory([]),
            "two": in_memory([[3, 4, 5]], [True]),
        }
    )
    assert [corpus.locate(i) for i in range(3)] == [("one", 0), ("one", 1), ("two", 0)]
    assert [corpus.document(i).tolist() for i in range(3)] == [[1], [2, 2], [3, 4, 5]]
    assert corpus.document(2, 1, 1).tolist() == [4]
    assert (corpus.length.tolist(), corpus.heldout.tolist()) == ([1, 2, 3], [False, False, True])
    split = {n: part.tolist() for n, part in corpus.by_source(np.array([7, 8, 9])).items()}
    assert split == {"one": [7, 8], "none": [], "two": [9]}
