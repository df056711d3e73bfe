"""The other packers, and all of them by name. Pure: document lengths in, sequences of pieces out.

best_fit   best-fit decreasing over all documents: what is not longer than a sequence is never cut (Ding et al. 2024,
           arXiv 2404.10830); the sequences shuffled, since the algorithm's own order is long to short
concat     documents end to end, cut at every border: nothing is padded but the last sequence
single     one document a sequence
"""

from array import array
from collections.abc import Callable

import numpy as np

from ropewalk.data import hash_random
from ropewalk.data.packing.window_fill import Packed, window_fill

# lengths (documents,) in mixed order, seq_len, min_piece, which documents are not cut to fill a gap (documents,) bool, seed
Packer = Callable[[np.ndarray, int, int, np.ndarray, int], Packed]


def parts(
    lengths: np.ndarray, most: int | np.ndarray, min_piece: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Documents cut at multiples of `most` tokens: `(document, start, length)`, each (parts,) int64, in document order.

    `lengths` (documents,) are at least 1; `most` is for all, or one for each. The last cut of a document moves so that the rest
    has `min_piece` tokens, which must not be more than `most`.
    """
    counts = -(-lengths // most)
    most = np.broadcast_to(most, lengths.shape)
    document = np.repeat(np.arange(len(lengths)), counts)
    ends = np.cumsum(counts)
    start = (np.arange(len(document)) - (ends - counts)[document]) * most[document]
    last = ends - 1
    short = np.maximum(min_piece - (lengths - start[last]), 0)  # what the rest would lack
    start[last] -= np.where(counts > 1, short, 0)
    length = np.diff(start, append=0)
    length[last] = lengths - start[last]
    return document, start, length


class _Rooms:
    """Bins by the room left in them. The least room that is enough is found in two numbers used as rows of bits."""

    def __init__(self, most: int) -> None:
        self.shift = (most.bit_length() + 1) // 2
        self.words = [0] * (
            (most >> self.shift) + 1
        )  # bit r of word w: a bin has room (w << shift) + r
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
    numbers, times = array("q"), array("q")  # a bin, and how many items in a row went there
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
    found[np.argsort(-sizes, kind="stable")] = np.repeat(np.array(numbers), np.array(times))
    return found


def best_fit(
    lengths: np.ndarray, seq_len: int, min_piece: int, whole: np.ndarray, seed: int = 0
) -> Packed:
    """The fullest sequence that fits takes the next longest document; a longer one than a sequence is cut first, by `parts`.

    Sequences come in an order hashed from the seed, and the pieces of each in the order given. Nothing that is `whole` needs care:
    no gap is ever filled by a cut.
    """
    document, start, length = parts(lengths, seq_len, min_piece)
    bins = best_fit_bins(length, seq_len)
    sizes = np.bincount(bins)
    order = np.argsort(
        hash_random.sort_keys(seed, "order of sequences", np.arange(len(sizes))), kind="stable"
    )
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    by_sequence = np.argsort(place[bins], kind="stable")
    offsets = np.concatenate([[0], np.cumsum(sizes[order])])
    return Packed(document[by_sequence], start[by_sequence], length[by_sequence], offsets)


def concat(
    lengths: np.ndarray, seq_len: int, min_piece: int, whole: np.ndarray, seed: int = 0
) -> Packed:
    """Documents end to end in the order given, cut at every multiple of `seq_len`, wherever that falls: neither `min_piece`
    nor `whole` is kept to."""
    ends = np.cumsum(lengths)
    total = int(lengths.sum())
    rows = np.arange(0, total, seq_len)
    stops = np.sort(
        np.concatenate([ends, rows[1:]]), kind="stable"
    )  # two sorted runs: merged in one pass
    stops = stops[np.diff(stops, prepend=0) > 0]
    starts = np.concatenate([rows[:1], stops[:-1]])
    document = np.searchsorted(ends, starts, side="right")
    offsets = np.append(np.searchsorted(starts, rows), len(starts))
    return Packed(document, starts - (ends - lengths)[document], stops - starts, offsets)


def single(
    lengths: np.ndarray, seq_len: int, min_piece: int, whole: np.ndarray, seed: int = 0
) -> Packed:
    """Each document in a sequence of its own, in the order given; a longer one than a sequence is cut by `parts`."""
    found = parts(lengths, seq_len, min_piece)
    return Packed(*found, np.arange(len(found[0]) + 1))


PACKERS: dict[str, Packer] = {
    "window_fill": window_fill,
    "best_fit": best_fit,
    "concat": concat,
    "single": single,
}
