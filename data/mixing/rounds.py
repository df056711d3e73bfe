"""Which documents of a source the plan takes, and how often. Pure.

Documents are taken in rounds: k rounds take a document of rate r floor(r k + u) times, where u in
[0, 1) is drawn once by a hash of seed, source and document (systematic sampling, Madow 1949). So a
round takes it floor(r) times, and once more with probability r - floor(r); k rounds take it r k
times, rounded down or up. Within a round documents are in an order by hash. A budget takes as many
rounds as it needs and cuts the last document. Rate 1, the default, is epoch after epoch.

Takings are computed for a range of documents at a time, so memory does not grow with a source.
"""

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from ropewalk.data import hash_random
from ropewalk.data.mixing.shares import refuse_empty_source

Rates = np.ndarray | float  # (documents,) or one for all
RANGE = 1 << 18  # documents whose takings are computed at a time
HASH_BITS = 16  # of a hash: tokens are summed by so many leading bits to find the last taking


@dataclass(frozen=True)
class Selection:
    """Takings of one source: whole documents, but for one that ends a budget."""

    index: np.ndarray  # (takings,) int64: the document in the source
    lengths: np.ndarray  # (takings,) int64: its first tokens, boundary tokens included
    epoch: np.ndarray  # (takings,) int64: how many earlier takings the document has
    key: np.ndarray  # (takings,) uint64: the document's key, from which its order is drawn

    @property
    def tokens(self) -> int:
        return int(self.lengths.sum())

    @property
    def repeats(self) -> int:
        """The most takings of one document, all of which are in this selection."""
        first = self.index.min(initial=np.iinfo(np.int64).max)
        return int(np.bincount(self.index - first).max(initial=0))


class _Documents(NamedTuple):
    """The usable documents of a range, an entry each."""

    document: np.ndarray  # its index in the source
    length: np.ndarray  # int64, tokens that may be taken
    key: np.ndarray
    rate: np.ndarray  # () when all documents have the same
    phase: np.ndarray  # u


class _Takings(NamedTuple):
    """Takings of a range. `document` is an index into its `_Documents`."""

    document: np.ndarray
    epoch: np.ndarray
    round: np.ndarray  # float64, counted from 1
    length: np.ndarray


class _Last(NamedTuple):
    """The taking that ends a budget; those that come later are left out."""

    round: float
    sort_key: int
    document: int  # its index in the source
    epoch: int
    tokens: int  # that are taken of it


