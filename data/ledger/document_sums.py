"""Sums over the documents of a source, a range of them at a time. Pure.

Legend: D documents of a range.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ropewalk.data.ledger import statistics
from ropewalk.data.ledger.statistics import DocumentCounts


@dataclass
class DocumentSums:
    """What adds up over the ranges of a source's documents."""

    counts: Counter[str] = field(default_factory=Counter)
    most_taken: int = 0
    largest: tuple[int, int] = (0, 0)
    """The first document with the most tokens in the plan: tokens, index in the source."""
    tokens: Counter[int] = field(default_factory=Counter)
    """How many documents have so many tokens in the plan."""
    by_length: dict[str, Counter[str]] = field(default_factory=dict)

    def add(
        self, first: int, length: np.ndarray, heldout: np.ndarray, counts: DocumentCounts
    ) -> None:
        """`first`: index in the source; `length`, `heldout` (D,) as in its store."""
        in_part = (counts.times > 0) & (counts.distinct < length)
        self.counts.update(
            plan_documents=int((counts.times > 0).sum()),
            distinct=int(counts.distinct.sum()),
            repeated=int((counts.tokens - counts.distinct).sum()),
            repeated_documents=int((counts.times > 1).sum()),
            in_part=int(in_part.sum()),
            not_reached=int((length - counts.distinct)[in_part].sum()),
        )
        self.most_taken = max(self.most_taken, int(counts.times.max(initial=0)))
        if len(counts.tokens) and (most := int(counts.tokens.max())) > self.largest[0]:
            self.largest = most, first + int(counts.tokens.argmax())
        values, documents = np.unique(counts.tokens, return_counts=True)
        self.tokens.update(dict(zip(values.tolist(), documents.tolist(), strict=True)))
        for label, row in statistics.by_length(length, heldout, counts).items():
            self.by_length.setdefault(label, Counter()).update(row)

    def entries(self, ids: Any) -> dict[str, Any]:
        """The source's entries of the ledger. `ids`: of its documents."""
        tokens, document = self.largest
        keys = ("plan_documents", "distinct", "repeated", "repeated_documents")
        labels = [label for label in statistics.LABELS if label in self.by_length]
        return {
            **{key: self.counts[key] for key in keys},
            "most_taken": self.most_taken,
            **{key: self.counts[key] for key in ("in_part", "not_reached")},
            "largest": {"document": ids[document], "tokens": tokens} if tokens else None,
            "half_from": statistics.documents_for_half(self.tokens),
            "by_length": {label: dict(self.by_length[label]) for label in labels},
        }
