"""The public face of the data stage: training sequences by number and step, and held-out text."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice, zip_longest

import numpy as np

from ropewalk.data.loading.collate import IGNORE, Row, collate, concatenate
from ropewalk.data.loading.loader import BatchLoader, SequenceRef, prefetch
from ropewalk.data.loading.packed import DataArtifacts, PackedSequences
from ropewalk.data.tokens.store import Store

__all__ = [
    "IGNORE",
    "BatchLoader",
    "DataArtifacts",
    "PackedSequences",
    "Row",
    "SequenceRef",
    "Window",
    "collate",
    "concatenate",
    "heldout_text",
    "heldout_windows",
    "prefetch",
]


@dataclass(frozen=True)
class Window:
    """A stretch of held-out text. Windows of one document are not independent of one another."""

    document: str
    ids: np.ndarray  # (length,) int64


def heldout_windows(
    stores: Sequence[Store], length: int, count: int | None, per_document: int
) -> list[Window]:
    """Up to `count` stretches of `length` tokens (None: all), taken from the stores in turn.

    Within a store they are spread over the held-out documents that are long enough: the first
    stretch of each document, then the second, up to `per_document`, evenly spaced in the document.
    """
    by_store = zip_longest(*(_windows(store, length, per_document) for store in stores))
    windows = (window for window in chain.from_iterable(by_store) if window is not None)
    return list(islice(windows, count))


def _windows(store: Store, length: int, per_document: int) -> Iterator[Window]:
    documents = np.flatnonzero(store.heldout & (store.length >= length)).tolist()
    starts = [_starts(int(store.length[index]), length, per_document) for index in documents]
    for turn in range(per_document):
        for index, offsets in zip(documents, starts, strict=True):
            if turn < len(offsets):
                ids = store.document(index, offsets[turn], length).astype(np.int64)
                yield Window(store.ids[index], ids)


def _starts(tokens: int, length: int, per_document: int) -> list[int]:
    """First tokens of up to `per_document` stretches of a document that do not overlap."""
    count = min(per_document, tokens // length)
    return np.linspace(0, tokens - length, count).astype(int).tolist() if count > 1 else [0]


def heldout_text(stores: Sequence[Store]) -> np.ndarray:
    """All held-out tokens of the stores end to end, (N,) int64."""
    parts = [
        store.document(index).astype(np.int64)
        for store in stores
        for index in np.flatnonzero(store.heldout).tolist()
    ]
    return np.concatenate(parts) if parts else np.empty(0, np.int64)
