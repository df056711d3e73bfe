"""What the other stages read: training sequences by number and by step, and held-out windows. The data stage's public face."""

from dataclasses import dataclass

import numpy as np

from ropewalk.data.reading.ahead import ahead
from ropewalk.data.reading.export import as_dataset
from ropewalk.data.reading.reader import DataFolders, Sequences
from ropewalk.data.reading.row import IGNORE, Row, join, lay
from ropewalk.data.reading.steps import Feed, Turn, turns_of_rank, turns_of_step
from ropewalk.data.tokens.store import Store

__all__ = [
    "IGNORE",
    "DataFolders",
    "Feed",
    "Row",
    "Sequences",
    "Turn",
    "Window",
    "ahead",
    "as_dataset",
    "heldout_text",
    "heldout_windows",
    "join",
    "lay",
    "turns_of_rank",
    "turns_of_step",
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
        starts = np.linspace(0, int(store.length[index]) - length, count).astype(int) if count > 1 else [0]
        found.append([Window(store.ids[index], store.document(index, int(s), length).astype(np.int64)) for s in starts])
    return [windows[k] for k in range(per_document) for windows in found if k < len(windows)][:most]


def heldout_text(store: Store) -> np.ndarray:
    """All held-out tokens end to end: the filler of eval's questions."""
    parts = [store.document(i) for i in np.flatnonzero(store.heldout).tolist()]
    return np.concatenate(parts).astype(np.int64) if parts else np.empty(0, np.int64)
