"""What the ledger says beside what each step told of itself: the finished plan counted again, from its pieces and the stores."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ropewalk.conf.errors import ProofError
from ropewalk.data.ledger import statistics
from ropewalk.data.ledger.statistics import Pieces, Taken
from ropewalk.data.loading import balance
from ropewalk.data.tokens.boundaries import BoundaryTokens
from ropewalk.data.tokens.store import Store

Json = dict[str, Any]
LEFT_OUT = {  # why a token is not in the plan -> the keys of its documents and tokens in a source's row
    "held_out": ("heldout_documents", "heldout_tokens"),
    "overlong": ("dropped_documents", "dropped"),
    "outside_length": ("outside_length_documents", "outside_length"),
}


@dataclass(frozen=True)
class PlanStatistics:
    """A finished plan beside its stores. Legend of `tally`."""

    facts: Mapping[str, Any]
    stores: Mapping[str, Store]
    pieces: Pieces
    first: np.ndarray  # (sources + 1,) the first document of each source among D
    source: np.ndarray  # (P,) the source of each piece
    taken: Taken

    @classmethod
    def of(
        cls, folder: Path, stores: Mapping[str, Store], facts: Mapping[str, Any]
    ) -> "PlanStatistics":
        """`stores` in the order that the plan numbers their documents; `facts` of its manifest."""
        pieces = Pieces.read(folder)
        first = np.cumsum([0, *(len(s.length) for s in stores.values())])
        source = np.searchsorted(first, pieces.document, side="right") - 1
        length = np.concatenate([s.length for s in stores.values()])
        found = statistics.taken(
            pieces, length, BoundaryTokens(facts.get("begin"), facts.get("end"))
        )
        return cls(facts, stores, pieces, first, source, found)

    def entries(self) -> tuple[Json, dict[str, Json]]:
        """The plan's entries, and those of each source."""
        seq_len, count = self.facts["seq_len"], len(self.stores)
        before = statistics.own_before(self.pieces, self.facts["document_mask"])
        shares = statistics.own_context(
            self.pieces, before, self.source, count, statistics.own_bounds(seq_len)
        )
        within = statistics.sources_of_sequences(self.pieces, self.source, count)
        rows = {}
        for at, name in enumerate(self.stores):
            own = {"own_context_share": _column(shares, at), "sequences": int(within[at])}
            own["targets"] = int(self.pieces.targets[self.source == at].sum())
            rows[name] = self._source(at, name) | own
        own = {
            "own_context_share": _column(shares, -1),
            "longest_own_context": statistics.longest_context(self.pieces, before),
        }
        return own | self._plan(int(within.sum())), rows

    def _plan(self, pairs: int) -> Json:
        """`pairs`: sequences by source, counted once for each source that they hold."""
        seq_len, each = self.facts["seq_len"], np.diff(self.pieces.offsets)
        works = balance.attention_work(
            self.pieces.length, self.pieces.offsets, seq_len, self.facts["document_mask"]
        )
        counts, tokens = statistics.histogram(self.pieces.length, seq_len)
        sequence = (
            {"pieces": each.mean(), "most_pieces": each.max(), "sources": pairs / len(each)}
            if len(each)
            else {}
        )
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
        each = {store.fingerprint: store for store in self.stores.values()}.values()
        return sum(int((s.length[s.heldout] >= self.facts["seq_len"]).sum()) for s in each)

    def _source(self, at: int, name: str) -> Json:
        store, here = self.stores[name], slice(int(self.first[at]), int(self.first[at + 1]))
        found = Taken(self.taken.times[here], self.taken.tokens[here], self.taken.distinct[here])
        in_part = (found.times > 0) & (found.distinct < store.length)
        most = int(found.tokens.argmax()) if found.tokens.any() else None
        return {
            "plan_documents": int((found.times > 0).sum()),
            "distinct": int(found.distinct.sum()),
            "repeated": int((found.tokens - found.distinct).sum()),
            "repeated_documents": int((found.times > 1).sum()),
            "most_taken": int(found.times.max(initial=0)),
            "in_part": int(in_part.sum()),
            "not_reached": int((store.length - found.distinct)[in_part].sum()),
            "largest": None
            if most is None
            else {"document": store.ids[most], "tokens": int(found.tokens[most])},
            "half_from": statistics.few_give_half(found.tokens),
            "by_length": statistics.by_length(store.length, store.heldout, found),
        }


def _column(shares: Mapping[int, np.ndarray], at: int) -> dict[str, float]:
    return {str(bound): round(float(share[at]), 6) for bound, share in shares.items()}


def prove(name: str, row: Mapping[str, Any]) -> None:
    """Hold the recount against what the mixture took of the source before it was packed. Raises: ProofError."""
    told = {
        "tokens of": (row["distinct"] + row["repeated"], row["tokens_in_plan"]),
        "takings of one document of": (row["most_taken"], row["repeats"]),
    }
    for what, (there, taken) in told.items():
        if there != taken:
            raise ProofError(
                f"the plan holds {there} {what} source {name}; it must hold the {taken} that the mixture took; "
                "delete the plan's folder in cache_dir and run again, and if it stays, report it"
            )


def left_out(row: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    """Why documents and tokens of a source are not in the plan, from its row. What was removed says its own reasons
    (`removed: {reason: {documents, tokens}}`); what no reason is given for, the mixture did not draw.

    With `distinct`, the tokens add up to those of the store."""
    found = dict(_reasons(row))
    documents = (
        row["documents"] - row["plan_documents"] - sum(f["documents"] for f in found.values())
    )
    tokens = (
        row["tokens"]
        - row["distinct"]
        - row["not_reached"]
        - sum(f["tokens"] for f in found.values())
    )
    found["cut"] = {"documents": row["in_part"], "tokens": row["not_reached"]}
    found["not_drawn"] = {"documents": documents, "tokens": tokens}
    return {reason: counts for reason, counts in found.items() if any(counts.values())}


def _reasons(row: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, int]]]:
    for reason, (documents, tokens) in LEFT_OUT.items():
        yield reason, {"documents": row.get(documents, 0), "tokens": row.get(tokens, 0)}
    for reason, counts in (row.get("removed") or {}).items():
        yield reason, {key: counts[key] for key in ("documents", "tokens")}
