"""What torch's caching allocator reserves for given allocations: a replay of its rules.

Source: c10/cuda/CUDACachingAllocator.cpp of torch 2.14. Sizes are rounded up to 512 bytes. Up to
1 MiB lies in segments of 2 MiB, up to 10 MiB in segments of 20 MiB, more in one of its own, rounded
up to 2 MiB; streams share no segment. The smallest free block that is large enough is taken, and
split where more than 1 MiB is left (512 bytes among small ones); free neighbours are joined. At
the device's limit segments that are free are given back. Expandable segments: one for each stream
and pool, mapped in pages of 2 MiB (small) or 20 MiB, that grows at its end.

Not modelled: memory that another stream still reads, `garbage_collection_threshold`, unmapping in
the middle of an expandable segment.
"""

import bisect
from collections.abc import Sequence
from typing import Any

from ropewalk.train.trace.events import HOST, Event, rounded

MIB = 1 << 20
SMALL, SMALL_SEGMENT = MIB, 2 * MIB
MEDIUM, MEDIUM_SEGMENT, LARGE_STEP = 10 * MIB, 20 * MIB, 2 * MIB


class OutOfMemoryError(Exception):
    """The allocations do not fit the capacity."""


class _Block:
    __slots__ = ("address", "is_free", "next", "previous", "segment", "size")

    def __init__(self, address: int, size: int, segment: "_Segment") -> None:
        self.address, self.size, self.segment = address, size, segment
        self.is_free = True
        self.previous: _Block | None = None
        self.next: _Block | None = None


class _Segment:
    __slots__ = ("last", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self.last: _Block | None = None


class _Pool:
    """The free blocks of a stream, small or large, by size and address."""

    def __init__(self) -> None:
        self.keys: list[tuple[int, int]] = []
        self.blocks: dict[int, _Block] = {}
        self.growing: _Segment | None = None

    def add(self, block: _Block) -> None:
        bisect.insort(self.keys, (block.size, block.address))
        self.blocks[block.address] = block

    def remove(self, block: _Block) -> None:
        del self.keys[bisect.bisect_left(self.keys, (block.size, block.address))]
        del self.blocks[block.address]

    def smallest(self, size: int) -> _Block | None:
        """The best fit. The end of a growing segment counts as endless: it is taken last."""
        at = bisect.bisect_left(self.keys, (size, -1))
        last = self.growing.last if self.growing is not None else None
        for key in self.keys[at : at + 2]:
            if (block := self.blocks[key[1]]) is not last:
                return block
        return self.blocks[self.keys[at][1]] if at < len(self.keys) else None


class Allocator:
    """Replays allocations; `reserved` and its `peak` are bytes of segments."""

    def __init__(self, expandable: bool = False, capacity: int | None = None) -> None:
        self.expandable, self.capacity = expandable, capacity
        self.reserved = self.peak = 0
        self._pools: dict[tuple[int, bool], _Pool] = {}
        self._used: dict[Any, tuple[_Block, _Pool]] = {}
        self._end = 0

    def alloc(self, identity: Any, size: int, stream: int = 0) -> None:
        """Raises: OutOfMemoryError."""
        size = rounded(max(size, 1))
        is_small = size <= SMALL
        pool = self._pools.setdefault((stream, is_small), _Pool())
        block = pool.smallest(size)
        if block is None:
            grow = self._grow if self.expandable else self._new_segment
            block = grow(pool, size, is_small)
        pool.remove(block)
        self._split(block, size, is_small, pool)
        block.is_free = False
        self._used[identity] = block, pool

    def free(self, identity: Any) -> None:
        block, pool = self._used.pop(identity)
        block.is_free = True
        for neighbour in (block.previous, block.next):
            if neighbour is not None and neighbour.is_free:
                pool.remove(neighbour)
                block = _joined(*sorted((block, neighbour), key=lambda b: b.address))
        pool.add(block)

    def _split(self, block: _Block, size: int, is_small: bool, pool: _Pool) -> None:
        rest = block.size - size
        if not (rest >= 512 if is_small or self.expandable else rest > SMALL):
            return
        other = _Block(block.address + size, rest, block.segment)
        other.previous, other.next = block, block.next
        if block.next is not None:
            block.next.previous = other
        else:
            block.segment.last = other
        block.next, block.size = other, size
        pool.add(other)

    def _new_segment(self, pool: _Pool, size: int, is_small: bool) -> _Block:
        if is_small:
            wanted = SMALL_SEGMENT
        else:
            wanted = MEDIUM_SEGMENT if size < MEDIUM else -(-size // LARGE_STEP) * LARGE_STEP
        self._reserve(wanted)
        segment = _Segment(wanted)
        block = segment.last = _Block(self._end, wanted, segment)
        self._end += wanted
        pool.add(block)
        return block

    def _grow(self, pool: _Pool, size: int, is_small: bool) -> _Block:
        page = SMALL_SEGMENT if is_small else MEDIUM_SEGMENT
        segment = pool.growing = pool.growing or _Segment(0)
        if segment.last is None:
            self._end += 1 << 50  # addresses of its own
            start = self._end
        else:
            start = segment.last.address + segment.last.size
        last = segment.last if segment.last is not None and segment.last.is_free else None
        grown = -(-(size - (last.size if last else 0)) // page) * page
        self._reserve(grown)
        segment.size += grown
        if last is not None:
            pool.remove(last)
            last.size += grown
            pool.add(last)
            return last
        block = _Block(start, grown, segment)
        block.previous = segment.last
        if segment.last is not None:
            segment.last.next = block
        segment.last = block
        pool.add(block)
        return block

    def _reserve(self, size: int) -> None:
        if self.capacity is not None and self.reserved + size > self.capacity:
            self._release()
            if self.reserved + size > self.capacity:
                raise OutOfMemoryError
        self.reserved += size
        self.peak = max(self.peak, self.reserved)

    def _release(self) -> None:
        """Give segments back that are free as a whole; of expandable ones the free end."""
        for pool in self._pools.values():
            for block in list(pool.blocks.values()):
                if block.previous is None and block.next is None and pool.growing is None:
                    pool.remove(block)
                    self.reserved -= block.size
                elif pool.growing is not None and block is pool.growing.last:
                    pool.remove(block)
                    self.reserved -= block.size
                    pool.growing.last = block.previous
                    if block.previous is not None:
                        block.previous.next = None


def _joined(left: _Block, right: _Block) -> _Block:
    left.size += right.size
    left.next = right.next
    if right.next is not None:
        right.next.previous = left
    else:
        left.segment.last = left
    return left


def reserved_peak(events: Sequence[Event], expandable: bool, capacity: int | None = None) -> int:
    """The most that the allocator holds of the device. Raises: OutOfMemoryError."""
    allocator = Allocator(expandable, capacity)
    for event in events:
        if event[0] == "alloc" and event[4] != HOST:
            allocator.alloc(event[1], event[2], event[4])
        elif event[0] == "free" and event[1] in allocator._used:
            allocator.free(event[1])
    return allocator.peak
