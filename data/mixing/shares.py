"""The mixture: which documents of a source the plan takes, how often, and how much. Pure.

Documents are taken in rounds: k rounds take a document of rate r floor(r k + u) times, where u in
[0, 1) is drawn once by a hash of seed, source and document (systematic sampling, Madow 1949). So a
round takes it floor(r) times, and once more with probability r - floor(r); k rounds take it r k
times, rounded down or up. Within a round documents are in an order by hash. A budget takes as many
rounds as it needs and cuts the last document. Rate 1, the default, is epoch after epoch.
"""

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from ropewalk.conf.errors import DataError
from ropewalk.data import hash_random

Rates = np.ndarray | float  # (documents,) or one for all


@dataclass(frozen=True)
class Selection:
    """The takings of one source: whole documents, the last one cut to the budget."""

    index: np.ndarray  # (takings,) int64: the document in the source
    lengths: np.ndarray  # (takings,) int64: its first tokens, boundary tokens included
    epoch: np.ndarray  # (takings,) int64: how many earlier takings the document has
    key: np.ndarray  # (takings,) uint64: the document's key, from which its order is drawn
    epochs: float  # tokens taken / tokens of the source

    @property
    def tokens(self) -> int:
        return int(self.lengths.sum())

    @property
    def repeats(self) -> int:
        """The most takings of one document."""
        return int(np.bincount(self.index).max(initial=0))


class Takings(NamedTuple):
    """The takings of all sources in mixed order, each (takings,) int64."""

    source: np.ndarray  # index of the source
    document: np.ndarray  # number of the document among those of all sources
    tokens: np.ndarray


def mix(selections: Mapping[str, Selection], first: Mapping[str, int], seed: int) -> Takings:
    """All takings in the order of their hash.

    `first[name]` is the number of the source's first document.
    """
    empty = np.empty(0, np.int64)
    counts = [len(selection.index) for selection in selections.values()]
    source = np.repeat(np.arange(len(selections)), counts)
    documents = [first[name] + selection.index for name, selection in selections.items()]
    document = np.concatenate([empty, *documents])
    tokens = np.concatenate([empty, *(selection.lengths for selection in selections.values())])
    sort_keys = [
        hash_random.sort_keys(seed, f"mix:{name}", selection.key, selection.epoch)
        for name, selection in selections.items()
    ]
    order = np.lexsort((document, np.concatenate([empty.astype(np.uint64), *sort_keys])))
    return Takings(source[order], document[order], tokens[order])


