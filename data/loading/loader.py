"""Which sequences a step reads, and which of them a rank: functions of (seed, step) and the rank, so that nothing is kept and
nothing needs to be found again on resume. Pure but for the reading itself."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, Protocol

import numpy as np

from ropewalk.data.loading import balance
from ropewalk.data.loading.collate import Row, collate, padding


class SequenceRef(NamedTuple):
    """One reading of a sequence."""

    number: int
    epoch: int


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, count: int) -> np.ndarray:
    return np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(count)


def global_batch(
    step: int, *, seed: int, count: int, batch: int, first: int | None = None
) -> list[SequenceRef]:
    """The global batch of `step` (from 0) over `count` sequences: a function of `(seed, step)` alone, epoch after epoch.

    `first`: how many were read before it, where not all batches are of one size; unset: `step` x `batch`.
    """
    first = step * batch if first is None else first
    places = range(first, first + batch)
    return [
        SequenceRef(int(_order(seed, place // count, count)[place % count]), place // count)
        for place in places
    ]


def local_batch(
    turns: list[SequenceRef], dp_rank: int, dp_size: int, work: Callable[[int], int] | None
) -> list[SequenceRef]:
    """What one of `dp_size` groups reads of a global batch, in the order it does; `work(number)` balances the groups."""
    if work is None or dp_size == 1:
        return turns[dp_rank::dp_size]
    ordered = sorted(turns)  # equal work goes by number
    return [
        ordered[place]
        for place in balance.deal([work(t.number) for t in ordered], dp_size)[dp_rank]
    ]


class SequenceSource(Protocol):
    """What a feed needs of `Sequences`."""

    seq_len: int

    def __len__(self) -> int: ...
    def read(self, number: int, epoch: int = 0, low: int = 0, high: int | None = None) -> Row: ...
    def labels(self, number: int) -> int: ...
    def work(self, number: int) -> int: ...
    def sources(self, number: int) -> tuple[np.ndarray, np.ndarray]: ...


def level(step: int, levels: Sequence[tuple[int, int]]) -> int:
    """The value at `step` of `(first step, value from there on)`, the first of them from 0."""
    return next(value for first, value in reversed(levels) if step >= first)


def before(step: int, levels: Sequence[tuple[int, int]]) -> int:
    """The sum of the values of all steps before `step`."""
    ends = [*(first for first, _ in levels[1:]), step]
    return sum(
        max(0, min(end, step) - first) * value
        for (first, value), end in zip(levels, ends, strict=True)
    )


@dataclass(frozen=True)
class BatchLoader:
    """What one rank reads of a plan: micro-batches of `micro` sequences, `accumulated` of them a step, and from the steps of `ramp`
    on (from 0) as many as it says. `start` sequences of the seed's order were read before.

    Of the `sp_size` ranks that share a micro-batch laid end to end, each reads its own slice. A line that they do not divide ends in
    fewer than `sp_size` tokens of padding, a document of its own.
    """

    sequences: SequenceSource
    seed: int
    micro: int
    accumulated: int
    dp_rank: int = 0
    dp_size: int = 1
    sp_rank: int = 0
    sp_size: int = 1
    balanced: bool = True
    ramp: Sequence[tuple[int, int]] = ()
    start: int = 0

    def turns(self, step: int) -> list[SequenceRef]:
        """The global batch."""
        each = self.micro * self.dp_size
        batch, first = (
            each * self.accumulated_at(step),
            self.start + each * before(step, self._levels),
        )
        return global_batch(
            step, seed=self.seed, count=len(self.sequences), batch=batch, first=first
        )

    def accumulated_at(self, step: int) -> int:
        """Micro-batches of a step."""
        return level(step, self._levels)

    @property
    def _levels(self) -> Sequence[tuple[int, int]]:
        return [(0, self.accumulated), *self.ramp]

    def labels(self, step: int) -> int:
        """How many labels of the global batch count."""
        return sum(self.sequences.labels(turn.number) for turn in self.turns(step))

    def micro_batches(self, steps: Iterable[int]) -> Iterator[Row]:
        """This rank's, step after step."""
        for step in steps:
            for turns in self.mine(step):
                yield self.micro_batch(turns)

    def mine(self, step: int) -> list[list[SequenceRef]]:
        """What this rank reads in a step, by micro-batch."""
        work = self.sequences.work if self.balanced else None
        turns = local_batch(self.turns(step), self.dp_rank, self.dp_size, work)
        return [turns[first : first + self.micro] for first in range(0, len(turns), self.micro)]

    def sources_of(self, turns: list[SequenceRef]) -> np.ndarray:
        """Of each token of a micro-batch the place of its store, (S,) int64, or of this rank's slice; 0 on padding."""
        line = np.zeros((len(turns), self.sequences.seq_len), dtype=np.int64)
        for row, turn in zip(line, turns, strict=True):
            lengths, stores = self.sequences.sources(turn.number)
            row[: lengths.sum()] = np.repeat(stores, lengths)
        width = self._width(line.size)
        return np.pad(line.reshape(-1), (0, width * self.sp_size - line.size))[
            self.sp_rank * width :
        ][:width]

    def _width(self, line: int) -> int:
        """Tokens of a rank's slice of a line."""
        return -(-line // self.sp_size)

    def micro_batch(self, turns: list[SequenceRef]) -> Row:
        """Sequences laid end to end, or this rank's slice of the line."""
        size = self.sequences.seq_len
        line, width = len(turns) * size, self._width(len(turns) * size)
        low, rows = self.sp_rank * width, []
        for place, turn in enumerate(turns):
            begin, end = (min(max(x - place * size, 0), size) for x in (low, low + width))
            rows.append(self.sequences.read(turn.number, turn.epoch, begin, end))
        if more := width * self.sp_size - line:
            rows.append(padding(more, *(min(max(x - line, 0), more) for x in (low, low + width))))
        return rows[0] if len(rows) == 1 else collate(rows)
