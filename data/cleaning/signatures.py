"""MinHash signatures (Broder 1997) of a store's documents, by datasketch, from the n-grams of their tokens."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ropewalk.conf.errors import ConfigError
from ropewalk.data.cleaning import ngrams
from ropewalk.data.cleaning.documents import Texts

AT_ONCE = 1 << 12  # n-grams permuted at once: `permutations` numbers of 4 bytes each


def require() -> None:
    """Raises: ConfigError without datasketch."""
    try:
        import datasketch  # noqa: F401
    except ImportError:
        raise ConfigError(
            "data.duplicates.near is set; it needs datasketch, which is not installed; pip install 'ropewalk[dedup]' or "
            "data.duplicates.near=off"
        ) from None


def signatures(
    texts: Texts,
    n: int,
    permutations: int,
    chunk: int = ngrams.CHUNK,
    tell: Callable[[int], Any] = lambda _: None,
) -> np.ndarray:
    """(documents, permutations) uint32. A document shorter than `n` tokens is one n-gram of its own length.

    `tell(tokens)` shows progress.
    """
    from datasketch import MinHash

    empty = MinHash(num_perm=permutations, seed=1, hashfunc=_same, scheme="affine32")
    found = np.tile(empty.hashvalues, (len(texts.length), 1))
    for number in np.flatnonzero(texts.length < n).tolist():
        ids = texts.document(number)
        found[number] = _updated(empty, found[number], ngrams.hashes(ids, len(ids)))
    for owners, hashed in ngrams.batches(
        texts, np.flatnonzero(texts.length >= n).tolist(), n, chunk
    ):
        for number, part in _by_document(owners, hashed):
            found[number] = _updated(empty, found[number], part)
        tell(len(hashed))
    return found


def _by_document(owners: np.ndarray, hashed: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    borders = np.flatnonzero(np.diff(owners)) + 1
    firsts = owners[np.concatenate([[0], borders])].tolist()
    return zip(firsts, np.split(hashed, borders), strict=True)


def _updated(empty: Any, signature: np.ndarray, hashed: np.ndarray) -> np.ndarray:
    """A signature with more n-grams in its document. datasketch takes 32 bits of each hash."""
    sketch = empty.copy()
    sketch.hashvalues = signature
    for low in range(0, len(hashed), AT_ONCE):
        sketch.update_batch((hashed[low : low + AT_ONCE] >> np.uint64(32)).tolist())
    return sketch.hashvalues  # type: ignore[no-any-return]


def _same(number: int) -> int:
    return number
