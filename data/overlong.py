"""What the plan may take of a source: its training documents, and what becomes of those longer than a piece. Pure.

split      taken whole; the packer cuts them
truncate   their first tokens are taken, the rest is counted as cut
drop       left out and counted
error      refused
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from ropewalk.conf.errors import DataError
from ropewalk.data.marks import Marks
from ropewalk.data.shares import Share
from ropewalk.data.store import Store


@dataclass(frozen=True)
class Offer:
    """What a source gives the mixture to choose from."""

    lengths: np.ndarray  # (documents,) tokens that may be taken of each, marks among them
    usable: np.ndarray  # (documents,) bool: neither held out nor dropped
    dropped: int = 0  # stored tokens of the dropped documents
    dropped_documents: int = 0

    @property
    def tokens(self) -> int:
        return int(self.lengths[self.usable].sum())


def offer(name: str, store: Store, most: int, overlong: str, marks: Marks) -> Offer:
    """Apply `data.overlong` to documents of more than `most` tokens, marks among them.

    Raises: DataError for the first such document under `error`, and when `drop` leaves nothing.
    """
    lengths, train = store.length + marks.count, ~store.heldout
    long = train & (lengths > most)
    if overlong == "error" and long.any():
        raise _refusal(name, store, int(np.flatnonzero(long)[0]), most, marks)
    if overlong == "truncate":
        return Offer(np.minimum(lengths, most), train)
    if overlong != "drop":
        return Offer(lengths, train)
    if train.any() and not (train & ~long).any():
        raise DataError(
            f"data.overlong is drop; a source must keep a document, and all {int(long.sum())} training documents of {name} "
            f"are longer than {most} tokens; set split or truncate"
        )
    return Offer(lengths, train & ~long, int(store.length[long].sum()), int(long.sum()))


def _refusal(name: str, store: Store, index: int, most: int, marks: Marks) -> DataError:
    with_marks = " with data.begin and data.end" if marks.count else ""
    return DataError(
        f"data.overlong is error; document {store.ids[index]} of source {name} has {int(store.length[index]) + marks.count} "
        f"tokens{with_marks} and a piece holds {most}; shorten it, raise data.seq_len or the source's piece_len, or set split, "
        "truncate or drop"
    )


def account(share: Share, store: Store, marks: Marks) -> dict[str, Any]:
    """The share in the ledger's words: stored tokens in the plan, marks beside them, and tokens of documents taken in part
    that a budget or `truncate` left out. Repeats count each time."""
    kept = marks.stored(share.taken, store.length[share.index])
    return {
        "tokens_in_plan": int(kept.sum()),
        "marks": int((share.taken - kept).sum()),
        "cut": int((store.length[share.index] - kept).sum()),
        "epochs": share.epochs,
    }
