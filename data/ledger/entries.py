"""The ledger's entries of a plan, counted from pieces and stores, not from the mixture."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ropewalk.conf.data import DataConfig
from ropewalk.conf.errors import ProofError
from ropewalk.data.ledger import balance, statistics
from ropewalk.data.ledger.statistics import DocumentCounts, Pieces
from ropewalk.data.loading.packed import attention_work
from ropewalk.data.tokens.corpus import Corpus
from ropewalk.data.tokens.store import BoundaryTokens, Store

Json = dict[str, Any]
# reason -> the keys of its documents and tokens in a source's row
LEFT_OUT = {
    "held_out": ("heldout_documents", "heldout_tokens"),
    "overlong": ("dropped_documents", "dropped"),
    "outside_length": ("outside_length_documents", "outside_length"),
}


@dataclass(frozen=True)
class PlanStatistics:
    """A finished plan with its stores. Legend of `statistics`."""

    metadata: Mapping[str, Any]  # of the plan's manifest
    corpus: Corpus
    pieces: Pieces
    source: np.ndarray  # (P,) the source of each piece
    counts: DocumentCounts

    @classmethod
    def from_plan(
        cls, folder: Path, stores: Mapping[str, Store], metadata: Mapping[str, Any]
    ) -> "PlanStatistics":
        """`stores` are in the order in which the plan numbers their documents."""
        pieces = Pieces.read(folder)
        corpus = Corpus(stores)
        source = np.searchsorted(corpus.first, pieces.document, side="right") - 1
        boundary_tokens = BoundaryTokens(metadata.get("begin"), metadata.get("end"))
        counts = statistics.count_documents(pieces, corpus.length, boundary_tokens)
        return cls(metadata, corpus, pieces, source, counts)

    def entries(self) -> tuple[Json, dict[str, Json]]:
        """The plan's entries, and those of each source."""
        seq_len, count = self.metadata["seq_len"], len(self.corpus.stores)
        context = statistics.context_before(self.pieces, self.metadata["document_mask"])
        shares = statistics.own_context(
            self.pieces, context, self.source, count, statistics.own_bounds(seq_len)
        )
        within = statistics.sources_of_sequences(self.pieces, self.source, count)
        rows = {}
        for index, name in enumerate(self.corpus.stores):
            rows[name] = {
                **self._source(index, name),
                "own_context_share": _column(shares, index),
                "sequences": int(within[index]),
                "targets": int(self.pieces.targets[self.source == index].sum()),
            }
        entries = {
            "own_context_share": _column(shares, -1),
            "longest_own_context": statistics.longest_context(self.pieces, context),
        }
        return entries | self._plan(int(within.sum())), rows

    def _plan(self, pairs: int) -> Json:
        """`pairs`: the number of (sequence, source) pairs."""
        seq_len, piece_counts = self.metadata["seq_len"], np.diff(self.pieces.offsets)
        works = attention_work(
            self.pieces.length, self.pieces.offsets, seq_len, self.metadata["document_mask"]
        )
        counts, tokens = statistics.histogram(self.pieces.length, seq_len)
        sequence = {}
        if len(piece_counts):
            sequence = {
                "pieces": piece_counts.mean(),
                "most_pieces": piece_counts.max(),
                "sources": pairs / len(piece_counts),
            }
        return {
            "targets": int(self.pieces.targets.sum()),
            "piece_lengths": counts,
            "piece_tokens": tokens,
            "a_sequence": {key: round(float(value), 3) for key, value in sequence.items()},
            "work": balance.work_statistics(works, seq_len),
            "idle": balance.predicted_idle(works, seq_len),
            "heldout_long": self._heldout_long(),
        }

    def _heldout_long(self) -> int:
        """Held-out documents as long as a sequence; a store that two sources read counts once."""
        is_long = self.corpus.length >= self.metadata["seq_len"]
        return int((self.corpus.heldout_once & is_long).sum())

    def _source(self, index: int, name: str) -> Json:
        store, first = self.corpus.stores[name], self.corpus.first.tolist()
        counts = self.counts.of_documents(first[index], first[index + 1])
        in_part = (counts.times > 0) & (counts.distinct < store.length)
        largest = None
        if counts.tokens.any():
            document = int(counts.tokens.argmax())
            largest = {"document": store.ids[document], "tokens": int(counts.tokens[document])}
        return {
            "plan_documents": int((counts.times > 0).sum()),
            "distinct": int(counts.distinct.sum()),
            "repeated": int((counts.tokens - counts.distinct).sum()),
            "repeated_documents": int((counts.times > 1).sum()),
            "most_taken": int(counts.times.max(initial=0)),
            "in_part": int(in_part.sum()),
            "not_reached": int((store.length - counts.distinct)[in_part].sum()),
            "largest": largest,
            "half_from": statistics.documents_for_half(counts.tokens),
            "by_length": statistics.by_length(store.length, store.heldout, counts),
        }


def _column(shares: Mapping[int, np.ndarray], index: int) -> dict[str, float]:
    return {str(bound): round(float(share[index]), 6) for bound, share in shares.items()}


def prove(name: str, row: Mapping[str, Any]) -> None:
    """Compare the count over the plan with that of the mixture. Raises: ProofError."""
    pairs = {
        "tokens of": (row["distinct"] + row["repeated"], row["tokens_in_plan"]),
        "takings of one document of": (row["most_taken"], row["repeats"]),
    }
    for quantity, (counted, expected) in pairs.items():
        if counted != expected:
            raise ProofError(
                f"the plan holds {counted} {quantity} source {name}; it must hold the "
                f"{expected} that the mixture took; delete the plan's folder in cache_dir and run "
                "again, and if it stays, report it"
            )


def left_out(row: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    """Why documents and tokens of a source are not in the plan, from its row of the ledger.

    Removed documents have their own reasons (`removed: {reason: {documents, tokens}}`); the rest is
    `not_drawn`. With `distinct`, the tokens add up to those of the store.
    """
    reasons = dict(_reasons(row))
    documents = sum(counts["documents"] for counts in reasons.values())
    tokens = sum(counts["tokens"] for counts in reasons.values())
    reasons["cut"] = {"documents": row["in_part"], "tokens": row["not_reached"]}
    reasons["not_drawn"] = {
        "documents": row["documents"] - row["plan_documents"] - documents,
        "tokens": row["tokens"] - row["distinct"] - row["not_reached"] - tokens,
    }
    return {reason: counts for reason, counts in reasons.items() if any(counts.values())}


def _reasons(row: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, int]]]:
    for reason, (documents, tokens) in LEFT_OUT.items():
        yield reason, {"documents": row.get(documents, 0), "tokens": row.get(tokens, 0)}
    for reason, counts in (row.get("removed") or {}).items():
        yield reason, {key: counts[key] for key in ("documents", "tokens")}


def context_only_sources(data: DataConfig) -> list[str]:
    """Names of the sources whose labels do not count."""
    return [name for name, source in data.sources.items() if not source.loss]


def without_context_only(ledger: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """The ledger with `targets` corrected for the context-only sources `names`."""
    if not names:
        return ledger
    rows = {name: dict(row) for name, row in ledger["sources"].items()}
    for name in names:
        rows[name] |= {"targets": 0, "context_only": rows[name]["targets"]}
    plan = ledger["plan"] | {"targets": sum(row["targets"] for row in rows.values())}
    return ledger | {"sources": rows, "plan": plan}
