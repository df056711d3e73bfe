"""The window-fill packer: document lengths in, sequences of pieces out. Pure.

Documents enter a window in their order. Each sequence starts with the oldest document and is filled
with the largest that fit. Only documents longer than a sequence are cut, unless a gap of more than
1/64 of the sequence would stay open.
"""

from array import array
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np

WINDOW = 1024  # documents that wait to be placed
CUT_FOR_GAP = 64  # a gap above seq_len / 64 is worth cutting a short document
ARRIVAL_BITS = 40  # 1e12 arrivals
BLOCK = 1 << 16  # lengths that are Python integers at a time


@dataclass(frozen=True, slots=True)
class Packed:
    """Sequences of pieces, one after the other. Documents are indices into the packed lengths."""

    document: np.ndarray  # (pieces,) int64
    start: np.ndarray  # (pieces,) int64: first token within the document
    length: np.ndarray  # (pieces,) int64, tokens
    offsets: np.ndarray  # (sequences + 1,) int64: sequence n is pieces offsets[n] to offsets[n + 1]

    def __len__(self) -> int:
        return len(self.offsets) - 1


class _Pool:
    """The documents that wait to be placed: by length for the best fit, by arrival for fairness.

    A key is `length << ARRIVAL_BITS | arrival` of the rest of a document: one integer to sort,
    compare and find by.
    """

    def __init__(self, lengths: np.ndarray) -> None:
        self.incoming = enumerate(_python_ints(lengths))
        self.keys: list[int] = []  # ascending
        self.oldest: deque[int] = deque()
        self.document: dict[int, int] = {}  # by key, only of waiting documents
        self.start: dict[int, int] = {}  # by key, only of documents that were cut before
        self.arrivals = 0
        self.refill()

    def refill(self) -> None:
        for document, length in islice(self.incoming, max(WINDOW - len(self.keys), 0)):
            self.oldest.append(self._add(document, length))

    def put_back(self, document: int, start: int, rest: int, front: bool) -> None:
        """Return the `rest` tokens of a cut document, as the oldest (`front`) or the newest."""
        key = self._add(document, rest)
        self.start[key] = start
        if front:
            self.oldest.appendleft(key)
        else:
            self.oldest.append(key)

    def _add(self, document: int, length: int) -> int:
        self.arrivals += 1
        key = length << ARRIVAL_BITS | self.arrivals
        insort(self.keys, key)
        self.document[key] = document
        return key

    def take(self, index: int) -> tuple[int, int]:
        """`(document, start)` of `keys[index]`."""
        key = self.keys.pop(index)
        return self.document.pop(key), self.start.pop(key, 0)

    def length(self, index: int) -> int:
        return self.keys[index] >> ARRIVAL_BITS

    def first(self) -> int:
        """The index of the oldest document, -1 for an empty pool."""
        while self.oldest and self.oldest[0] not in self.document:
            self.oldest.popleft()
        return bisect_left(self.keys, self.oldest[0]) if self.oldest else -1

    def largest_within(self, room: int) -> int:
        """The index of the longest document of at most `room` tokens, -1 without any."""
        return bisect_left(self.keys, (room + 1) << ARRIVAL_BITS) - 1


def _python_ints(values: np.ndarray) -> Iterator[int]:
    for first in range(0, len(values), BLOCK):
        yield from values[first : first + BLOCK].tolist()


def window_fill(
    lengths: np.ndarray, seq_len: int, min_piece: int, keep_intact: np.ndarray, seed: int = 0
) -> Packed:
    """Sequences of at most `seq_len` tokens from `lengths` (documents,), in their order.

    `seed` is not used. Every token appears once, and the pieces of one document in order.
    Documents of `keep_intact` (documents,) bool are never cut to fill a gap.
    """
    pool = _Pool(lengths)
    pieces, offsets = array("q"), array("q", [0])  # pieces: document, start and length of each
    while (index := pool.first()) >= 0:
        room = seq_len
        while index >= 0:
            placed = _place(pool, pieces, index, room, min_piece, room < seq_len)
            if not placed:
                break
            room -= placed
            index = _next(pool, room, seq_len, min_piece, keep_intact) if room else -1
        offsets.append(len(pieces) // 3)
        pool.refill()
    document, start, length = np.asarray(pieces, np.int64).reshape(-1, 3).T
    return Packed(document, start, length, np.asarray(offsets, np.int64))


def _next(pool: _Pool, room: int, seq_len: int, min_piece: int, keep_intact: np.ndarray) -> int:
    """The index of the largest document that fits, else of one to cut for the gap, else -1.

    A document that fills a sequence alone is never cut.
    """
    fits = pool.largest_within(room)
    if fits >= 0 or room < min_piece:
        return fits
    for index in reversed(range(len(pool.keys))):
        length = pool.length(index)
        if length != seq_len and not keep_intact[pool.document[pool.keys[index]]]:
            worth_a_cut = length > seq_len or room > seq_len // CUT_FOR_GAP
            return index if worth_a_cut else -1
    return -1


def _place(
    pool: _Pool, pieces: "array[int]", index: int, room: int, min_piece: int, keep_first: bool
) -> int:
    """Place the document at `index`, or the part that fits.

    Returns the tokens placed; 0 when the part would be too short.
    """
    size = pool.length(index)
    count = size if size <= room else _part(size, room, min_piece, keep_first)
    if count:
        document, start = pool.take(index)
        pieces.extend((document, start, count))
        if count < size:
            pool.put_back(document, start + count, size - count, front=not keep_first)
    return count


def _part(size: int, room: int, min_piece: int, keep_first: bool) -> int:
    """Tokens to place of a document longer than `room`; both parts get `min_piece` if possible."""
    missing = max(min_piece - (size - room), 0)  # tokens that the rest lacks
    count = max(room - missing, 0 if keep_first else 1)
    return 0 if keep_first and count < min_piece else count
