"""The tokens that stand before and after a document: a choice of the plan, so the store is without them.

A plan counts in a document's virtual tokens: [begin] + stored tokens + [end]. What cuts a document takes a prefix of that, so
a document that is not there to its last token has no end.
"""

from dataclasses import dataclass

import numpy as np

from ropewalk.data.tokens.store import Store


@dataclass(frozen=True)
class BoundaryTokens:
    """Ids of the token before a document and of the one after it; None: none."""

    begin: int | None = None
    end: int | None = None

    @property
    def before(self) -> int:
        return int(self.begin is not None)

    @property
    def count(self) -> int:
        return self.before + int(self.end is not None)

    def stored(self, taken: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """How many of the first `taken` virtual tokens of documents of `lengths` stored ones are no marks."""
        return np.clip(taken - self.before, 0, lengths)

    def read(self, store: Store, index: int, start: int, length: int) -> np.ndarray:
        """Virtual tokens `[start, start + length)` of a document; without marks as they lie in the store, no copy."""
        if not self.count:
            return store.document(index, start, length)
        size = int(store.length[index])
        low, high = max(start - self.before, 0), min(start + length - self.before, size)
        before = [self.begin] if self.before and start == 0 else []
        after = [self.end] if start + length > self.before + size else []
        return np.concatenate([*_ids(before), store.document(index, low, high - low), *_ids(after)])


def _ids(found: list[int | None]) -> list[np.ndarray]:
    return [np.array(found, dtype=np.int64)] if found else []
