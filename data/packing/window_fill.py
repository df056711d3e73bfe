"""Pure packing: document lengths in, sequences of pieces out, all in arrays. No I/O, no tokens.

Window fill: documents come in seeded order into a window; each sequence starts with the oldest and is filled by the largest
that fit. Only documents longer than a sequence are cut, unless a gap of more than 1/64 would stay open.
"""

from array import array
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np

WINDOW = 1024
CUT_FOR_GAP = 64  # a gap above seq_len / 64 is worth cutting a short document
ARRIVAL = 40  # bits: 1e12 arrivals
BLOCK = 1 << 16  # lengths that are Python numbers at a time


@dataclass(frozen=True, slots=True)
class Packed:
    """Sequences of pieces, one after the other. Documents are numbers: places in the lengths that were packed."""

    document: np.ndarray  # (pieces,) int64
    start: np.ndarray  # (pieces,) int64: first token within the document
    length: np.ndarray  # (pieces,) int64, tokens
    offsets: np.ndarray  # (sequences + 1,) int64: sequence n is pieces offsets[n] to offsets[n + 1]

    def __len__(self) -> int:
        return len(self.offsets) - 1


class _Pool:
    """What waits to be placed: by length for the best fit, by arrival for fairness.

    A key is `length << ARRIVAL | arrival` of the rest of a document: one number to sort, compare and find by.
    """

    def __init__(self, lengths: np.ndarray) -> None:
        self.coming = enumerate(_numbers(lengths))
        self.keys: list[int] = []  # ascending
        self.oldest: deque[int] = deque()
        self.document: dict[int, int] = {}  # by key; what was taken is not here
        self.start: dict[int, int] = {}  # by key, of what was cut before
        self.arrivals = 0
        self.refill()

    def refill(self) -> None:
        for document, length in islice(self.coming, max(WINDOW - len(self.keys), 0)):
            self.oldest.append(self._add(document, length))

    def put_back(self, document: int, start: int, rest: int, front: bool) -> None:
        key = self._add(document, rest)
        self.start[key] = start
        self.oldest.appendleft(key) if front else self.oldest.append(key)

    def _add(self, document: int, length: int) -> int:
        self.arrivals += 1
        key = length << ARRIVAL | self.arrivals
        insort(self.keys, key)
        self.document[key] = document
        return key

    def take(self, at: int) -> tuple[int, int]:
        """`(document, start)` of the key in that place."""
        key = self.keys.pop(at)
        return self.document.pop(key), self.start.pop(key, 0)

    def first(self) -> int:
        """The place of the oldest, -1 when nothing waits."""
        while self.oldest and self.oldest[0] not in self.document:
            self.oldest.popleft()
        return bisect_left(self.keys, self.oldest[0]) if self.oldest else -1

    def largest_within(self, room: int) -> int:
        """Its place, -1 when nothing is so short."""
        return bisect_left(self.keys, (room + 1) << ARRIVAL) - 1


def _numbers(values: np.ndarray) -> Iterator[int]:
    for at in range(0, len(values), BLOCK):
        yield from values[at : at + BLOCK].tolist()


class _Sheet:
    """Pieces as they come, eight bytes a number."""

    def __init__(self) -> None:
        self.document, self.start, self.length, self.offsets = (
            array("q"),
            array("q"),
            array("q"),
            array("q", [0]),
        )

    def add(self, document: int, start: int, length: int) -> None:
        self.document.append(document)
        self.start.append(start)
        self.length.append(length)

    def end(self) -> None:
        self.offsets.append(len(self.document))

    def packed(self) -> Packed:
        found = (self.document, self.start, self.length, self.offsets)
        return Packed(
            *(np.frombuffer(a, dtype=np.int64) if a else np.empty(0, np.int64) for a in found)
        )


def window_fill(
    lengths: np.ndarray, seq_len: int, min_piece: int, whole: np.ndarray, seed: int = 0
) -> Packed:
    """Sequences of at most `seq_len` tokens from `lengths` (documents,) in the order given, which is all that a seed decides here.

    Every token appears once; the pieces of one document come in order; padding is what a sequence lacks. Documents that are
    `whole` (documents,) bool are never cut to fill a gap.
    """
    pool, sheet = _Pool(lengths), _Sheet()
    while (at := pool.first()) >= 0:
        room = seq_len
        while at >= 0 and (taken := _place(pool, sheet, at, room, min_piece, room < seq_len)):
            room -= taken
            at = _next(pool, room, seq_len, min_piece, whole) if room else -1
        sheet.end()
        pool.refill()
    return sheet.packed()


def _next(pool: _Pool, room: int, seq_len: int, min_piece: int, whole: np.ndarray) -> int:
    """The largest that fits whole; else one to cut, if the gap is worth it; else -1. What fills a sequence alone is never cut."""
    fits = pool.largest_within(room)
    if fits >= 0 or room < min_piece:
        return fits
    sizes = ((at, pool.keys[at] >> ARRIVAL) for at in reversed(range(len(pool.keys))))
    may_be_cut = (
        found
        for found in sizes
        if found[1] != seq_len and not whole[pool.document[pool.keys[found[0]]]]
    )
    at, longest = next(may_be_cut, (-1, 0))
    return at if longest > seq_len or room > seq_len // CUT_FOR_GAP else -1


def _place(pool: _Pool, sheet: _Sheet, at: int, room: int, min_piece: int, keep_first: bool) -> int:
    """Place what waits there, or as much of it as fits. The tokens placed: none when too few of them would be."""
    size = pool.keys[at] >> ARRIVAL
    take = size if size <= room else _part(size, room, min_piece, keep_first)
    if take:
        document, start = pool.take(at)
        sheet.add(document, start, take)
        if take < size:
            pool.put_back(document, start + take, size - take, front=not keep_first)
    return take


def _part(size: int, room: int, min_piece: int, keep_first: bool) -> int:
    """How much of what does not fit is placed; neither part is shorter than `min_piece` where that can be."""
    short = max(min_piece - (size - room), 0)  # what the rest would lack
    take = max(room - short, 0 if keep_first else 1)
    return 0 if keep_first and take < min_piece else take
