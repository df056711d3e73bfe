"""Sums over a plan's pieces, a block of sequences at a time. Pure.

Legend: P pieces and S sequences of a block.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ropewalk.data.ledger import balance, statistics
from ropewalk.data.ledger.statistics import Pieces
from ropewalk.data.loading.packed import attention_work


@dataclass
class PieceSums:
    """What adds up over the blocks of a plan. Arrays: (sources,) int64 unless stated."""

    seq_len: int
    document_mask: bool
    sources: int
    beyond: dict[int, np.ndarray] = field(default_factory=dict)
    """Bound -> targets with more than `bound` tokens of their own document before them."""
    targets: np.ndarray = field(init=False)
    sequences: np.ndarray = field(init=False)
    """Sequences that hold a piece of the source."""
    longest_context: int = 0
    most_pieces: int = 0
    lengths: np.ndarray = field(init=False)
    """(2, buckets): pieces, and their tokens, by the piece's length."""
    works: list[np.ndarray] = field(default_factory=list)
    """Of each block (S,): attention work of a sequence, in tokens squared."""

    def __post_init__(self) -> None:
        self.beyond = {
            bound: np.zeros(self.sources, np.int64) for bound in statistics.own_bounds(self.seq_len)
        }
        self.targets, self.sequences = np.zeros((2, self.sources), dtype=np.int64)
        self.lengths = np.zeros((2, len(statistics.length_edges(self.seq_len)) - 1), dtype=np.int64)

    def add(self, pieces: Pieces, source: np.ndarray) -> None:
        """`source`: (P,) the source of each piece."""
        context = statistics.context_before(pieces, self.document_mask)
        self.targets += statistics.by_source(source, pieces.targets, self.sources)
        for bound, sums in self.beyond.items():
            beyond = statistics.targets_beyond(pieces, context, bound)
            sums += statistics.by_source(source, beyond, self.sources)
        self.sequences += statistics.sources_of_sequences(pieces, source, self.sources)
        longest = statistics.longest_context(pieces, context)
        self.longest_context = max(self.longest_context, longest)
        self.most_pieces = max(self.most_pieces, int(np.diff(pieces.offsets).max(initial=0)))
        self.lengths += statistics.histogram(pieces.length, self.seq_len)
        self.works.append(
            attention_work(pieces.length, pieces.offsets, self.seq_len, self.document_mask)
        )

    def own_context_shares(self) -> dict[str, np.ndarray]:
        """Bound -> (sources + 1,): the share of each source, and of all sources at the end."""
        total = _with_sum(self.targets)
        return {
            str(bound): _with_sum(beyond) / np.maximum(total, 1)
            for bound, beyond in self.beyond.items()
        }

    def entries(self) -> dict[str, Any]:
        """The plan's entries of the ledger."""
        works = np.concatenate([np.empty(0, np.int64), *self.works])
        names = statistics.length_names(self.seq_len)
        pieces, tokens = (dict(zip(names, row.tolist(), strict=True)) for row in self.lengths)
        sequence = {}
        if len(works):
            sequence = {
                "pieces": sum(pieces.values()) / len(works),
                "most_pieces": self.most_pieces,
                "sources": int(self.sequences.sum()) / len(works),
            }
        return {
            "targets": int(self.targets.sum()),
            "piece_lengths": pieces,
            "piece_tokens": tokens,
            "a_sequence": {key: round(float(value), 3) for key, value in sequence.items()},
            "work": balance.work_statistics(works, self.seq_len),
            "idle": balance.predicted_idle(works, self.seq_len),
        }


def _with_sum(sums: np.ndarray) -> np.ndarray:
    return np.append(sums, sums.sum())
