"""Which documents repeat an earlier one, exactly or nearly. Pure; the index of near ones is datasketch's."""

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from ropewalk.data.cleaning.documents import Texts
from ropewalk.data.tokens.store import Store

EXACT, NEAR = 1, 2
FOUND = 0.95  # chance that the index finds two documents which are just alike enough


def kinds(
    texts: Texts, among: np.ndarray, signatures: np.ndarray | None, threshold: float
) -> np.ndarray:
    """(documents,) uint8: EXACT or NEAR for those of `among` (documents,) bool that repeat an earlier one, else 0.

    Without signatures (documents, permutations) only exact ones are looked for; with them, near ones among the rest.
    """
    same = exact(texts, among)
    found = np.where(same, EXACT, 0).astype(np.uint8)
    if signatures is not None:
        found[near(signatures, among & ~same, threshold)] = NEAR
    return found


def account(texts: Texts, found: np.ndarray, near_looked_for: bool) -> dict[str, dict[str, Any]]:
    """Kinds -> the ledger's words, a source a row; None: not looked for."""
    rows: dict[str, dict[str, Any]] = {}
    for name, mine in texts.split(found).items():
        counts = {
            kind: (mine == kind, texts.stores[name].length[mine == kind]) for kind in (EXACT, NEAR)
        }
        rows[name] = {
            "exact_documents": int(counts[EXACT][0].sum()),
            "exact_tokens": int(counts[EXACT][1].sum()),
            "near_documents": int(counts[NEAR][0].sum()) if near_looked_for else None,
            "near_tokens": int(counts[NEAR][1].sum()) if near_looked_for else None,
        }
    return rows


def keys(store: Store) -> np.ndarray:
    """(documents,) uint64: equal for documents of the same tokens, and for hardly any others."""
    texts = (store.document(i) for i in range(len(store.length)))
    digests = b"".join(hashlib.blake2b(t.tobytes(), digest_size=8).digest() for t in texts)
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)


def exact(texts: Texts, among: np.ndarray) -> np.ndarray:
    """(documents,) bool: those of `among` (documents,) bool whose tokens are the same as an earlier one's in `among`.

    Equal keys are only where to look: the tokens are compared.
    """
    found = np.zeros(len(texts.length), dtype=bool)
    numbers = np.flatnonzero(among)
    key = np.concatenate([keys(s) for s in texts.stores.values()])[numbers]
    order = np.argsort(key, kind="stable")
    borders = np.flatnonzero(np.diff(key[order])) + 1
    for group in np.split(numbers[order], borders):
        if len(group) > 1:
            found[_repeats(texts, group.tolist())] = True
    return found


def _repeats(texts: Texts, group: list[int]) -> list[int]:
    """Documents of equal keys -> those that repeat an earlier one."""
    firsts: list[int] = []
    repeats: list[int] = []
    for number in group:
        same = any(np.array_equal(texts.document(number), texts.document(f)) for f in firsts)
        (repeats if same else firsts).append(number)
    return repeats


def near(signatures: np.ndarray, among: np.ndarray, threshold: float) -> np.ndarray:
    """(documents,) bool: those of `among` in a cluster with an earlier one.

    Two documents are linked when the index proposes them and the share of equal numbers in their signatures
    (documents, permutations), an unbiased estimate of the Jaccard similarity, is at least `threshold`. Links make clusters.
    """
    root = np.arange(len(signatures))
    for number, earlier in _proposed(signatures, np.flatnonzero(among).tolist(), threshold):
        alike = (signatures[earlier] == signatures[number]).mean(axis=1) >= threshold
        for other in earlier[alike].tolist():
            _join(root, number, other)
    return np.array([_root(root, i) != i for i in range(len(root))], dtype=bool)


def _proposed(
    signatures: np.ndarray, numbers: list[int], threshold: float
) -> Iterator[tuple[int, np.ndarray]]:
    """Each document with the earlier ones that share a band of their signatures with it."""
    from datasketch import LeanMinHash, MinHashLSH

    permutations = signatures.shape[1]
    index = MinHashLSH(num_perm=permutations, params=bands(threshold, permutations))
    for number in numbers:
        sketch = LeanMinHash(seed=1, hashvalues=signatures[number], scheme="affine32")
        if earlier := sorted(index.query(sketch)):
            yield number, np.array(earlier)
        index.insert(number, sketch, check_duplication=False)


def bands(threshold: float, permutations: int) -> tuple[int, int]:
    """Number and length of bands: the longest with which two documents of similarity `threshold` share one by a chance of FOUND.

    datasketch's own choice weighs misses against false proposals; ours are checked, so that only misses count.
    """

    def chance(length: int) -> float:
        return 1 - (1 - threshold**length) ** (permutations // length)

    length = max((r for r in range(1, permutations // 2 + 1) if chance(r) >= FOUND), default=1)
    return permutations // length, length


def _root(root: np.ndarray, number: int) -> int:
    while root[number] != number:
        root[number] = root[root[number]]
        number = int(root[number])
    return number


def _join(root: np.ndarray, one: int, other: int) -> None:
    """Two clusters become one, under the earlier of their first documents."""
    low, high = sorted((_root(root, one), _root(root, other)))
    root[high] = low
