"""What packers take and give: stretches of documents, and sequences of pieces. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True, slots=True)
class Stretches:
    """Tokens of documents that are in no sequence yet. Documents are indices."""

    document: np.ndarray  # (stretches,) int64
    start: np.ndarray  # (stretches,) int64: first token within the document
    length: np.ndarray  # (stretches,) int64, tokens

    def __len__(self) -> int:
        return len(self.length)

    @classmethod
    def of(cls, lengths: np.ndarray, first: int = 0) -> "Stretches":
        """All tokens of documents of `lengths` (documents,), the first of which is `first`."""
        lengths = lengths.astype(np.int64, copy=False)
        return cls(np.arange(first, first + len(lengths)), np.zeros_like(lengths), lengths)

    def followed_by(self, other: "Stretches") -> "Stretches":
        return Stretches(
            np.concatenate([self.document, other.document]),
            np.concatenate([self.start, other.start]),
            np.concatenate([self.length, other.length]),
        )


def _none() -> Stretches:
    return Stretches.of(np.empty(0, np.int64))


@dataclass(frozen=True, slots=True)
class Packed:
    """Sequences of pieces, one after the other. Documents are indices into the packed lengths."""

    document: np.ndarray  # (pieces,) int64
    start: np.ndarray  # (pieces,) int64: first token within the document
    length: np.ndarray  # (pieces,) int64, tokens
    offsets: np.ndarray  # (sequences + 1,) int64: sequence n is pieces offsets[n] to offsets[n + 1]
    waiting: Stretches = field(default_factory=_none)
    """In no sequence yet: they come before the documents of the next block."""

    def __len__(self) -> int:
        return len(self.offsets) - 1


def join(parts: Sequence[Packed]) -> Packed:
    """Sequences of several parts in their order; `waiting` is the last one's."""
    if len(parts) == 1:
        return parts[0]
    columns = ([getattr(part, key) for part in parts] for key in ("document", "start", "length"))
    before = np.cumsum([0, *(len(part.length) for part in parts)])
    offsets = [part.offsets[1:] + first for part, first in zip(parts, before, strict=False)]
    document, start, length = map(np.concatenate, columns)
    return Packed(
        document, start, length, np.concatenate([[0], *offsets]), waiting=parts[-1].waiting
    )
