"""The ledger's entries of a plan, counted from pieces and stores, not from the mixture."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ropewalk.conf.data import DataConfig
from ropewalk.conf.errors import ProofError
from ropewalk.data.ledger import statistics
from ropewalk.data.ledger.document_sums import DocumentSums
from ropewalk.data.ledger.piece_sums import PieceSums
from ropewalk.data.ledger.statistics import Pieces
from ropewalk.data.packing import plan
from ropewalk.data.tokens.corpus import Corpus
from ropewalk.data.tokens.store import BoundaryTokens, Store

Json = dict[str, Any]
# reason -> the keys of its documents and tokens in a source's row
LEFT_OUT = {
    "held_out": ("heldout_documents", "heldout_tokens"),
    "overlong": ("dropped_documents", "dropped"),
    "outside_length": ("outside_length_documents", "outside_length"),
}


DOCUMENTS = 1 << 24  # whose counts are in memory at a time
PART = 1 << 20  # of them, that are added up at a time


def count_plan(
    folder: Path, stores: Mapping[str, Store], metadata: Mapping[str, Any]
) -> tuple[Json, dict[str, Json]]:
    """The entries of a finished plan, and those of each source.

    `stores` are in the order in which the plan numbers their documents, `metadata` is that of the
    plan's manifest. The plan is read once for its pieces, and once for each range of documents.
    """
    corpus = Corpus(stores)
    pieces = _sum_pieces(folder, corpus, metadata)
    shares = pieces.own_context_shares()
    rows = {}
    for index, (name, documents) in enumerate(_sum_documents(folder, corpus, metadata).items()):
        rows[name] = {
            **documents.entries(stores[name].ids),
            "own_context_share": _column(shares, index),
            "sequences": int(pieces.sequences[index]),
            "targets": int(pieces.targets[index]),
        }
    entries = {
        "own_context_share": _column(shares, -1),
        "longest_own_context": pieces.longest_context,
        **pieces.entries(),
        "heldout_long": corpus.heldout_of(metadata["seq_len"]),
    }
    return entries, rows


def _sum_pieces(folder: Path, corpus: Corpus, metadata: Mapping[str, Any]) -> PieceSums:
    sums = PieceSums(metadata["seq_len"], metadata["document_mask"], len(corpus.stores))
    with plan.read_blocks(folder) as blocks:
        for packed in blocks:
            source = np.searchsorted(corpus.first, packed.document, side="right") - 1
            sums.add(Pieces.of(packed), source)
    return sums


def _sum_documents(
    folder: Path, corpus: Corpus, metadata: Mapping[str, Any]
) -> dict[str, DocumentSums]:
    boundary_tokens = BoundaryTokens(metadata.get("begin"), metadata.get("end"))
    sums = {name: DocumentSums() for name in corpus.stores}
    for low in range(0, int(corpus.first[-1]), DOCUMENTS):
        spans = corpus.spans(low, low + DOCUMENTS)
        length = np.concatenate([corpus.stores[n].length[span] for n, span in spans.items()])
        with plan.read_blocks(folder) as blocks:
            pieces = map(Pieces.of, blocks)
            counts = statistics.count_documents(pieces, low, length, boundary_tokens)
        before = 0
        for name, span in spans.items():
            for first in range(span.start, span.stop, PART):
                part = slice(first, min(first + PART, span.stop))
                begin, before = before, before + part.stop - part.start
                store, of_part = corpus.stores[name], counts.of_documents(begin, before)
                sums[name].add(first, store.length[part], store.heldout[part], of_part)
    return sums


def _column(shares: Mapping[str, np.ndarray], index: int) -> dict[str, float]:
    return {bound: round(float(share[index]), 6) for bound, share in shares.items()}


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
