"""The other packers, and all of them by name. Pure: document lengths in, sequences of pieces out.

best_fit   best-fit decreasing over all documents: what is not longer than a sequence is never cut (Ding et al. 2024,
           arXiv 2404.10830); the sequences shuffled, since the algorithm's own order is long to short
concat     documents end to end, cut at every border: nothing is padded but the last sequence
single     one document a sequence
"""

import hashlib
from collections.abc import Callable, Container, Iterator, Sequence

import numpy as np

from ropewalk.data.pack import Piece, window_fill

# (document, length) in mixed order, seq_len, min_piece, documents that are not cut to fill a gap, seed
Packer = Callable[[Sequence[tuple[int, int]], int, int, Container[int], int], Iterator[list[Piece]]]
ITEM = np.dtype([("document", np.int64), ("start", np.int64), ("length", np.int64)])


def parts(length: int, most: int, min_piece: int) -> Iterator[tuple[int, int]]:
    """`(start, length)` of a document cut at multiples of `most` tokens.

    The last cut moves so that the rest has `min_piece` tokens, which must not be more than `most`.
    """
    start = 0
    while length - start > most:
        left = length - start - most
        take = most - max(min_piece - left, 0)
        yield start, take
        start += take
    yield start, length - start


class _Rooms:
    """Bins by the room left in them. The least room that is enough is found in two numbers used as rows of bits."""

    def __init__(self, most: int) -> None:
        self.shift = (most.bit_length() + 1) // 2
        self.words = [0] * ((most >> self.shift) + 1)  # bit r of word w: a bin has room (w << shift) + r
        self.filled = 0  # bit w: word w is not 0
        self.bins: dict[int, list[int]] = {}

    def put(self, number: int, room: int) -> None:
        self.bins.setdefault(room, []).append(number)
        word = room >> self.shift
        self.words[word] |= 1 << (room - (word << self.shift))
        self.filled |= 1 << word

    def take(self, least: int) -> tuple[int, int] | None:
        """A bin `(number, room)` with the least room that is at least `least`; None when there is none."""
        word = least >> self.shift
        ahead = self.words[word] >> (least - (word << self.shift))
        if ahead:
            room = least + _lowest(ahead)
        elif later := self.filled >> (word + 1):
            word += 1 + _lowest(later)
            room = (word << self.shift) + _lowest(self.words[word])
        else:
            return None
        number = self.bins[room].pop()
        if not self.bins[room]:
            self._clear(room, word)
        return number, room

    def _clear(self, room: int, word: int) -> None:
        self.words[word] ^= 1 << (room - (word << self.shift))
        if not self.words[word]:
            self.filled ^= 1 << word


def _lowest(bits: int) -> int:
    return (bits & -bits).bit_length() - 1


def best_fit_bins(sizes: np.ndarray, room: int) -> np.ndarray:
    """The bin of each of `sizes` (items,) by best-fit decreasing into bins of `room` tokens; bins count from 0.

    Each item, the longest first, goes where it leaves the least room. Equal items are placed together: a bin that takes one and
    still has room for another is again the fullest that fits.
    """
    rooms, bins = _Rooms(room), 0
    numbers: list[int] = []
    times: list[int] = []
    values, counts = np.unique(sizes, return_counts=True)
    for size, count in zip(values[::-1].tolist(), counts[::-1].tolist(), strict=True):
        while count:
            number, left = rooms.take(size) or (bins, room)
            bins = max(bins, number + 1)
            placed = min(count, left // size)
            numbers.append(number)
            times.append(placed)
            count -= placed
            if left > placed * size:
                rooms.put(number, left - placed * size)
    found = np.empty(len(sizes), dtype=np.int64)
    found[np.argsort(-sizes, kind="stable")] = np.repeat(np.array(numbers, dtype=np.int64), times)
    return found


def best_fit(
    lengths: Sequence[tuple[int, int]], seq_len: int, min_piece: int, whole: Container[int] = (), seed: int = 0
) -> Iterator[list[Piece]]:
    """The fullest sequence that fits takes the next longest document; a longer one than a sequence is cut first, by `parts`.

    Sequences come in an order hashed from the seed, and the pieces of each in the order given. Nothing in `whole` needs care:
    no gap is ever filled by a cut.
    """
    items = np.fromiter(_items(lengths, seq_len, min_piece), dtype=ITEM)
    bins = best_fit_bins(items["length"], seq_len)
    sizes = np.bincount(bins)
    order = sorted(range(len(sizes)), key=lambda number: _rank(seed, number))
    grouped, ends = items[np.argsort(bins, kind="stable")], np.cumsum(sizes)
    for number in order:
        yield [Piece(*item) for item in grouped[ends[number] - sizes[number] : ends[number]].tolist()]


def _items(lengths: Sequence[tuple[int, int]], most: int, min_piece: int) -> Iterator[tuple[int, int, int]]:
    for document, length in lengths:
        if length <= most:
            yield document, 0, length
        else:
            for start, size in parts(length, most, min_piece):
                yield document, start, size


def _rank(seed: int, number: int) -> bytes:
    return hashlib.blake2b(f"{seed}:sequence:{number}".encode(), digest_size=8).digest()


def concat(
    lengths: Sequence[tuple[int, int]], seq_len: int, min_piece: int, whole: Container[int] = (), seed: int = 0
) -> Iterator[list[Piece]]:
    """Documents end to end in the order given, cut at every multiple of `seq_len`, wherever that falls: neither `min_piece`
    nor `whole` is kept to."""
    row: list[Piece] = []
    room = seq_len
    for document, length in lengths:
        start = 0
        while start < length:
            take = min(room, length - start)
            row.append(Piece(document, start, take))
            start, room = start + take, room - take
            if room == 0:
                yield row
                row, room = [], seq_len
    if row:
        yield row


def single(
    lengths: Sequence[tuple[int, int]], seq_len: int, min_piece: int, whole: Container[int] = (), seed: int = 0
) -> Iterator[list[Piece]]:
    """Each document in a sequence of its own, in the order given; a longer one than a sequence is cut by `parts`."""
    for item in _items(lengths, seq_len, min_piece):
        yield [Piece(*item)]


PACKERS: dict[str, Packer] = {"window_fill": window_fill, "best_fit": best_fit, "concat": concat, "single": single}
