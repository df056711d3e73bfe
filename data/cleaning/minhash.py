"""MinHash signatures (Broder 1997) of documents from their token n-grams, by datasketch."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from ropewalk.conf.errors import ConfigError
from ropewalk.data.cleaning import ngrams
from ropewalk.data.tokens.corpus import Corpus

if TYPE_CHECKING:
    from datasketch import MinHash

NGRAMS_AT_ONCE = 1 << 12  # each gives `permutations` numbers of 4 bytes


def require_datasketch() -> None:
    """Raises: ConfigError when datasketch is not installed."""
    try:
        import datasketch  # noqa: F401
    except ImportError:
        raise ConfigError(
            "data.duplicates.near is set; it needs datasketch, which is not installed; "
            "pip install 'ropewalk[dedup]' or data.duplicates.near=off"
        ) from None


def signatures(
    corpus: Corpus,
    n: int,
    permutations: int,
    on_progress: Callable[[int], Any],
    chunk: int = ngrams.CHUNK,
) -> np.ndarray:
    """(documents, permutations) uint32. A document shorter than `n` tokens is one n-gram.

    `on_progress` receives the tokens of each batch.
    """
    from datasketch import MinHash

    empty = MinHash(num_perm=permutations, seed=1, hashfunc=_identity, scheme="affine32")
    result = np.tile(empty.hashvalues, (len(corpus.length), 1))
    for number in np.flatnonzero(corpus.length < n).tolist():
        ids = corpus.document(number)
        result[number] = _updated(empty, result[number], ngrams.hashes(ids, len(ids)))
    long_enough = np.flatnonzero(corpus.length >= n).tolist()
    for documents, hashed in ngrams.batches(corpus, long_enough, n, chunk):
        for number, part in _by_document(documents, hashed):
            result[number] = _updated(empty, result[number], part)
        on_progress(len(hashed))
    return result


def _by_document(documents: np.ndarray, hashed: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    borders = np.flatnonzero(np.diff(documents)) + 1
    firsts = documents[np.concatenate([[0], borders])].tolist()
    return zip(firsts, np.split(hashed, borders), strict=True)


def _updated(empty: "MinHash", signature: np.ndarray, hashed: np.ndarray) -> np.ndarray:
    """The signature with more n-grams in its document. datasketch takes 32 bits of a hash."""
    sketch = empty.copy()
    sketch.hashvalues = signature
    for low in range(0, len(hashed), NGRAMS_AT_ONCE):
        sketch.update_batch((hashed[low : low + NGRAMS_AT_ONCE] >> np.uint64(32)).tolist())
    return sketch.hashvalues  # type: ignore[no-any-return]


def _identity(number: int) -> int:
    return number
