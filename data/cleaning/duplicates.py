"""Documents that repeat an earlier one, exactly or nearly. Pure; datasketch indexes near ones."""

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from ropewalk.data.tokens.corpus import Corpus
from ropewalk.data.tokens.store import Store

EXACT, NEAR = 1, 2
RECALL = 0.95  # probability that the index proposes a pair exactly at the threshold


def find_duplicates(
    corpus: Corpus, eligible: np.ndarray, signatures: np.ndarray | None, threshold: float
) -> np.ndarray:
    """(documents,) uint8: EXACT or NEAR for `eligible` documents that repeat an earlier one.

    `eligible` is (documents,) bool; 0 marks every other document. Near duplicates are searched
    after the exact ones, by signatures (documents, permutations); None: exact only.
    """
    is_exact = exact_duplicates(corpus, eligible)
    kinds = np.where(is_exact, EXACT, 0).astype(np.uint8)
    if signatures is not None:
        kinds[near_duplicates(signatures, eligible & ~is_exact, threshold)] = NEAR
    return kinds


def ledger_rows(
    corpus: Corpus, kinds: np.ndarray, near_searched: bool
) -> dict[str, dict[str, Any]]:
    """Source -> counts for the ledger of the `kinds` from `find_duplicates`; None: not searched."""
    rows: dict[str, dict[str, Any]] = {}
    for name, source_kinds in corpus.by_source(kinds).items():
        length = corpus.stores[name].length
        exact, near = source_kinds == EXACT, source_kinds == NEAR
        rows[name] = {
            "exact_documents": int(exact.sum()),
            "exact_tokens": int(length[exact].sum()),
            "near_documents": int(near.sum()) if near_searched else None,
            "near_tokens": int(length[near].sum()) if near_searched else None,
        }
    return rows


def content_hashes(store: Store) -> np.ndarray:
    """(documents,) uint64: equal for documents of equal tokens."""
    documents = (store.document(index) for index in range(len(store.length)))
    digests = (hashlib.blake2b(ids.tobytes(), digest_size=8).digest() for ids in documents)
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64)


def exact_duplicates(corpus: Corpus, eligible: np.ndarray) -> np.ndarray:
    """(documents,) bool: `eligible` documents whose tokens equal those of an earlier eligible one.

    Equal hashes only propose pairs: the tokens are compared.
    """
    result = np.zeros(len(corpus.length), dtype=bool)
    numbers = np.flatnonzero(eligible)
    hashed = np.concatenate([content_hashes(s) for s in corpus.stores.values()])[numbers]
    order = np.argsort(hashed, kind="stable")
    borders = np.flatnonzero(np.diff(hashed[order])) + 1
    for group in np.split(numbers[order], borders):
        if len(group) > 1:
            result[_repeats(corpus, group.tolist())] = True
    return result


def _repeats(corpus: Corpus, group: list[int]) -> list[int]:
    """The documents of a group with equal hashes that repeat an earlier one."""
    firsts: list[int] = []
    repeats: list[int] = []
    for number in group:
        ids = corpus.document(number)
        if any(np.array_equal(ids, corpus.document(first)) for first in firsts):
            repeats.append(number)
        else:
            firsts.append(number)
    return repeats


def near_duplicates(signatures: np.ndarray, eligible: np.ndarray, threshold: float) -> np.ndarray:
    """(documents,) bool: `eligible` documents in a cluster with an earlier one.

    The index proposes pairs. A pair is linked when the share of equal numbers in their signatures
    (documents, permutations), an unbiased estimate of the Jaccard similarity, is at least
    `threshold`. Linked documents form clusters.
    """
    root = np.arange(len(signatures))
    for number, earlier in _proposals(signatures, np.flatnonzero(eligible).tolist(), threshold):
        similar = (signatures[earlier] == signatures[number]).mean(axis=1) >= threshold
        for other in earlier[similar].tolist():
            _join(root, number, other)
    return np.array([_root(root, number) != number for number in range(len(root))], dtype=bool)


def _proposals(
    signatures: np.ndarray, numbers: list[int], threshold: float
) -> Iterator[tuple[int, np.ndarray]]:
    """Each document with the earlier ones that share a band of its signature."""
    from datasketch import LeanMinHash, MinHashLSH

    permutations = signatures.shape[1]
    index = MinHashLSH(num_perm=permutations, params=bands(threshold, permutations))
    for number in numbers:
        sketch = LeanMinHash(seed=1, hashvalues=signatures[number], scheme="affine32")
        if earlier := sorted(index.query(sketch)):
            yield number, np.array(earlier)
        index.insert(number, sketch, check_duplication=False)


def bands(threshold: float, permutations: int) -> tuple[int, int]:
    """Number and length of the index's bands: the longest that reach RECALL at the threshold.

    datasketch's own choice weighs misses against false proposals; ours are checked, so only misses
    count.
    """

    def recall(length: int) -> float:
        return 1 - (1 - threshold**length) ** (permutations // length)

    lengths = range(1, permutations // 2 + 1)
    length = max((length for length in lengths if recall(length) >= RECALL), default=1)
    return permutations // length, length


def _root(root: np.ndarray, number: int) -> int:
    """The first document of a cluster (union-find with path halving)."""
    while root[number] != number:
        root[number] = root[root[number]]
        number = int(root[number])
    return number


def _join(root: np.ndarray, number: int, other: int) -> None:
    """Join two clusters under the earlier of their first documents."""
    low, high = sorted((_root(root, number), _root(root, other)))
    root[high] = low
