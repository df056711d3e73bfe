"""The data loader: which sequences the ranks read at a step, and the micro-batches of one rank.

Everything is a function of (seed, step) and the rank, so the loader keeps no state and resuming
needs only the number of the step.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np

from ropewalk.data.loading.collate import Row, collate, padding
from ropewalk.data.random_streams import Purpose, generator

# (first step, value from that step on); the first entry starts at 0
Steps = Sequence[tuple[int, int]]


class SequenceRef(NamedTuple):
    """Sequence `number` of the plan, read in `epoch`."""

    number: int
    epoch: int


class TokenSpan(NamedTuple):
    """Tokens `[begin, end)` of sequence `number` in `epoch`; -1 is padding between the ranks."""

    number: int
    epoch: int
    begin: int
    end: int


class SequenceSource(Protocol):
    """The part of `PackedSequences` that the loader uses."""

    seq_len: int

    def __len__(self) -> int: ...
    def read(self, number: int, epoch: int = 0, low: int = 0, high: int | None = None) -> Row: ...
    def num_labels(self, number: int) -> int: ...
    def attention_work(self, number: int) -> int: ...
    def piece_sources(self, number: int) -> tuple[np.ndarray, np.ndarray]: ...


class RankMesh(Protocol):
    """The part of `train.zero.mesh.Mesh` that the loader uses.

    `dp_rank` selects sequences, `sp_rank` a slice of each.
    """

    @property
    def dp_rank(self) -> int: ...
    @property
    def dp_size(self) -> int: ...
    @property
    def sp_rank(self) -> int: ...
    @property
    def sp_size(self) -> int: ...


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, count: int) -> np.ndarray:
    return generator(Purpose.STEP_ORDER, seed, epoch).permutation(count)


def global_batch(first: int, size: int, *, seed: int, count: int) -> list[SequenceRef]:
    """Sequences `first` to `first + size` of the seed's order, over epochs of `count`."""
    return [
        SequenceRef(int(_order(seed, index // count, count)[index % count]), index // count)
        for index in range(first, first + size)
    ]


def local_batch(
    refs: list[SequenceRef], dp_rank: int, dp_size: int, work: Callable[[int], int] | None
) -> list[SequenceRef]:
    """The part of a global batch that one of `dp_size` groups reads, in order.

    `work(number)` is the attention work, which balances the groups; None: round robin.
    """
    if work is None or dp_size == 1:
        return refs[dp_rank::dp_size]
    ordered = sorted(refs)  # ties in work are broken by number
    dealt = deal([work(ref.number) for ref in ordered], dp_size)
    return [ordered[index] for index in dealt[dp_rank]]


def deal(works: Sequence[int] | np.ndarray, dp_size: int) -> np.ndarray:
    """Indices into the batch that each group computes in turn: (..., dp_size, batch / dp_size).

    `works` (..., batch) may be of several batches. The heaviest come first, one a group, so that
    all groups are near equal in each round; the next round goes back the other way, so that no
    group has the most each time. Ties keep their order.
    """
    order = np.argsort(-np.asarray(works, dtype=np.int64), axis=-1, kind="stable")
    rounds = order.reshape(*order.shape[:-1], -1, dp_size)
    rounds[..., 1::2, :] = rounds[..., 1::2, ::-1]
    return rounds.swapaxes(-1, -2)


def round_robin(batch: int, dp_size: int) -> np.ndarray:
    """`deal` regardless of the work: (dp_size, batch / dp_size)."""
    return np.arange(batch).reshape(-1, dp_size).T


def value_at(step: int, steps: Steps) -> int:
    """The value in force at `step`."""
    return next(value for first, value in reversed(steps) if step >= first)


def sum_before(step: int, steps: Steps) -> int:
    """The sum of the values of all steps before `step`."""
    ends = [*(first for first, _ in steps[1:]), step]
    return sum(
        max(0, min(end, step) - first) * value
        for (first, value), end in zip(steps, ends, strict=True)
    )


@dataclass(frozen=True)
class BatchLoader:
    """The micro-batches that one rank reads of a plan.

    The `sp_size` ranks that share a micro-batch each read a slice of its concatenated sequences.
    A length that `sp_size` does not divide is padded by fewer than `sp_size` tokens, which are a
    separate document.
    """

    sequences: SequenceSource
    mesh: RankMesh
    seed: int
    micro_batch_size: int  # sequences
    batch_ramp: Steps  # micro-batches per optimizer step
    balanced: bool = True
    start: int = 0  # sequences of the seed's order that earlier phases used

    def num_micro_batches(self, step: int) -> int:
        """Micro-batches that each rank accumulates in a step."""
        return value_at(step, self.batch_ramp)

    def global_batch(self, step: int) -> list[SequenceRef]:
        """The sequences that all ranks together read in a step."""
        sequences = self.micro_batch_size * self.mesh.dp_size
        first = self.start + sequences * sum_before(step, self.batch_ramp)
        size = sequences * self.num_micro_batches(step)
        return global_batch(first, size, seed=self.seed, count=len(self.sequences))

    def sequence_ids(self, step: int) -> list[int]:
        """The numbers of the global batch's sequences in the plan."""
        return [ref.number for ref in self.global_batch(step)]

    def num_labels(self, step: int) -> int:
        """Labels of the global batch that count in the loss."""
        return sum(self.sequences.num_labels(number) for number in self.sequence_ids(step))

    def local_micro_batches(self, step: int) -> list[list[SequenceRef]]:
        """The sequences that this rank reads in a step, by micro-batch."""
        work = self.sequences.attention_work if self.balanced else None
        refs = local_batch(self.global_batch(step), self.mesh.dp_rank, self.mesh.dp_size, work)
        size = self.micro_batch_size
        return [refs[first : first + size] for first in range(0, len(refs), size)]

    def micro_batches(self, steps: Iterable[int]) -> Iterator[Row]:
        """This rank's micro-batches, step after step."""
        for step in steps:
            for refs in self.local_micro_batches(step):
                yield self.read(refs)

    def read(self, refs: list[SequenceRef]) -> Row:
        """This rank's slice of the concatenated sequences."""
        *spans, extra = self.token_spans(refs)
        rows = [self.sequences.read(*span) for span in spans]
        if (length := self._padded_length(refs) - len(refs) * self.sequences.seq_len) > 0:
            rows.append(padding(length, extra.begin, extra.end))
        return rows[0] if len(rows) == 1 else collate(rows)

    def token_spans(self, refs: list[SequenceRef]) -> list[TokenSpan]:
        """The tokens of `read(refs)`: of each sequence, and of the padding after them."""
        size = self.sequences.seq_len
        low, high = self._slice(len(refs) * size)
        starts = np.arange(len(refs) + 1) * size
        ends = [*starts[1:].tolist(), self._padded_length(refs)]
        return [
            TokenSpan(*ref, *(min(max(x - start, 0), end - start) for x in (low, high)))
            for ref, start, end in zip(
                [*refs, SequenceRef(-1, 0)], starts.tolist(), ends, strict=True
            )
        ]

    def _padded_length(self, refs: list[SequenceRef]) -> int:
        """Tokens of a micro-batch over all ranks that share it."""
        low, high = self._slice(len(refs) * self.sequences.seq_len)
        return (high - low) * self.mesh.sp_size

    def token_sources(self, refs: list[SequenceRef]) -> np.ndarray:
        """The index of the store of each token of `read(refs)`, (S,) int64; 0 on padding."""
        sources = np.zeros((len(refs), self.sequences.seq_len), dtype=np.int64)
        for row, ref in zip(sources, refs, strict=True):
            lengths, stores = self.sequences.piece_sources(ref.number)
            row[: lengths.sum()] = np.repeat(stores, lengths)
        low, high = self._slice(sources.size)
        padded = np.pad(sources.ravel(), (0, (high - low) * self.mesh.sp_size - sources.size))
        return padded[low:high]

    def is_text(self, refs: list[SequenceRef]) -> np.ndarray:
        """Whether each token of `read(refs)` is text and not padding, (S,) bool."""
        text = np.zeros((len(refs), self.sequences.seq_len), dtype=bool)
        for row, ref in zip(text, refs, strict=True):
            row[: self.sequences.piece_sources(ref.number)[0].sum()] = True
        low, high = self._slice(text.size)
        return np.pad(text.ravel(), (0, (high - low) * self.mesh.sp_size - text.size))[low:high]

    def _slice(self, total: int) -> tuple[int, int]:
        """The first and the end token of this rank's slice of `total` tokens."""
        width = -(-total // self.mesh.sp_size)
        return self.mesh.sp_rank * width, (self.mesh.sp_rank + 1) * width


T = TypeVar("T")

END: Any = object()


def prefetch(items: Iterator[T], depth: int) -> Generator[T, None, None]:
    """The same items in the same order, up to `depth` of them prepared ahead; 0: none.

    An exception raised by an item is raised in its turn. Closing the generator ends the thread.
    """
    if depth == 0:
        yield from items
        return
    pool = ThreadPoolExecutor(1, "read ahead")
    try:
        pending = deque(pool.submit(next, items, END) for _ in range(depth))
        while (item := pending.popleft().result()) is not END:
            pending.append(pool.submit(next, items, END))
            yield item
    finally:
        pool.shutdown(cancel_futures=True)