@dataclass(frozen=True)
class SamplingRounds:
    """The usable documents of a source, taken in rounds. Arrays: (documents,) of all documents."""

    name: str
    lengths: np.ndarray  # tokens that may be taken
    usable: np.ndarray  # bool
    keys: np.ndarray
    seed: int
    rates: Rates = 1.0

    @cached_property
    def total(self) -> int:
        """Tokens of the usable documents."""
        return sum(int(documents.length.sum()) for documents in self._ranges())

    @property
    def round_tokens(self) -> int:
        """Expected tokens of a round: equal for all seeds, and not 0 when the draw is empty."""
        return int(self._expected)

    @cached_property
    def _expected(self) -> float:
        if np.ndim(self.rates) == 0:
            return float(self.total * self.rates)
        # one sum over one array: a sum of sums would differ in its last bits
        products = [documents.length * documents.rate for documents in self._ranges()]
        return float(np.concatenate([np.empty(0), *products]).sum())

    def tokens(self, rounds: int) -> int:
        if np.ndim(self.rates) == 0:
            return int(self.total * np.floor(self.rates * rounds))
        return sum(int((d.length * _counts(d, rounds)).sum()) for d in self._ranges())

    def rounds_for(self, budget: int) -> int:
        """The fewest rounds that give `budget` tokens."""
        # actual and expected tokens differ by less than `total`
        low, high = (int((budget + sign * self.total) // self._expected) for sign in (-1, 1))
        low = max(low, 1)
        return low + bisect_left(range(low, max(low, high) + 2), budget, key=self.tokens)

    def most_takings(self, budget: int | None) -> int:
        """Takings of as many rounds as `budget` tokens need; None: of one round."""
        rounds = 1 if budget is None or not self.total else self.rounds_for(budget)
        return sum(
            int(np.broadcast_to(_counts(documents, rounds), len(documents.document)).sum())
            for documents in self._ranges()
        )

    def parts(self, budget: int | None) -> Iterator[Selection]:
        """As many rounds as `budget` tokens need, the last document cut; None: one round.

        Each part has all takings of a range of documents. Raises: DataError for an empty source.
        """
        refuse_empty_source(self.name, self.total)
        rounds = 1 if budget is None else self.rounds_for(budget)
        last = None if budget is None else self._last_taking(rounds, budget)
        for documents in self._ranges():
            takings = _takings(documents, rounds)
            if last is not None:
                takings = self._until(last, documents, takings)
            document = takings.document
            yield Selection(
                documents.document[document], takings.length, takings.epoch, documents.key[document]
            )

    def _ranges(self) -> Iterator[_Documents]:
        for first in range(0, len(self.lengths), RANGE):
            span = slice(first, first + RANGE)
            rate = np.asarray(self.rates, dtype=np.float64)
            rate = rate[span] if rate.ndim else rate
            index = np.flatnonzero(self.usable[span] & (rate > 0)) + first
            rate = rate[index - first] if rate.ndim else rate
            key = self.keys[index]
            yield _Documents(
                index, self.lengths[index].astype(np.int64), key, rate, self._phase(key, rate)
            )

    def _phase(self, key: np.ndarray, rate: np.ndarray) -> np.ndarray:
        if not rate.ndim:
            return np.zeros(())
        sort_keys = hash_random.sort_keys(self.seed, f"{self.name}:repeats", key)
        return (sort_keys >> np.uint64(32)) / 2.0**32

    def _sort_keys(self, documents: _Documents, takings: _Takings) -> np.ndarray:
        key = documents.key[takings.document]
        return hash_random.sort_keys(self.seed, self.name, key, takings.epoch)

    def _last_taking(self, rounds: int, budget: int) -> _Last:
        """Takings are ordered by round, then by hash, then by document and epoch."""
        tokens = np.zeros(rounds + 2)
        for documents in self._ranges():
            takings = _takings(documents, rounds)
            rounds_of = takings.round.astype(np.int64)
            tokens += np.bincount(rounds_of, takings.length, rounds + 2)
        ends = np.cumsum(tokens)
        number = int(np.searchsorted(ends, budget))
        return self._last_of_round(number, rounds, budget - int(ends[number] - tokens[number]))

    def _last_of_round(self, number: int, rounds: int, budget: int) -> _Last:
        """The last taking of round `number`, from which `budget` tokens are taken."""
        tokens = np.zeros(1 << HASH_BITS)
        for _, takings, sort_key in self._of_round(number, rounds):
            tokens += np.bincount(_leading(sort_key), takings.length, 1 << HASH_BITS)
        ends = np.cumsum(tokens)
        leading = int(np.searchsorted(ends, budget))
        budget -= int(ends[leading] - tokens[leading])
        columns = []
        for documents, takings, sort_key in self._of_round(number, rounds):
            chosen = np.flatnonzero(_leading(sort_key) == leading)
            index = documents.document[takings.document]
            columns.append([a[chosen] for a in (sort_key, index, takings.epoch, takings.length)])
        sort_key, index, epoch, length = map(np.concatenate, zip(*columns, strict=True))
        order = np.argsort(sort_key, kind="stable")
        ends = np.cumsum(length[order])
        end = int(np.searchsorted(ends, budget))
        last = order[end]
        left = budget - int(ends[end] - length[last])
        return _Last(number, int(sort_key[last]), int(index[last]), int(epoch[last]), left)

    def _of_round(
        self, number: int, rounds: int
    ) -> Iterator[tuple[_Documents, _Takings, np.ndarray]]:
        """The takings of one round, and their hashes."""
        for documents in self._ranges():
            takings = _takings(documents, rounds)
            takings = _chosen(takings, takings.round == number)
            yield documents, takings, self._sort_keys(documents, takings)

    def _until(self, last: _Last, documents: _Documents, takings: _Takings) -> _Takings:
        """The takings up to the last one, which is cut."""
        takings = _chosen(takings, takings.round <= last.round)
        sort_key = self._sort_keys(documents, takings)
        index, key = documents.document[takings.document], np.uint64(last.sort_key)
        same = (takings.round == last.round) & (sort_key == key)
        is_last = same & (index == last.document) & (takings.epoch == last.epoch)
        later = (index > last.document) | ((index == last.document) & (takings.epoch > last.epoch))
        later = (takings.round == last.round) & ((sort_key > key) | (same & later))
        length = np.where(is_last, last.tokens, takings.length)
        return _chosen(takings._replace(length=length), ~later)


def _counts(documents: _Documents, rounds: int) -> np.ndarray:
    """How often `rounds` take each document; () when all have the same rate."""
    return np.floor(documents.rate * rounds + documents.phase)


def _takings(documents: _Documents, rounds: int) -> _Takings:
    counts = np.broadcast_to(_counts(documents, rounds).astype(np.int64), len(documents.document))
    document = np.repeat(np.arange(len(counts)), counts)
    epoch = np.arange(len(document)) - np.repeat(np.cumsum(counts) - counts, counts)
    rate, phase = (a[document] if a.ndim else a for a in (documents.rate, documents.phase))
    number = np.ceil((epoch + 1 - phase) / rate)
    return _Takings(document, epoch, number, documents.length[document])


def _chosen(takings: _Takings, mask: np.ndarray) -> _Takings:
    return takings if mask.all() else _Takings(*(column[mask] for column in takings))


def _leading(sort_key: np.ndarray) -> np.ndarray:
    return (sort_key >> np.uint64(64 - HASH_BITS)).astype(np.int64)
