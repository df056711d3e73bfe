"""A hash as randomness: a number for each document from the seed and the document alone. Pure.

So a mixture is the same for any order of reading and any number of workers, and a new document does
not change the draws of the others.
"""

import hashlib

import numpy as np

_INCREMENT = np.uint64(0x9E3779B97F4A7C15)  # splitmix64 (Steele et al. 2014)
_ROUNDS = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1))  # (shift, factor)


def document_key(text: str) -> int:
    """The 64-bit hash of a document's id."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def sort_keys(seed: int, label: str, keys: np.ndarray, epoch: int | np.ndarray = 0) -> np.ndarray:
    """(documents,) uint64 pseudo-random numbers from `keys` (documents,) uint64.

    They are independent for every seed, label and epoch.
    """
    salted = splitmix64(keys.astype(np.uint64) ^ np.uint64(document_key(f"{seed}:{label}")))
    return splitmix64(salted + _INCREMENT * np.asarray(epoch, dtype=np.uint64))


def splitmix64(numbers: np.ndarray) -> np.ndarray:
    """uint64 -> uint64, one to one; close inputs give distant outputs."""
    hashed = numbers + _INCREMENT
    shifted = np.empty_like(hashed)
    for shift, factor in _ROUNDS:
        np.right_shift(hashed, np.uint64(shift), out=shifted)
        hashed ^= shifted
        hashed *= np.uint64(factor)
    return hashed
