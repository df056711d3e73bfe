"""Hashes of the n-grams of tokens, 64 bits each, for documents of any length in bounded memory. Pure."""

from collections.abc import Iterable, Iterator

import numpy as np

from ropewalk.data import hash_random
from ropewalk.data.cleaning.documents import Texts

CHUNK = 1 << 17  # tokens hashed at once: the arrays of a step stay in the processor's cache
_BASE = 0x9E3779B97F4A7C15  # odd, so that no token is shifted out

Span = tuple[int, int, int]  # document, start, tokens


def hashes(ids: np.ndarray, n: int) -> np.ndarray:
    """(tokens - n + 1,) uint64: the polynomial hash (Karp and Rabin 1987) of `n` scrambled tokens from each place on.

    Modulo 2**64, grown from one token to n by doubling: about 2 log2(n) passes over the array.
    """
    if len(ids) < n:
        return np.empty(0, np.uint64)
    single = hash_random.splitmix64(ids.astype(np.uint64))
    found, size = single, 1
    for bit in bin(n)[3:]:
        found, size = found[:-size] * _power(size) + found[size:], 2 * size
        if bit == "1":
            found, size = found[:-1] * _power(1) + single[size:], size + 1
    return found


def _power(exponent: int) -> np.uint64:
    return np.uint64(pow(_BASE, exponent, 1 << 64))


def batches(
    texts: Texts, documents: Iterable[int], n: int, chunk: int = CHUNK
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Every n-gram of `documents` as `(document, hash)`, (k,) each, in order, from about `chunk` tokens at a time.

    A document shorter than n has none. The n-grams do not depend on `chunk`.
    """
    for spans in _grouped(_spans(texts, documents, n, chunk), chunk):
        ids = np.concatenate([texts.document(*span) for span in spans])
        owner, sizes = np.array([s[0] for s in spans]), np.array([s[2] for s in spans])
        whole = np.ones(
            len(ids), dtype=bool
        )  # places from which n tokens of the same document follow
        for back in range(1, n):
            whole[np.cumsum(sizes) - back] = False
        kept = np.flatnonzero(whole)
        yield np.repeat(owner, sizes - n + 1), hashes(ids, n)[kept]


def _spans(texts: Texts, documents: Iterable[int], n: int, chunk: int) -> Iterator[Span]:
    """Long documents in parts that overlap by n - 1 tokens, so that each n-gram stands in one part."""
    for number in documents:
        length = int(texts.length[number])
        for start in range(0, length - n + 1, chunk):
            yield number, start, min(chunk + n - 1, length - start)


def _grouped(spans: Iterable[Span], chunk: int) -> Iterator[list[Span]]:
    group: list[Span] = []
    size = 0
    for span in spans:
        group.append(span)
        size += span[2]
        if size >= chunk:
            yield group
            group, size = [], 0
    if group:
        yield group
