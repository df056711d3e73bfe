"""The replayed allocator against the rules of torch's source by hand, and a plain second one.

Sizes of c10/cuda/CUDACachingAllocator.cpp: kMinBlockSize 512, kSmallSize 1 MiB, kSmallBuffer 2 MiB,
kMinLargeAlloc 10 MiB, kLargeBuffer 20 MiB, kRoundLarge 2 MiB.
"""

import random

import pytest

from ropewalk.train.trace.allocator import Allocator, OutOfMemoryError, reserved_peak
from ropewalk.train.trace.events import HOST, Event

MIB = 1 << 20
MODES = (False, True)


@pytest.mark.parametrize(
    ("size", "reserved"),
    [
        (1, 2 * MIB),
        (MIB, 2 * MIB),
        (MIB + 1, 20 * MIB),
        (10 * MIB - 512, 20 * MIB),
        (10 * MIB, 10 * MIB),
        (10 * MIB + 1, 12 * MIB),
        (33 * MIB, 34 * MIB),
    ],
)
def test_a_segment_has_the_size_of_the_source(size: int, reserved: int) -> None:
    allocator = Allocator()
    allocator.alloc("a", size)
    assert allocator.reserved == reserved


def test_small_tensors_share_a_segment_until_it_is_full() -> None:
    allocator = Allocator()
    for number in range(4096):
        allocator.alloc(number, 512)
    assert allocator.reserved == 2 * MIB
    allocator.alloc("one more", 1)
    assert allocator.reserved == 4 * MIB


@pytest.mark.parametrize(("first", "splits"), [(31, False), (32, True)])
def test_a_large_block_is_split_where_more_than_a_mebibyte_is_left(
    first: int, splits: bool
) -> None:
    """A free block of 32 or 34 MiB for 31 MiB: of the first 1 MiB is left, which is not more."""
    allocator = Allocator()
    allocator.alloc("hole", (first + first % 2) * MIB if not splits else 34 * MIB)
    allocator.free("hole")
    allocator.alloc("a", 31 * MIB)
    before = allocator.reserved
    allocator.alloc("b", 2 * MIB)
    assert (allocator.reserved == before) is splits


def test_the_smallest_block_that_fits_is_taken() -> None:
    allocator = Allocator()
    for name, size in (("wide", 40), ("narrow", 30)):
        allocator.alloc(name, size * MIB)
    allocator.free("wide")
    allocator.free("narrow")
    allocator.alloc("a", 29 * MIB + 512)  # into narrow, of which too little is left to split
    allocator.alloc("b", 40 * MIB)  # into wide, which is whole
    assert allocator.reserved == 70 * MIB


def test_neighbours_are_joined() -> None:
    allocator = Allocator()
    allocator.alloc("segment", 40 * MIB)
    allocator.free("segment")
    for name in ("a", "b", "c"):
        allocator.alloc(name, 12 * MIB)
    for name in ("a", "c", "b"):
        allocator.free(name)
    allocator.alloc("whole", 40 * MIB)
    assert allocator.reserved == 40 * MIB


def test_streams_share_nothing() -> None:
    allocator = Allocator()
    allocator.alloc("a", 30 * MIB, stream=1)
    allocator.free("a")
    allocator.alloc("b", 30 * MIB, stream=2)
    assert allocator.reserved == 60 * MIB


def test_native_segments_fragment_where_expandable_ones_grow() -> None:
    """Tensors that grow by 2 MiB: each native segment is too small for the next."""
    events: list[Event] = []
    for size in range(20, 60, 2):
        events += [("alloc", size, size * MIB, "a", 0), ("free", size)]
    assert reserved_peak(events, expandable=False) == sum(range(20, 60, 2)) * MIB
    assert reserved_peak(events, expandable=True) == 60 * MIB  # pages of 20


def test_free_segments_are_given_back_at_the_limit() -> None:
    events: list[Event] = [
        ("alloc", 1, 40 * MIB, "a", 0),
        ("free", 1),
        ("alloc", 2, 50 * MIB, "a", 0),
    ]
    assert reserved_peak(events, expandable=False, capacity=60 * MIB) == 50 * MIB
    with pytest.raises(OutOfMemoryError):
        reserved_peak(events, expandable=False, capacity=49 * MIB)


def test_host_memory_is_not_the_devices() -> None:
    assert reserved_peak([("alloc", 1, 40 * MIB, "a", HOST)], expandable=False) == 0


class Plain:
    """The rules once more, as lists that are searched from end to end."""

    def __init__(self, expandable: bool) -> None:
        self.expandable = expandable
        self.segments: list[tuple[str, list[list[int]]]] = []
        """(pool, [[address, size, owner or -1], ...])"""
        self.end = 0

    @property
    def reserved(self) -> int:
        return sum(block[1] for _, blocks in self.segments for block in blocks)

    def alloc(self, owner: int, size: int) -> None:
        size = -(-size // 512) * 512
        pool = "small" if size <= MIB else "large"
        options = [
            (self.expandable and block is blocks[-1], block[1], block[0], blocks, block)
            for name, blocks in self.segments
            for block in blocks
            if name == pool and block[2] < 0 and block[1] >= size
        ]
        if options:
            *_, blocks, block = min(options, key=lambda option: option[:3])
        else:
            blocks, block = self.more(pool, size)
        rest = block[1] - size
        if rest >= 512 if pool == "small" or self.expandable else rest > MIB:
            blocks.insert(blocks.index(block) + 1, [block[0] + size, rest, -1])
            block[1] = size
        block[2] = owner

    def more(self, pool: str, size: int) -> tuple[list[list[int]], list[int]]:
        page = 2 * MIB if pool == "small" else 20 * MIB
        if not self.expandable:
            if size >= 10 * MIB:
                page = -(-size // (2 * MIB)) * 2 * MIB
            self.segments.append((pool, [[self.end, page, -1]]))
            self.end += page
            return self.segments[-1][1], self.segments[-1][1][0]
        if not [name for name, _ in self.segments if name == pool]:
            self.segments.append((pool, []))
        blocks = next(b for name, b in self.segments if name == pool)
        if not blocks or blocks[-1][2] >= 0:
            start = blocks[-1][0] + blocks[-1][1] if blocks else 0
            blocks.append([start, 0, -1])
        blocks[-1][1] += -(-(size - blocks[-1][1]) // page) * page
        return blocks, blocks[-1]

    def free(self, owner: int) -> None:
        for _, blocks in self.segments:
            for block in blocks:
                block[2] = -1 if block[2] == owner else block[2]
            at = 0
            while at + 1 < len(blocks):
                if blocks[at][2] < 0 and blocks[at + 1][2] < 0:
                    blocks[at][1] += blocks.pop(at + 1)[1]
                else:
                    at += 1


@pytest.mark.parametrize("expandable", MODES)
@pytest.mark.parametrize("seed", range(10))
def test_it_reserves_what_a_plain_one_does(expandable: bool, seed: int) -> None:
    draw = random.Random(seed)
    allocator, plain = Allocator(expandable), Plain(expandable)
    alive: list[int] = []
    for number in range(400):
        if alive and draw.random() < 0.45:
            gone = alive.pop(draw.randrange(len(alive)))
            allocator.free(gone)
            plain.free(gone)
        else:
            size = int(2 ** draw.uniform(9, 26))
            allocator.alloc(number, size)
            plain.alloc(number, size)
            alive.append(number)
        assert allocator.reserved == plain.reserved, number