@dataclass(frozen=True)
class SamplingRounds:
    """The usable documents of a source, taken in rounds. Arrays: an entry a document."""

    seed: int
    name: str
    index: np.ndarray  # in the source
    length: np.ndarray  # tokens that may be taken
    key: np.ndarray
    rate: np.ndarray  # () when all documents have the same
    phase: np.ndarray  # u

    @classmethod
    def from_documents(
        cls,
        name: str,
        lengths: np.ndarray,
        usable: np.ndarray,
        keys: np.ndarray,
        seed: int,
        rates: Rates = 1.0,
    ) -> "SamplingRounds":
        rate = np.asarray(rates, dtype=np.float64)
        index = np.flatnonzero(usable & (rate > 0))
        key, rate = keys[index], _select(rate, index)
        phase = np.zeros(())
        if rate.ndim:
            sort_keys = hash_random.sort_keys(seed, f"{name}:repeats", key)
            phase = (sort_keys >> np.uint64(32)) / 2.0**32
        return cls(seed, name, index, lengths[index], key, rate, phase)

    @property
    def total(self) -> int:
        return int(self.length.sum())

    def counts(self, rounds: int) -> np.ndarray:
        """How often `rounds` take each document; () when all have the same rate."""
        return np.floor(self.rate * rounds + self.phase)

    @property
    def round_tokens(self) -> int:
        """Expected tokens of a round: equal for all seeds, and not 0 when the draw is empty."""
        return int((self.length * self.rate).sum())

    def tokens(self, rounds: int) -> int:
        return int((self.length * self.counts(rounds)).sum())

    def rounds_for(self, budget: int) -> int:
        """The fewest rounds that give `budget` tokens."""
        # actual and expected tokens differ by less than `total`
        mean = float((self.length * self.rate).sum())
        low, high = (int((budget + sign * self.total) // mean) for sign in (-1, 1))
        low = max(low, 1)
        return low + bisect_left(range(low, max(low, high) + 2), budget, key=self.tokens)

    def takings(self, rounds: int) -> tuple[np.ndarray, np.ndarray]:
        """`(document, epoch)` of each taking, by round and hash.

        `document` indexes the arrays of this object.
        """
        counts = np.broadcast_to(self.counts(rounds).astype(np.int64), len(self.index))
        document = np.repeat(np.arange(len(counts)), counts)
        epoch = np.arange(len(document)) - np.repeat(np.cumsum(counts) - counts, counts)
        sort_keys = hash_random.sort_keys(self.seed, self.name, self.key[document], epoch)
        phase, rate = _select(self.phase, document), _select(self.rate, document)
        order = np.lexsort((sort_keys, np.ceil((epoch + 1 - phase) / rate)))
        return document[order], epoch[order]

    def take(self, budget: int | None) -> Selection:
        """As many rounds as `budget` tokens need, the last document cut; None: one round.

        Raises: DataError when the source is empty.
        """
        refuse_empty_source(self.name, self.total)
        document, epoch = self.takings(1 if budget is None else self.rounds_for(budget))
        lengths = self.length[document].astype(np.int64)
        if budget is not None:
            ends = np.cumsum(lengths)
            count = int(np.searchsorted(ends, budget)) + 1
            lengths = np.minimum(lengths, budget - ends + lengths)[:count]
            document, epoch = document[:count], epoch[:count]
        epochs = int(lengths.sum()) / self.total
        return Selection(self.index[document], lengths, epoch, self.key[document], epochs)


def _select(column: np.ndarray, index: np.ndarray) -> np.ndarray:
    """`column[index]`, or the one value for all."""
    return column[index] if column.ndim else column


def refuse_empty_source(name: str, total: int) -> None:
    """Raises: DataError when a source gives no token."""
    if total == 0:
        raise DataError(
            f"data.sources.{name} has no tokens to train on; it must hold at least one document "
            "that is not held out and has a length weight above 0; add some, or leave the source "
            "out"
        )


def refuse_repeats(name: str, repeats: int, epochs: float, limit: int) -> None:
    """Raises: DataError when a document is taken more than `limit` times."""
    if repeats > limit:
        raise DataError(
            f"data.max_epochs is {limit}; no document may be taken more often, and of {name} one "
            f"would be taken {repeats} times ({epochs:.2f} epochs of all its tokens); add "
            f"documents, lower data.total_tokens, the weight of {name}, its length_weights or "
            "data.buckets, or raise data.max_epochs"
        )


def split_budget(total: int, weights: Mapping[str, float]) -> dict[str, int]:
    """`total` tokens by relative weights (largest remainder method)."""
    # through str: 0.1 is exactly a tenth
    exact = {name: Fraction(str(weight)) for name, weight in weights.items()}
    weight_sum = sum(exact.values()) or 1
    shares = {name: total * weight / weight_sum for name, weight in exact.items()}
    budgets = {name: int(share) for name, share in shares.items()}
    remaining = total - sum(budgets.values()) if any(exact.values()) else 0
    for name in sorted(shares, key=lambda name: budgets[name] - shares[name])[:remaining]:
        budgets[name] += 1
    return budgets


def first_to_run_out(weights: Mapping[str, float], available: Mapping[str, int | None]) -> int:
    """The largest total that splits by `weights` within every `available` (None: unlimited)."""
    exact = {name: Fraction(str(weight)) for name, weight in weights.items()}
    limits = [
        tokens * sum(exact.values()) / exact[name]
        for name, tokens in available.items()
        if tokens is not None and exact[name] > 0
    ]
    return int(min(limits, default=0))


def token_budgets(
    weights: Mapping[str, float | None],
    available: Mapping[str, int | None],
    tokens: int | None,
    rounds: Mapping[str, int | None] | None = None,
) -> dict[str, int | None]:
    """Tokens of each source, adding up to the total; None: one round.

    `available` is None for a synthetic source. Without weights, the sources' tokens are their
    weights. Without a total, the first source to run out limits it, after one round of `rounds`
    tokens (None: `available`). Without any of the three: all tokens of every source.
    """
    by_size = all(weight is None for weight in weights.values())
    if tokens is None and rounds is None and by_size:
        return dict.fromkeys(weights)
    sizes = {
        name: (available[name] if by_size else weight) or 0 for name, weight in weights.items()
    }
    if tokens is None:
        tokens = first_to_run_out(sizes, available if rounds is None else rounds)
    return dict(split_budget(tokens, sizes))
