"""The text sources' stores as one row of documents, numbered through in the order of the sources."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ropewalk.data.tokens.store import Store


@dataclass(frozen=True)
class Texts:
    """An array over it has an entry a document: (documents,)."""

    stores: Mapping[str, Store]

    @cached_property
    def first(self) -> np.ndarray:
        """(sources + 1,): the number of each source's first document."""
        return np.cumsum([0, *(len(s.length) for s in self.stores.values())])

    @cached_property
    def length(self) -> np.ndarray:
        """(documents,) int64 tokens."""
        return np.concatenate([s.length for s in self.stores.values()]).astype(np.int64)

    @cached_property
    def heldout(self) -> np.ndarray:
        """(documents,) bool."""
        return np.concatenate([s.heldout for s in self.stores.values()])

    @cached_property
    def held(self) -> np.ndarray:
        """(documents,) bool: held out, each once: sources of other lengths may read one folder and so have one store."""
        prints = [s.fingerprint for s in self.stores.values()]
        first = [prints.index(mark) == at for at, mark in enumerate(prints)]
        return self.heldout & np.repeat(first, np.diff(self.first))

    def locate(self, number: int) -> tuple[str, int]:
        """A document's source, and its number there."""
        source = int(np.searchsorted(self.first, number, side="right")) - 1
        return list(self.stores)[source], number - int(self.first[source])

    def document(self, number: int, start: int = 0, length: int | None = None) -> np.ndarray:
        """Tokens `[start, start + length)` of a document, without a copy."""
        name, index = self.locate(number)
        return self.stores[name].document(index, start, length)

    def split(self, row: np.ndarray) -> dict[str, np.ndarray]:
        """(documents,) -> a part a source."""
        return dict(zip(self.stores, np.split(row, self.first[1:-1]), strict=True))
