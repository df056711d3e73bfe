"""Chance by hash: a number for each document that depends on the seed and the document alone. Pure.

So a mixture is the same in any order of reading and for any number of workers, and one more document moves no other.
"""

import hashlib

import numpy as np

_ODD = np.uint64(0x9E3779B97F4A7C15)  # splitmix64's step (Steele et al. 2014)
_MIX = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1))


def document_key(text: str) -> int:
    """The 64-bit number of a document's id."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def sort_keys(seed: int, label: str, keys: np.ndarray, epoch: int | np.ndarray = 0) -> np.ndarray:
    """(documents,) uint64, as good as drawn anew for every seed, label and epoch, from `keys` (documents,) uint64."""
    salted = splitmix64(keys.astype(np.uint64) ^ np.uint64(document_key(f"{seed}:{label}")))
    return splitmix64(salted + _ODD * np.asarray(epoch, dtype=np.uint64))


def splitmix64(numbers: np.ndarray) -> np.ndarray:
    """uint64 -> uint64, one to one; close numbers come out far apart."""
    found = numbers + _ODD
    for shift, factor in _MIX:
        found = (found ^ (found >> np.uint64(shift))) * np.uint64(factor)
    return found
