"""From takings in mixed order to sequences of pieces, block by block. Pure."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields

import numpy as np

from ropewalk.data.mixing.mixed_order import Takings
from ropewalk.data.packing.packed import Packed
from ropewalk.data.packing.packers import PACKERS, parts


@dataclass(frozen=True)
class PackingOptions:
    """How takings are packed. Arrays have an entry a source."""

    seq_len: int
    min_piece: int
    seed: int
    packer: str
    max_piece: np.ndarray  # (sources,) tokens of the longest piece
    keep_intact: np.ndarray  # (sources,) bool: not cut to fill a gap


@dataclass(frozen=True)
class _Table:
    """Stretches of takings that are to be packed, an entry each."""

    taking: np.ndarray  # the taking's number in the plan
    document: np.ndarray
    start: np.ndarray
    length: np.ndarray
    keep_intact: np.ndarray

    def followed_by(self, other: "_Table") -> "_Table":
        names = [field.name for field in fields(self)]
        return _Table(*(np.concatenate([getattr(self, n), getattr(other, n)]) for n in names))

    def that_wait(self, packed: Packed) -> "_Table":
        waiting = packed.waiting
        return _Table(
            self.taking[waiting.document],
            self.document[waiting.document],
            self.start[waiting.document] + waiting.start,
            waiting.length,
            self.keep_intact[waiting.document],
        )


def build(blocks: Iterable[Takings], options: PackingOptions) -> Iterator[Packed]:
    """Pack takings in their order; a block of sequences for each block of takings.

    What waits at the end of a block begins the next one. Within a sequence, the pieces of one
    taking lie side by side in document order.
    """
    waiting, taken, before = None, 0, 0
    for takings, is_last in _with_last(blocks):
        table = _table(takings, taken, options)
        table = table if waiting is None else waiting.followed_by(table)
        packed = PACKERS[options.packer](
            table.length,
            options.seq_len,
            options.min_piece,
            table.keep_intact,
            options.seed,
            not is_last,
            before,
        )
        waiting = table.that_wait(packed)
        taken += len(takings.document)
        before += len(packed)
        yield _numbered(packed, table, options)


def _with_last(blocks: Iterable[Takings]) -> Iterator[tuple[Takings, bool]]:
    """Each block, and whether it is the last one."""
    iterator = iter(blocks)
    block = next(iterator, None)
    while block is not None:
        following = next(iterator, None)
        yield block, following is None
        block = following


def _table(takings: Takings, first: int, options: PackingOptions) -> _Table:
    keep_intact = options.keep_intact[takings.source]
    number = np.arange(first, first + len(takings.document))
    if (options.max_piece >= options.seq_len).all():
        return _Table(number, takings.document, np.zeros_like(number), takings.tokens, keep_intact)
    # only a `max_piece` below `seq_len` cuts here; the packer cuts longer stretches of a taking
    max_piece = options.max_piece[takings.source]
    limit = np.where(max_piece < options.seq_len, max_piece, takings.tokens)
    taking, start, length = parts(takings.tokens, limit, options.min_piece)
    return _Table(number[taking], takings.document[taking], start, length, keep_intact[taking])


def _numbered(packed: Packed, table: _Table, options: PackingOptions) -> Packed:
    """The pieces by document, those of one taking side by side."""
    if (options.max_piece < options.seq_len).any():
        packed = _side_by_side(packed, table.taking - table.taking.min())
    stretch = packed.document
    return Packed(
        table.document[stretch], table.start[stretch] + packed.start, packed.length, packed.offsets
    )


def _side_by_side(packed: Packed, taking: np.ndarray) -> Packed:
    """Move the pieces of one taking next to its first piece in their sequence.

    `taking`: (stretches,) the taking of each stretch.
    """
    stretch = packed.document
    row = np.repeat(np.arange(len(packed)), np.diff(packed.offsets))
    groups = row * (taking.max(initial=0) + 1) + taking[stretch]
    _, first, group = np.unique(groups, return_index=True, return_inverse=True)
    order = np.lexsort((packed.start, stretch, first[group]))
    return Packed(stretch[order], packed.start[order], packed.length[order], packed.offsets)
