"""How much of the held-out documents stands in training documents, and the other way round, by n-grams of tokens. Pure."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from ropewalk.conf.errors import DataError
from ropewalk.data.cleaning.documents import Texts
from ropewalk.data.cleaning.ngrams import CHUNK, batches

SPARSE = 16  # places of the table for each n-gram: that many of the strangers are turned away at the door
MOST_PLACES = 28  # bits: 256 MiB
WORST = 5  # documents that the ledger names on each side, whatever their share


class Grams:
    """A set of 64-bit hashes, sorted, behind a table of their first bits: nearly every question ends at the table."""

    def __init__(self, found: Iterable[np.ndarray]) -> None:
        ordered = np.sort(
            np.concatenate([np.empty(0, np.uint64), *found])
        )  # np.unique takes twenty times as long
        self.hashes = ordered[np.append(ordered[1:] != ordered[:-1], True)[: len(ordered)]]
        bits = min(max((SPARSE * len(self.hashes)).bit_length(), 8), MOST_PLACES)
        self.shift = np.uint64(64 - bits)
        self.table = np.zeros(1 << bits, dtype=bool)
        self.table[(self.hashes >> self.shift).astype(np.int64)] = True

    def find(self, asked: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Which of `asked` (k,) are in the set, and where: two arrays of indices, into `asked` and into `hashes`."""
        likely = np.flatnonzero(self.table[(asked >> self.shift).astype(np.int64)])
        places = np.searchsorted(self.hashes, asked[likely])
        same = self.hashes[np.minimum(places, len(self.hashes) - 1)] == asked[likely]
        return likely[same], places[same]


def hits(
    texts: Texts,
    training: np.ndarray,
    n: int,
    chunk: int = CHUNK,
    tell: Callable[[int], Any] = lambda _: None,
) -> np.ndarray:
    """(documents,) int64: of each held-out document the n-grams that stand in `training` (documents,) bool, and of each of
    those the n-grams that stand in held-out text; 0 for all others. `tell(tokens)` shows progress."""
    found = np.zeros(len(texts.length), dtype=np.int64)
    held = np.flatnonzero(texts.held).tolist()
    grams = Grams(hashed for _, hashed in batches(texts, held, n, chunk))
    seen = np.zeros(len(grams.hashes), dtype=bool)
    for owners, hashed in batches(texts, np.flatnonzero(training).tolist(), n, chunk):
        at, places = grams.find(hashed)
        seen[places] = True
        _count(found, owners[at])
        tell(len(hashed))
    if seen.any():
        for owners, hashed in batches(texts, held, n, chunk):
            _count(found, owners[seen[np.searchsorted(grams.hashes, hashed)]])
    return found


def _count(found: np.ndarray, owners: np.ndarray) -> None:
    documents, counts = np.unique(owners, return_counts=True)
    found[documents] += counts


def shares(texts: Texts, found: np.ndarray, n: int) -> np.ndarray:
    """(documents,) float64: `found` hits over a document's n-grams; 0 for one that is shorter than `n`."""
    return np.asarray(found / np.maximum(texts.length - n + 1, 1), dtype=np.float64)


def account(
    texts: Texts, training: np.ndarray, share: np.ndarray, n: int, most: float
) -> dict[str, Any]:
    """The ledger's words: how much is shared, the worst documents of both sides, and every dirty held-out one."""
    held, over = texts.held, share > most
    return {
        "ngram": n,
        "share": most,
        "training": {
            "documents": int(training.sum()),
            "contaminated": int((training & over).sum()),
            "contaminated_tokens": int(texts.length[training & over].sum()),
            "worst": _named(texts, share, training & (share > 0))[:WORST],
        },
        "heldout": {
            "documents": int(held.sum()),
            "too_short": int((held & (texts.length < n)).sum()),
            "touched": int((held & (share > 0)).sum()),
            "worst": _named(texts, share, held & (share > 0))[:WORST],
            "dirty": _named(texts, share, held & over),
        },
    }


def _named(texts: Texts, share: np.ndarray, which: np.ndarray) -> list[dict[str, Any]]:
    """Documents by name, the highest share first."""
    numbers = np.flatnonzero(which)
    found = []
    for number in numbers[np.argsort(-share[numbers], kind="stable")].tolist():
        source, index = texts.locate(number)
        name = texts.stores[source].ids[index]
        found.append({"source": source, "document": name, "share": round(float(share[number]), 4)})
    return found


def refuse(texts: Texts, share: np.ndarray, n: int, most: float) -> None:
    """Raises: DataError when a document of either side has more than `most` of its n-grams on the other."""
    found = _named(texts, share, share > most)
    if found:
        worst = found[0]
        raise DataError(
            f"data.contamination.action is error; training and held-out documents may share {most:.0%} of their stretches of "
            f"{n} tokens, and {worst['document']} of source {worst['source']} has {worst['share']:.0%} on the other side "
            f"({len(found)} documents have too much); take the copies out, or set report or remove"
        )
