"""Counts over a plan's pieces: by document, by length, by source. Pure.

Legend: P pieces, S sequences, D documents of all sources end to end, as the plan numbers them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from ropewalk.data.packing.packed import Packed
from ropewalk.data.tokens.store import BoundaryTokens

BOUNDS = (256, 1024, 4096, 16384, 32768, 65536, 131072, 262144, 524288, 1048576)
LABELS = (
    *(f"{low + 1}-{high}" for low, high in zip((0, *BOUNDS), BOUNDS, strict=False)),
    f">{BOUNDS[-1]}",
)


@dataclass(frozen=True)
class Pieces:
    """A plan's pieces in its order."""

    document: np.ndarray  # (P,) int64, among D
    start: np.ndarray  # (P,) int64, tokens of the document before it, boundary tokens included
    length: np.ndarray  # (P,) int64
    offsets: np.ndarray  # (S + 1,) the first piece of each sequence

    @classmethod
    def of(cls, packed: Packed) -> "Pieces":
        length = packed.length.astype(np.int64, copy=False)
        return cls(packed.document, packed.start, length, packed.offsets)

    @property
    def sequence(self) -> np.ndarray:
        """(P,) the sequence of each piece."""
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))

    @property
    def targets(self) -> np.ndarray:
        """(P,) labels that count: all tokens of a piece but one, with and without the mask."""
        return self.length - 1


def context_before(pieces: Pieces, document_mask: bool) -> np.ndarray:
    """(P,) how many tokens of its own document precede a piece, within its attention.

    0 with the mask: the loader draws a border around every piece, also between two of one document.
    Without it, the earlier pieces of the document in the sequence. A start before the end of the
    last piece is a copy of the document and begins anew.
    """
    if document_mask or not len(pieces.length):
        return np.zeros(len(pieces.length), dtype=np.int64)
    sequence = pieces.sequence
    order = np.lexsort((pieces.document, sequence))  # stable: in the plan's order within
    group, document, start, length = (
        a[order] for a in (sequence, pieces.document, pieces.start, pieces.length)
    )
    same = (group[1:] == group[:-1]) & (document[1:] == document[:-1])
    anew = np.concatenate([[True], ~same | (start[1:] < start[:-1] + length[:-1])])
    begins = np.cumsum(length) - length
    context = np.empty_like(begins)
    context[order] = begins - np.maximum.accumulate(np.where(anew, begins, 0))
    return context


