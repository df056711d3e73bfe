"""The tokens before and after a document (BOS, EOS): a choice of the plan, so no store has them.

A plan counts in a document's virtual tokens: [begin] + stored tokens + [end]. A cut document keeps
a prefix of them, so a document without its last token has no end token.
"""

from dataclasses import dataclass

import numpy as np

from ropewalk.data.tokens.store import Store


@dataclass(frozen=True)
class BoundaryTokens:
    """Ids of the token before a document and of the one after it; None: no such token."""

    begin: int | None = None
    end: int | None = None

    @property
    def before(self) -> int:
        """How many tokens stand before a document: 0 or 1."""
        return int(self.begin is not None)

    @property
    def count(self) -> int:
        return self.before + int(self.end is not None)

    def stored(self, virtual: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """How many of the first `virtual` tokens of documents of `lengths` lie in the store."""
        return np.clip(virtual - self.before, 0, lengths)

    def read(self, store: Store, index: int, start: int, length: int) -> np.ndarray:
        """Virtual tokens `[start, start + length)` of a document; without boundaries no copy."""
        if not self.count:
            return store.document(index, start, length)
        size = int(store.length[index])
        low, high = max(start - self.before, 0), min(start + length - self.before, size)
        parts = [store.document(index, low, high - low)]
        if self.begin is not None and start == 0:
            parts.insert(0, np.array([self.begin], dtype=np.int64))
        if self.end is not None and start + length > self.before + size:
            parts.append(np.array([self.end], dtype=np.int64))
        return np.concatenate(parts)
