"""The mixture, on the document table alone: which documents of a source the plan takes, how often, and how much. Pure.

A document of rate r comes in rounds: after k of them it has come floor(r k + u) times, u in [0, 1) drawn once by a hash of seed,
source and document (systematic sampling, Madow 1949). So a round takes it floor(r) times, and once more with probability
r - floor(r); and k rounds take it r k times, rounded down or up. Within a round documents come in an order by hash. A budget takes
as many rounds as it needs and cuts the last document. Rate 1, where nothing else is said, is epoch after epoch.
"""

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from ropewalk.conf.errors import DataError
from ropewalk.data import hash_random

Rates = np.ndarray | float  # (documents,) or the same for all


@dataclass(frozen=True)
class Selection:
    """What the mixture takes of one source: whole documents, the last one cut to the budget. An array has an entry a taking."""

    index: np.ndarray  # (takings,) int64: the document in the source
    taken: np.ndarray  # (takings,) int64: its first tokens, marks among them
    epoch: np.ndarray  # (takings,) int64: which of its document's takings it is, from 0
    key: np.ndarray  # (takings,) uint64: the document's key, which decides its place in the mixture
    epochs: float  # tokens taken over tokens there are

    @property
    def tokens(self) -> int:
        return int(self.taken.sum())

    @property
    def repeats(self) -> int:
        """The most takings of one document."""
        return int(np.bincount(self.index).max(initial=0))


@dataclass(frozen=True)
class SamplingRounds:
    """A source's documents that may be taken, round after round. Arrays have an entry a document."""

    seed: int
    name: str
    index: np.ndarray  # in the source
    length: np.ndarray  # tokens that may be taken of it
    key: np.ndarray
    rate: np.ndarray  # () where all have the same
    phase: np.ndarray  # u

    @classmethod
    def of(
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
        found, rate = keys[index], _at(rate, index)
        phase = (
            (hash_random.sort_keys(seed, f"{name}:repeats", found) >> np.uint64(32)) / 2.0**32
            if rate.ndim
            else np.zeros(())
        )
        return cls(seed, name, index, lengths[index], found, rate, phase)

    @property
    def total(self) -> int:
        return int(self.length.sum())

    def counts(self, rounds: int) -> np.ndarray:
        """How often each has come after so many rounds; () where all have the same rate."""
        return np.floor(self.rate * rounds + self.phase)

    @property
    def round(self) -> int:
        """Tokens of a round, as expected: the same for every seed, and not 0 where a draw of few documents gives none."""
        return int((self.length * self.rate).sum())

    def tokens(self, rounds: int) -> int:
        return int((self.length * self.counts(rounds)).sum())

    def until(self, budget: int) -> int:
        """The fewest rounds that give `budget` tokens: what was given and what is to be expected differ by less than `total`."""
        mean = float((self.length * self.rate).sum())
        low, high = (int((budget + sign * self.total) // mean) for sign in (-1, 1))
        low = max(low, 1)
        return low + bisect_left(range(low, max(low, high) + 2), budget, key=self.tokens)

    def takings(self, rounds: int) -> tuple[np.ndarray, np.ndarray]:
        """`(place of the document here, which of its takings)` of each taking, in order of round and hash."""
        counts = np.broadcast_to(self.counts(rounds).astype(np.int64), len(self.index))
        at = np.repeat(np.arange(len(counts)), counts)
        number = np.arange(len(at)) - np.repeat(np.cumsum(counts) - counts, counts)
        rank = hash_random.sort_keys(self.seed, self.name, self.key[at], number)
        order = np.lexsort((rank, np.ceil((number + 1 - _at(self.phase, at)) / _at(self.rate, at))))
        return at[order], number[order]

    def take(self, budget: int | None) -> Selection:
        """As many rounds as `budget` tokens need, the last document cut; None: one round. Raises: DataError."""
        refuse_empty_source(self.name, self.total)
        at, number = self.takings(1 if budget is None else self.until(budget))
        taken = self.length[at].astype(np.int64)
        if budget is not None:
            ends = np.cumsum(taken)
            kept = int(np.searchsorted(ends, budget)) + 1
            at, number, taken = (
                at[:kept],
                number[:kept],
                np.minimum(taken, budget - ends + taken)[:kept],
            )
        return Selection(self.index[at], taken, number, self.key[at], int(taken.sum()) / self.total)


def _at(column: np.ndarray, at: np.ndarray) -> np.ndarray:
    return column[at] if column.ndim else column


def refuse_empty_source(name: str, total: int) -> None:
    """Raises: DataError when a source gives no token."""
    if total == 0:
        raise DataError(
            f"data.sources.{name} has no tokens to train on; it must hold at least one document that is not held out and has a length "
            "weight above 0; add some, or leave the source out"
        )


def refuse_repeats(name: str, repeats: int, epochs: float, most: int) -> None:
    """Raises: DataError when a document is taken more than `most` times."""
    if repeats > most:
        raise DataError(
            f"data.max_epochs is {most}; no document may be taken more often, and of {name} one would be taken {repeats} times "
            f"({epochs:.2f} epochs of all its tokens); add documents, lower data.tokens, the weight of {name}, its length_weights or "
            "data.buckets, or raise data.max_epochs"
        )


def split(total: int, weights: Mapping[str, float]) -> dict[str, int]:
    """`total` tokens by relative weights, to the token: rounded down, and what is left goes to the largest remainders."""
    exact = {
        name: Fraction(str(weight)) for name, weight in weights.items()
    }  # as written: 0.1 is a tenth
    whole = sum(exact.values()) or 1
    shares = {name: total * weight / whole for name, weight in exact.items()}
    found = {name: int(share) for name, share in shares.items()}
    left = total - sum(found.values()) if any(exact.values()) else 0
    for name in sorted(shares, key=lambda name: found[name] - shares[name])[:left]:
        found[name] += 1
    return found


def first_to_run_out(weights: Mapping[str, float], available: Mapping[str, int | None]) -> int:
    """The most tokens that can be split by `weights` so that none is asked for more than is `available` (None: no end)."""
    exact = {name: Fraction(str(weight)) for name, weight in weights.items()}
    ends = [
        a * sum(exact.values()) / exact[n]
        for n, a in available.items()
        if a is not None and exact[n] > 0
    ]
    return int(min(ends, default=0))


def budgets(
    weights: Mapping[str, float | None],
    available: Mapping[str, int | None],
    tokens: int | None,
    rounds: Mapping[str, int | None] | None = None,
) -> dict[str, int | None]:
    """Tokens each source gives, adding up to the total. `available` is None for a synthetic source, which gives what is asked.

    Without weights, sources stand to one another as their tokens do. Without a total, it is what the first source to run out
    allows, a round of each being `rounds` tokens (unset: what is available). With neither and no `rounds`: all there is.
    """
    if tokens is None and rounds is None and all(w is None for w in weights.values()):
        return dict.fromkeys(weights)
    by_size = all(w is None for w in weights.values())
    sizes = {
        name: (available[name] if by_size else weight) or 0 for name, weight in weights.items()
    }
    total = (
        first_to_run_out(sizes, available if rounds is None else rounds)
        if tokens is None
        else tokens
    )
    return dict(split(total, sizes))
