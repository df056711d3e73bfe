"""64-bit hashes of token n-grams, for documents of any length in bounded memory. Pure."""

from collections.abc import Iterable, Iterator

import numpy as np

from ropewalk.data import hash_random
from ropewalk.data.sources.units import grouped_by_size
from ropewalk.data.tokens.corpus import Corpus

CHUNK = 1 << 17  # tokens hashed at once: the arrays of a step stay in the processor's cache
_BASE = 0x9E3779B97F4A7C15  # odd, so that no token is shifted out

Span = tuple[int, int, int]  # document, start, tokens


def hashes(ids: np.ndarray, n: int) -> np.ndarray:
    """(tokens - n + 1,) uint64: the polynomial hash (Karp and Rabin 1987) of every n-gram.

    Of scrambled tokens, modulo 2**64, grown from one token to `n` by doubling: about 2 log2(n)
    passes over the array.
    """
    if len(ids) < n:
        return np.empty(0, np.uint64)
    single = hash_random.splitmix64(ids.astype(np.uint64))
    hashed, size = single, 1
    for bit in bin(n)[3:]:
        hashed, size = hashed[:-size] * _power(size) + hashed[size:], 2 * size
        if bit == "1":
            hashed, size = hashed[:-1] * _power(1) + single[size:], size + 1
    return hashed


def _power(exponent: int) -> np.uint64:
    return np.uint64(pow(_BASE, exponent, 1 << 64))


def batches(
    corpus: Corpus, documents: Iterable[int], n: int, chunk: int = CHUNK
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Every n-gram of `documents` in order as `(document, hash)`, (k,) each, `chunk` tokens a time.

    A document shorter than `n` has none. The n-grams do not depend on `chunk`.
    """
    all_spans = _spans(corpus, documents, n, chunk)
    for spans in grouped_by_size(all_spans, lambda span: span[2], chunk):
        ids = np.concatenate([corpus.document(*span) for span in spans])
        document = np.array([span[0] for span in spans])
        sizes = np.array([span[2] for span in spans])
        in_one_span = np.ones(len(ids), dtype=bool)  # the n-gram from here ends in its span
        for offset in range(1, n):
            in_one_span[np.cumsum(sizes) - offset] = False
        yield np.repeat(document, sizes - n + 1), hashes(ids, n)[np.flatnonzero(in_one_span)]


def _spans(corpus: Corpus, documents: Iterable[int], n: int, chunk: int) -> Iterator[Span]:
    """Long documents in spans that overlap by n - 1 tokens, so that no n-gram is lost."""
    for number in documents:
        length = int(corpus.length[number])
        for start in range(0, length - n + 1, chunk):
            yield number, start, min(chunk + n - 1, length - start)