def own_bounds(seq_len: int) -> list[int]:
    """The bounds of `own_context` below `seq_len`, with its quarter and its half."""
    return sorted({b for b in (*BOUNDS, seq_len // 4, seq_len // 2) if 0 < b < seq_len})


def longest_context(pieces: Pieces, context: np.ndarray) -> int:
    """The most tokens of its own document before any target; one-token pieces have no target."""
    return int((context + pieces.targets).max(initial=0, where=pieces.targets > 0))


def targets_beyond(pieces: Pieces, context: np.ndarray, bound: int) -> np.ndarray:
    """(P,) targets with more than `bound` tokens of their own document before them."""
    return pieces.targets - np.clip(bound - context, 0, pieces.targets)


def by_source(source: np.ndarray, amount: np.ndarray, sources: int) -> np.ndarray:
    """(sources,) int64 sums of `amount` (P,); `source`: (P,) the source of each piece."""
    return np.bincount(source, amount, sources).astype(np.int64)


@dataclass(frozen=True)
class DocumentCounts:
    """What the plan holds of each document, in stored tokens (without boundary tokens)."""

    times: np.ndarray  # (D,) how often it was taken
    tokens: np.ndarray  # (D,) its tokens in the plan, repeats among them
    distinct: np.ndarray  # (D,) its tokens in the plan, each once

    def of_documents(self, first: int, end: int) -> "DocumentCounts":
        return DocumentCounts(
            self.times[first:end], self.tokens[first:end], self.distinct[first:end]
        )


def count_documents(
    blocks: Iterable[Pieces], first: int, length: np.ndarray, boundary_tokens: BoundaryTokens
) -> DocumentCounts:
    """Counts of the documents `first` to `first + D`, of `length` (D,) stored tokens.

    A taking is a prefix of its document, so it has exactly one piece that starts at 0.
    """
    total = len(length)
    times, tokens, reached = np.zeros((3, total), dtype=np.int64)
    for pieces in blocks:
        document, start, size = _of_range(pieces, first, total)
        ends, own = start + size, length[document]
        stored = boundary_tokens.stored(ends, own) - boundary_tokens.stored(start, own)
        times += np.bincount(document[start == 0], minlength=total)
        tokens += np.bincount(document, stored, total).astype(np.int64)
        np.maximum.at(reached, document, ends)
    return DocumentCounts(times, tokens, boundary_tokens.stored(reached, length))


def _of_range(pieces: Pieces, first: int, total: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Document in the range, start and length of the pieces of `total` documents from `first`."""
    document = pieces.document - first
    if document.min(initial=0) >= 0 and document.max(initial=0) < total:
        return document, pieces.start, pieces.length
    inside = np.flatnonzero(document.view(np.uint64) < total)
    return document[inside], pieces.start[inside], pieces.length[inside]


def by_length(
    length: np.ndarray, heldout: np.ndarray, counts: DocumentCounts
) -> dict[str, dict[str, int]]:
    """Documents and tokens by stored length: in the store, held out, taken, and in the plan.

    `taken` counts whole documents, and each repeat again. Empty lengths are left out.
    """
    bucket = np.searchsorted(BOUNDS, length)
    columns = {
        "documents": np.ones_like(length),
        "tokens": length,
        "heldout_documents": heldout,
        "heldout_tokens": length * heldout,
        "taken_documents": counts.times,
        "taken_tokens": length * counts.times,
        "plan_documents": counts.times > 0,
        "plan_tokens": counts.tokens,
    }
    sums = {
        key: np.bincount(bucket, column, len(LABELS)).astype(np.int64)
        for key, column in columns.items()
    }
    return {
        label: {key: int(column[index]) for key, column in sums.items()}
        for index, label in enumerate(LABELS)
        if sums["documents"][index]
    }


def documents_for_half(documents: Mapping[int, int]) -> int:
    """The fewest documents that give half of all tokens; 0 when there are none.

    `documents`: tokens of a document -> how many documents have so many.
    """
    left, count = sum(tokens * n for tokens, n in documents.items()) / 2, 0
    for tokens in sorted((tokens for tokens in documents if tokens), reverse=True):
        needed = -(-left // tokens)
        if needed <= documents[tokens]:
            return count + int(needed)
        left -= tokens * documents[tokens]
        count += documents[tokens]
    return 0


def length_edges(seq_len: int) -> list[int]:
    """Borders of the histogram of piece lengths; the upper one belongs to its bucket."""
    return [0, *(b for b in BOUNDS if b < seq_len), seq_len]


def length_names(seq_len: int) -> list[str]:
    edges = length_edges(seq_len)
    return [f"{low + 1}-{high}" for low, high in zip(edges, edges[1:], strict=False)]


def histogram(lengths: np.ndarray, seq_len: int) -> np.ndarray:
    """(2, buckets) int64: pieces, and their tokens, by the piece's length."""
    edges = length_edges(seq_len)
    bucket = np.searchsorted(edges[1:], lengths)
    counts = (np.bincount(bucket, weights, len(edges) - 1) for weights in (None, lengths))
    return np.stack([count.astype(np.int64) for count in counts])


def sources_of_sequences(pieces: Pieces, source: np.ndarray, sources: int) -> np.ndarray:
    """(sources,) how many sequences hold a piece of each source."""
    pairs = np.unique(pieces.sequence * sources + source)
    return np.bincount(pairs % sources, minlength=sources)
