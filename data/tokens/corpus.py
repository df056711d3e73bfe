"""The stores of several sources as one list of documents, numbered in the order of the sources."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ropewalk.data.tokens.store import Store


@dataclass(frozen=True)
class Corpus:
    """Arrays over it have an entry per document: (documents,)."""

    stores: Mapping[str, Store]

    @cached_property
    def first(self) -> np.ndarray:
        """(sources + 1,): the number of each source's first document."""
        return np.cumsum([0, *(len(store.length) for store in self.stores.values())])

    @cached_property
    def length(self) -> np.ndarray:
        """(documents,) int64 tokens."""
        return np.concatenate([s.length for s in self.stores.values()]).astype(np.int64)

    @cached_property
    def heldout(self) -> np.ndarray:
        """(documents,) bool."""
        return np.concatenate([store.heldout for store in self.stores.values()])

    @cached_property
    def heldout_once(self) -> np.ndarray:
        """(documents,) bool: held out, without the second source of one store.

        Sources with other length limits may read one folder, and then share a store.
        """
        fingerprints = [store.fingerprint for store in self.stores.values()]
        is_first = [fingerprints.index(f) == i for i, f in enumerate(fingerprints)]
        return self.heldout & np.repeat(is_first, np.diff(self.first))

    def spans(self, low: int, high: int) -> dict[str, slice]:
        """The documents from `low` to `high`, as a slice of each source that has any of them."""
        firsts = zip(self.stores, self.first[:-1].tolist(), self.first[1:].tolist(), strict=True)
        return {
            name: slice(max(low - first, 0), min(high, end) - first)
            for name, first, end in firsts
            if max(first, low) < min(end, high)
        }

    def heldout_of(self, length: int) -> int:
        """Held-out documents of at least `length` tokens; a store of two sources counts once."""
        stores = {store.fingerprint: store for store in reversed([*self.stores.values()])}
        return sum(int((s.heldout & (s.length >= length)).sum()) for s in stores.values())

    def locate(self, number: int) -> tuple[str, int]:
        """A document's source, and its index there."""
        source = int(np.searchsorted(self.first, number, side="right")) - 1
        return list(self.stores)[source], number - int(self.first[source])

    def document(self, number: int, start: int = 0, length: int | None = None) -> np.ndarray:
        """Tokens `[start, start + length)` of a document, without a copy."""
        source, index = self.locate(number)
        return self.stores[source].document(index, start, length)

    def by_source(self, values: np.ndarray) -> dict[str, np.ndarray]:
        """Split an array (documents,) into one a source."""
        return dict(zip(self.stores, np.split(values, self.first[1:-1]), strict=True))
