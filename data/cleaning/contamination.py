"""How much of held-out and training documents is shared, by n-grams of tokens. Pure."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from ropewalk.conf.errors import DataError
from ropewalk.data.cleaning.ngrams import CHUNK, batches
from ropewalk.data.tokens.corpus import Corpus

SLOTS_PER_NGRAM = 16  # of the table: 15 of 16 unknown n-grams need no binary search
MAX_TABLE_BITS = 28  # 256 MiB
WORST = 5  # documents that the ledger names on each side, whatever their share


class NgramSet:
    """A sorted set of 64-bit hashes; a table of their first bits settles most queries."""

    def __init__(self, hashes: Iterable[np.ndarray]) -> None:
        ordered = np.sort(np.concatenate([np.empty(0, np.uint64), *hashes]))
        # np.unique takes twenty times as long
        self.hashes = ordered[np.append(ordered[1:] != ordered[:-1], True)[: len(ordered)]]
        bits = (SLOTS_PER_NGRAM * len(self.hashes)).bit_length()
        bits = min(max(bits, 8), MAX_TABLE_BITS)
        self.shift = np.uint64(64 - bits)
        self.table = np.zeros(1 << bits, dtype=bool)
        self.table[(self.hashes >> self.shift).astype(np.int64)] = True

    def find(self, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Indices of the `queries` (k,) that are in the set, and their indices in `hashes`."""
        likely = np.flatnonzero(self.table[(queries >> self.shift).astype(np.int64)])
        indices = np.searchsorted(self.hashes, queries[likely])
        same = self.hashes[np.minimum(indices, len(self.hashes) - 1)] == queries[likely]
        return likely[same], indices[same]


def shared_ngrams(
    corpus: Corpus,
    training: np.ndarray,
    n: int,
    on_progress: Callable[[int], Any],
    chunk: int = CHUNK,
) -> np.ndarray:
    """(documents,) int64: n-grams of each document that occur on the other side.

    The sides are the held-out documents and the `training` ones (documents,) bool; 0 for any other
    document. `on_progress` receives the tokens of each batch.
    """
    counts = np.zeros(len(corpus.length), dtype=np.int64)
    heldout = np.flatnonzero(corpus.heldout_once).tolist()
    ngrams = NgramSet(hashed for _, hashed in batches(corpus, heldout, n, chunk))
    in_training = np.zeros(len(ngrams.hashes), dtype=bool)
    for documents, hashed in batches(corpus, np.flatnonzero(training).tolist(), n, chunk):
        matches, indices = ngrams.find(hashed)
        in_training[indices] = True
        _add_counts(counts, documents[matches])
        on_progress(len(hashed))
    if in_training.any():
        for documents, hashed in batches(corpus, heldout, n, chunk):
            _add_counts(counts, documents[in_training[np.searchsorted(ngrams.hashes, hashed)]])
    return counts


def _add_counts(counts: np.ndarray, documents: np.ndarray) -> None:
    numbers, occurrences = np.unique(documents, return_counts=True)
    counts[numbers] += occurrences


def shared_fraction(corpus: Corpus, counts: np.ndarray, n: int) -> np.ndarray:
    """(documents,) float64: shared n-grams over all of a document; 0 if it is shorter than `n`."""
    return np.asarray(counts / np.maximum(corpus.length - n + 1, 1), dtype=np.float64)


def ledger_section(
    corpus: Corpus, training: np.ndarray, fraction: np.ndarray, n: int, limit: float
) -> dict[str, Any]:
    """The ledger's counts, the worst documents of both sides, and all dirty held-out ones."""
    heldout, over_limit, shared = corpus.heldout_once, fraction > limit, fraction > 0
    return {
        "ngram": n,
        "share": limit,
        "training": {
            "documents": int(training.sum()),
            "contaminated": int((training & over_limit).sum()),
            "contaminated_tokens": int(corpus.length[training & over_limit].sum()),
            "worst": _by_fraction(corpus, fraction, training & shared)[:WORST],
        },
        "heldout": {
            "documents": int(heldout.sum()),
            "too_short": int((heldout & (corpus.length < n)).sum()),
            "touched": int((heldout & shared).sum()),
            "worst": _by_fraction(corpus, fraction, heldout & shared)[:WORST],
            "dirty": _by_fraction(corpus, fraction, heldout & over_limit),
        },
    }


def _by_fraction(
    corpus: Corpus, fraction: np.ndarray, selected: np.ndarray
) -> list[dict[str, Any]]:
    """The `selected` documents (documents,) bool by name, highest fraction first."""
    numbers = np.flatnonzero(selected)
    rows = []
    for number in numbers[np.argsort(-fraction[numbers], kind="stable")].tolist():
        source, index = corpus.locate(number)
        name = corpus.stores[source].ids[index]
        share = round(float(fraction[number]), 4)
        rows.append({"source": source, "document": name, "share": share})
    return rows


def refuse_contaminated(corpus: Corpus, fraction: np.ndarray, n: int, limit: float) -> None:
    """Raises: DataError when a document shares more than `limit` of its n-grams."""
    contaminated = _by_fraction(corpus, fraction, fraction > limit)
    if contaminated:
        worst = contaminated[0]
        raise DataError(
            "data.contamination.action is error; training and held-out documents may share "
            f"{limit:.0%} of their stretches of {n} tokens, and {worst['document']} of source "
            f"{worst['source']} has {worst['share']:.0%} on the other side "
            f"({len(contaminated)} documents have too much); "
            "take the copies out, or set report or remove"
        )
