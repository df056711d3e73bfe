"""What the other stages read: training sequences by number and by step, and held-out windows. The data stage's public face."""

from dataclasses import dataclass

import numpy as np

from ropewalk.data.export import as_dataset
from ropewalk.data.loading.collate import IGNORE, Row, collate, concatenate
from ropewalk.data.loading.loader import BatchLoader, SequenceRef, global_batch, local_batch
from ropewalk.data.loading.packed import DataArtifacts, PackedSequences
from ropewalk.data.loading.prefetch import prefetch
from ropewalk.data.tokens.store import Store

__all__ = [
    "IGNORE",
    "DataArtifacts",
    "BatchLoader",
    "Row",
    "PackedSequences",
    "SequenceRef",
    "Window",
    "prefetch",
    "as_dataset",
    "heldout_text",
    "heldout_windows",
    "collate",
    "concatenate",
    "local_batch",
    "global_batch",
]


@dataclass(frozen=True)
class Window:
    """A stretch of held-out text; windows of one document are not independent of one another."""

    document: str
    ids: np.ndarray  # (length,) int64


def heldout_windows(store: Store, length: int, most: int, per_document: int) -> list[Window]:
    """Up to `most` stretches of `length` tokens, evenly spread over the held-out documents that are long enough."""
    found: list[list[Window]] = []
    for index in np.flatnonzero(store.heldout & (store.length >= length)).tolist():
        count = min(per_document, int(store.length[index]) // length)
        starts = (
            np.linspace(0, int(store.length[index]) - length, count).astype(int)
            if count > 1
            else [0]
        )
        found.append(
            [
                Window(store.ids[index], store.document(index, int(s), length).astype(np.int64))
                for s in starts
            ]
        )
    return [windows[k] for k in range(per_document) for windows in found if k < len(windows)][:most]


def heldout_text(store: Store) -> np.ndarray:
    """All held-out tokens end to end: the filler of eval's questions."""
    parts = [store.document(i) for i in np.flatnonzero(store.heldout).tolist()]
    return np.concatenate(parts).astype(np.int64) if parts else np.empty(0, np.int64)
