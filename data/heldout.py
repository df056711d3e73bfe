"""Held-out text, laid out as training documents are: for eval, validation and calibration."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice, zip_longest
from typing import Any

import numpy as np

from ropewalk.data.tokens.store import BoundaryTokens, Store


@dataclass(frozen=True)
class Window:
    """A stretch of held-out text. Windows of one document are not independent of one another."""

    document: str
    ids: np.ndarray  # (length,) int64
    source: str = ""
    start: int = 0
    """First token in the document."""

    @property
    def origin(self) -> str:
        """Names the document over all sources: documents of two sources may have one id."""
        return f"{self.source}\n{self.document}"


@dataclass(frozen=True)
class HeldoutText:
    """The held-out documents of the text sources.

    Every text begins and ends as a training document does: with the begin token, and, where the
    document's end is reached, with the end token.
    """

    stores: Mapping[str, Store]
    """By source; two sources that read one store are one entry, `a + b`."""
    boundary_tokens: BoundaryTokens = BoundaryTokens()
    context_only: Sequence[str] = ()
    """Sources that are left out, because training learns none of their labels."""

    def windows(self, length: int, count: int | None, per_document: int) -> list[Window]:
        """Up to `count` stretches of `length` tokens (None: all), taken from the sources in turn.

        Within a source they are spread over the held-out documents that are long enough: the first
        stretch of each document, then the second, up to `per_document`, evenly spaced in the
        document.
        """
        windows = in_turn([self._windows(s, length, per_document) for s in self.stores])
        return list(islice(windows, count))

    def _windows(self, source: str, length: int, per_document: int) -> Iterator[Window]:
        store, marks = self.stores[source], self.boundary_tokens
        lengths = store.length + marks.count
        documents = np.flatnonzero(store.heldout & (lengths >= length)).tolist()
        # each stretch has a begin token of its own, and an end token stands after the last
        count = length - marks.before
        starts = [_starts(int(lengths[i]) - marks.before, count, per_document) for i in documents]
        for turn in range(per_document):
            for index, offsets in zip(documents, starts, strict=True):
                if turn < len(offsets):
                    text = store.document(index, offsets[turn])
                    ids = marks.lay_out(text, 0, length).astype(np.int64)
                    yield Window(store.ids[index], ids, source, offsets[turn])

    def documents(self) -> list[Window]:
        """Every held-out document whole, without boundary tokens, from the sources in turn.

        Their ids lie in the store's memory map, unsigned: convert what is read.
        """
        return list(in_turn([self._documents(source) for source in self.stores]))

    def _documents(self, source: str) -> Iterator[Window]:
        store = self.stores[source]
        for index in np.flatnonzero(store.heldout).tolist():
            yield Window(store.ids[index], store.document(index), source)

    def texts(self) -> list[np.ndarray]:
        """The held-out tokens of each source end to end, each (tokens,) int64, without boundaries.

        Sources without held-out text are left out.
        """
        texts = []
        for store in self.stores.values():
            indices = np.flatnonzero(store.heldout).tolist()
            if indices:
                parts = [store.document(index).astype(np.int64) for index in indices]
                texts.append(np.concatenate(parts))
        return texts

    def layout(self, windows: Sequence[Window]) -> dict[str, Any]:
        """For results.json: the ids around each text, and the windows and documents by source."""
        counts = Counter(window.source for window in windows)
        first = {window.origin: window for window in windows}
        documents = Counter(window.source for window in first.values())
        return {
            "begin": self.boundary_tokens.begin,
            "end": self.boundary_tokens.end,
            "sources": {
                source: {"windows": counts[source], "documents": documents[source]}
                for source in self.stores
            },
            "context_only": list(self.context_only),
        }


def describe(layout: Mapping[str, Any]) -> str:
    """A layout as a clause: where the windows come from, and what stands around their text."""
    sources = layout["sources"].items()
    text = "windows by source, in turn: " + ", ".join(f"{s} {c['windows']}" for s, c in sources)
    phrases = {"begin": "begin with token", "end": "at a document's end, end with token"}
    marks = [f"{phrases[key]} {layout[key]}" for key in phrases if layout[key] is not None]
    if marks:
        text += f"; as training documents do, they {' and, '.join(marks)}"
    if left_out := layout["context_only"]:
        text += f"; none from {', '.join(left_out)}, whose labels training does not count"
    return text


def in_turn(by_source: Sequence[Iterable[Window]]) -> Iterator[Window]:
    """The first window of each source, then the second of each that has one, and so on."""
    rounds = chain.from_iterable(zip_longest(*by_source))
    return (window for window in rounds if window is not None)


def _starts(tokens: int, length: int, per_document: int) -> list[int]:
    """First tokens of up to `per_document` stretches of a document that do not overlap."""
    count = min(per_document, tokens // length)
    return np.linspace(0, tokens - length, count).astype(int).tolist() if count > 1 else [0]
