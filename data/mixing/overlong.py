"""The usable documents of a source, and the policies for documents longer than a piece. Pure.

split      whole documents are taken; the packer cuts them
truncate   their first tokens are taken, the rest is counted as cut
drop       they are left out and counted
error      they are refused
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from ropewalk.conf.errors import DataError
from ropewalk.data.mixing.rounds import Selection
from ropewalk.data.tokens.store import BoundaryTokens, Store


@dataclass(frozen=True)
class Candidates:
    """The documents of a source that the mixture may choose from."""

    lengths: np.ndarray  # (documents,) tokens that may be taken of each, with boundary tokens
    usable: np.ndarray  # (documents,) bool: not held out, excluded, dropped or removed
    dropped: int = 0  # stored tokens of the dropped documents
    dropped_documents: int = 0
    outside_length: int = 0  # stored tokens of the documents that min_len and max_len exclude
    outside_length_documents: int = 0
    removed: Mapping[str, np.ndarray] = field(default_factory=dict)
    """reason -> document indices"""

    def without(self, documents: np.ndarray, reason: str) -> "Candidates":
        """Remove the usable documents of the mask `documents` (documents,) bool.

        The ledger reports the reason.
        """
        mask = self.usable & documents
        if not mask.any():
            return self
        removed = {**self.removed, reason: np.flatnonzero(mask)}
        return replace(self, usable=self.usable & ~mask, removed=removed)

    @property
    def removed_digest(self) -> str | None:
        """Identifies the set of removed documents; None when no document is removed."""
        indices = np.sort(np.concatenate([np.empty(0, np.int64), *self.removed.values()]))
        if not len(indices):
            return None
        return hashlib.sha256(indices.astype("<i8").tobytes()).hexdigest()[:16]

    @property
    def tokens(self) -> int:
        return int(self.lengths[self.usable].sum())


def candidates(
    name: str,
    store: Store,
    limit: int,
    policy: str,
    boundary_tokens: BoundaryTokens,
    excluded: np.ndarray | bool = False,
) -> Candidates:
    """Apply `data.overlong` to documents of more than `limit` tokens, boundary tokens included.

    `excluded` (documents,) bool marks documents that other settings leave out.
    Raises: DataError for the first such document under `error`, and when `drop` leaves no document.
    """
    lengths, train = boundary_tokens.with_boundaries(store.length), ~(store.heldout | excluded)
    long = train & (lengths > limit)
    if policy == "error" and long.any():
        raise _overlong_error(name, store, int(np.flatnonzero(long)[0]), limit, boundary_tokens)
    if policy == "truncate":
        return Candidates(np.minimum(lengths, limit), train)
    if policy != "drop":
        return Candidates(lengths, train)
    if train.any() and not (train & ~long).any():
        raise DataError(
            f"data.overlong is drop; a source must keep a document, and all {int(long.sum())} "
            f"training documents of {name} are longer than {limit} tokens; set split or truncate"
        )
    return Candidates(lengths, train & ~long, int(store.length[long].sum()), int(long.sum()))


def _overlong_error(
    name: str, store: Store, index: int, limit: int, boundary_tokens: BoundaryTokens
) -> DataError:
    count = boundary_tokens.count
    suffix = " with data.begin and data.end" if count else ""
    return DataError(
        f"data.overlong is error; document {store.ids[index]} of source {name} has "
        f"{int(store.length[index]) + count} tokens{suffix} and a piece holds {limit}; shorten "
        "it, raise data.seq_len or the source's piece_len, or set split, truncate or drop"
    )


def removed_counts(usable: Candidates, store: Store) -> dict[str, dict[str, int]]:
    """Reason -> documents and stored tokens that cleaning removed."""
    return {
        reason: {"documents": len(indices), "tokens": int(store.length[indices].sum())}
        for reason, indices in usable.removed.items()
    }


def count_taken(part: Selection, store: Store, boundary_tokens: BoundaryTokens) -> dict[str, int]:
    """Counts of takings for the ledger; those of several parts add up.

    `tokens_in_plan`: stored tokens, repeats counted each time. `marks`: boundary tokens. `cut`:
    stored tokens of documents taken in part that a budget or `truncate` left out.
    """
    length = store.length[part.index]
    stored = int(boundary_tokens.stored(part.lengths, length).sum())
    return {
        "tokens_in_plan": stored,
        "marks": part.tokens - stored,
        "cut": int(length.sum()) - stored,
    }
