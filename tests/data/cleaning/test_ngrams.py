"""n-grams and their hashes, held against tuples of tokens in Python's sets and lists."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ropewalk.data.cleaning import ngrams
from ropewalk.data.cleaning.documents import Texts
from ropewalk.data.tokens.store import Store

documents = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=40), min_size=1, max_size=8)


def store_of(
    texts: list[list[int]], heldout: list[bool] | None = None, fingerprint: str = ""
) -> Store:
    lengths = np.array([len(t) for t in texts], dtype=np.int64)
    held = np.array(heldout if heldout is not None else [False] * len(texts), dtype=bool)
    tokens = np.array([token for text in texts for token in text], dtype=np.uint16)
    offsets = np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64)
    ids = [f"{i}.txt" for i in range(len(texts))]
    return Store(
        tokens, offsets, lengths, held, np.arange(len(texts), dtype=np.uint64), ids, {}, fingerprint
    )


def grams(text: list[int], n: int) -> list[tuple[int, ...]]:
    return [tuple(text[i : i + n]) for i in range(len(text) - n + 1)]


@settings(max_examples=60, deadline=None)
@given(texts=documents, n=st.integers(1, 12))
def test_two_ngrams_have_one_hash_exactly_when_their_tokens_are_equal(
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
    """Computed in Python's whole numbers, one n-gram at a time."""
    mask, base = (1 << 64) - 1, 0x9E3779B97F4A7C15

    def splitmix(x: int) -> int:
        x = (x + base) & mask
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
        return x ^ (x >> 31)

    text = np.random.default_rng(n).integers(0, 1 << 17, 60).tolist()
    wanted = []
    for gram in grams(text, n):
        value = 0
        for token in gram:
            value = (value * base + splitmix(token)) & mask
        wanted.append(value)
    assert ngrams.hashes(np.array(text, dtype=np.uint32), n).tolist() == wanted


@settings(max_examples=60, deadline=None)
@given(one=documents, two=documents, n=st.integers(1, 7), chunk=st.integers(1, 60))
def test_each_ngram_of_each_document_comes_once_in_order_for_any_chunk(
    one: list[list[int]], two: list[list[int]], n: int, chunk: int
) -> None:
    texts = Texts({"one": store_of(one), "two": store_of(two)})
    asked = list(range(0, len(one) + len(two), 2))
    wanted = [(d, g) for d in asked for g in grams((one + two)[d], n)]
    found = [
        pair
        for o, h in ngrams.batches(texts, asked, n, chunk)
        for pair in zip(o.tolist(), h.tolist(), strict=True)
    ]
    assert [d for d, _ in found] == [d for d, _ in wanted]
    assert len({(g, h) for (_, g), (_, h) in zip(wanted, found, strict=True)}) == len(
        {g for _, g in wanted}
    )


def test_a_batch_is_bounded_for_a_document_of_any_length() -> None:
    texts = Texts({"one": store_of([list(range(50_000)), [1, 2, 3]])})
    sizes = [len(hashed) for _, hashed in ngrams.batches(texts, [0, 1], 3, 1000)]
    assert max(sizes) <= 1000 + 1 and sum(sizes) == 49_998 + 1


def test_documents_are_numbered_through_the_sources() -> None:
    texts = Texts(
        {"one": store_of([[1], [2, 2]]), "none": store_of([]), "two": store_of([[3, 4, 5]], [True])}
    )
    assert [texts.locate(i) for i in range(3)] == [("one", 0), ("one", 1), ("two", 0)]
    assert [texts.document(i).tolist() for i in range(3)] == [[1], [2, 2], [3, 4, 5]]
    assert texts.document(2, 1, 1).tolist() == [4]
    assert (texts.length.tolist(), texts.heldout.tolist()) == ([1, 2, 3], [False, False, True])
    split = {n: part.tolist() for n, part in texts.split(np.array([7, 8, 9])).items()}
    assert split == {"one": [7, 8], "none": [], "two": [9]}
