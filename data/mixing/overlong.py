"""What the plan may take of a source: its training documents, and what becomes of those longer than a piece. Pure.

split      taken whole; the packer cuts them
truncate   their first tokens are taken, the rest is counted as cut
drop       left out and counted
error      refused
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ropewalk.conf.errors import DataError
from ropewalk.data.mixing.shares import Selection
from ropewalk.data.tokens.boundaries import BoundaryTokens
from ropewalk.data.tokens.store import Store


@dataclass(frozen=True)
class Candidates:
    """What a source gives the mixture to choose from."""

    lengths: np.ndarray  # (documents,) tokens that may be taken of each, marks among them
    usable: np.ndarray  # (documents,) bool: neither held out nor left out nor dropped nor removed
    dropped: int = 0  # stored tokens of the dropped documents
    dropped_documents: int = 0
    outside_length: int = (
        0  # stored tokens of the documents that the source's min_len and max_len leave out
    )
    outside_length_documents: int = 0
    removed: Mapping[str, np.ndarray] = field(
        default_factory=dict
    )  # reason -> numbers of the documents

    def without(self, documents: np.ndarray, reason: str) -> "Candidates":
        """The usable ones of `documents` (documents,) bool leave for a reason that the ledger tells."""
        leave = self.usable & documents
        if not leave.any():
            return self
        return replace(
            self,
            usable=self.usable & ~leave,
            removed={**self.removed, reason: np.flatnonzero(leave)},
        )

    @property
    def removal(self) -> str | None:
        """What tells one choice of removed documents from another; None when none is removed."""
        numbers = np.sort(np.concatenate([np.empty(0, np.int64), *self.removed.values()]))
        return (
            hashlib.sha256(numbers.astype("<i8").tobytes()).hexdigest()[:16]
            if len(numbers)
            else None
        )

    @property
    def tokens(self) -> int:
        return int(self.lengths[self.usable].sum())


def offer(
    name: str,
    store: Store,
    most: int,
    overlong: str,
    marks: BoundaryTokens,
    left_out: np.ndarray | bool = False,
) -> Candidates:
    """Apply `data.overlong` to documents of more than `most` tokens, marks among them, but for what is `left_out` (documents,) bool.

    Raises: DataError for the first such document under `error`, and when `drop` leaves nothing.
    """
    lengths, train = store.length + marks.count, ~(store.heldout | left_out)
    long = train & (lengths > most)
    if overlong == "error" and long.any():
        raise _refusal(name, store, int(np.flatnonzero(long)[0]), most, marks)
    if overlong == "truncate":
        return Candidates(np.minimum(lengths, most), train)
    if overlong != "drop":
        return Candidates(lengths, train)
    if train.any() and not (train & ~long).any():
        raise DataError(
            f"data.overlong is drop; a source must keep a document, and all {int(long.sum())} training documents of {name} "
            f"are longer than {most} tokens; set split or truncate"
        )
    return Candidates(lengths, train & ~long, int(store.length[long].sum()), int(long.sum()))


def _refusal(name: str, store: Store, index: int, most: int, marks: BoundaryTokens) -> DataError:
    with_marks = " with data.begin and data.end" if marks.count else ""
    return DataError(
        f"data.overlong is error; document {store.ids[index]} of source {name} has {int(store.length[index]) + marks.count} "
        f"tokens{with_marks} and a piece holds {most}; shorten it, raise data.seq_len or the source's piece_len, or set split, "
        "truncate or drop"
    )


def removed(offer: Candidates, store: Store) -> dict[str, dict[str, int]]:
    """Reason -> documents and stored tokens that cleaning removed."""
    found = offer.removed.items()
    return {
        reason: {"documents": len(k), "tokens": int(store.length[k].sum())} for reason, k in found
    }


def ledger_row(share: Selection, store: Store, marks: BoundaryTokens) -> dict[str, Any]:
    """The share in the ledger's words: stored tokens in the plan, marks beside them, and tokens of documents taken in part
    that a budget or `truncate` left out. Repeats count each time; `repeats` is the most takings of one document."""
    kept = marks.stored(share.taken, store.length[share.index])
    return {
        "tokens_in_plan": int(kept.sum()),
        "marks": int((share.taken - kept).sum()),
        "cut": int((store.length[share.index] - kept).sum()),
        "epochs": share.epochs,
        "repeats": share.repeats,
    }
