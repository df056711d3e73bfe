"""The other packers, and all packers by name. Pure: document lengths in, sequences of pieces out.

best_fit   best-fit decreasing over all documents: only documents longer than a sequence are cut
           (Ding et al. 2024, arXiv 2404.10830); the sequences are shuffled, because the algorithm
           orders them from long to short
concat     documents end to end, cut at every border: only the last sequence is padded
single     one document a sequence
"""

from array import array
from collections.abc import Callable

import numpy as np

from ropewalk.data import hash_random
from ropewalk.data.packing.packed import Packed, Stretches
from ropewalk.data.packing.window_fill import window_fill

HELD_BACK = 1024  # sequences of best_fit with the most room that wait for the next block

# lengths (documents,) in mixed order, seq_len, min_piece, keep_intact (documents,) bool, seed,
# whether another block of documents comes, sequences of the blocks before
Packer = Callable[[np.ndarray, int, int, np.ndarray, int, bool, int], Packed]


def parts(
    lengths: np.ndarray, limit: int | np.ndarray, min_piece: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cut documents at multiples of `limit` tokens, in document order.

    `lengths` (documents,) are at least 1; `limit` is one for all or (documents,). The last cut of a
    document moves so that the rest has `min_piece` tokens, which must not exceed `limit`.
    Returns `(document, start, length)`, each (parts,) int64.
    """
    counts = -(-lengths // limit)
    limit = np.broadcast_to(limit, lengths.shape)
    document = np.repeat(np.arange(len(lengths)), counts)
    ends = np.cumsum(counts)
    start = (np.arange(len(document)) - (ends - counts)[document]) * limit[document]
    last = ends - 1
    short = np.maximum(min_piece - (lengths - start[last]), 0)  # tokens that the last part lacks
    start[last] -= np.where(counts > 1, short, 0)
    length = np.diff(start, append=0)
    length[last] = lengths - start[last]
    return document, start, length


class _Bins:
    """Bins by their free room. Two levels of bit masks find the smallest sufficient room."""

    def __init__(self, capacity: int) -> None:
        self.shift = (capacity.bit_length() + 1) // 2
        # bit r of word w: a bin has room (w << shift) + r
        self.words = [0] * ((capacity >> self.shift) + 1)
        self.filled = 0  # bit w: word w is not 0
        self.bins: dict[int, list[int]] = {}

    def put(self, number: int, room: int) -> None:
        self.bins.setdefault(room, []).append(number)
        word = room >> self.shift
        self.words[word] |= 1 << (room - (word << self.shift))
        self.filled |= 1 << word

    def take(self, size: int) -> tuple[int, int] | None:
        """Remove the bin `(number, room)` with the least sufficient room; None without any."""
        word = size >> self.shift
        same_word = self.words[word] >> (size - (word << self.shift))
        later_words = self.filled >> (word + 1)
        if same_word:
            room = size + _lowest_bit(same_word)
        elif later_words:
            word += 1 + _lowest_bit(later_words)
            room = (word << self.shift) + _lowest_bit(self.words[word])
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


def _lowest_bit(bits: int) -> int:
    return (bits & -bits).bit_length() - 1


def best_fit_bins(sizes: np.ndarray, room: int) -> np.ndarray:
    """The bin of `room` tokens, numbered from 0, of each of `sizes` (items,): best-fit decreasing.

    Each item, the longest first, goes where it leaves the least room. Equal items are placed
    together: a bin that takes one and has room for another is again the fullest that fits.
    """
    open_bins, bins = _Bins(room), 0
    numbers, repeats = array("q"), array("q")  # a bin, and how many consecutive items went there
    values, counts = np.unique(sizes, return_counts=True)
    for size, count in zip(values[::-1].tolist(), counts[::-1].tolist(), strict=True):
        while count:
            number, left = open_bins.take(size) or (bins, room)
            bins = max(bins, number + 1)
            placed = min(count, left // size)
            numbers.append(number)
            repeats.append(placed)
            count -= placed
            if left > placed * size:
                open_bins.put(number, left - placed * size)
    bin_of = np.empty(len(sizes), dtype=np.int64)
    bin_of[np.argsort(-sizes, kind="stable")] = np.repeat(np.array(numbers), np.array(repeats))
    return bin_of


def best_fit(
    lengths: np.ndarray,
    seq_len: int,
    min_piece: int,
    keep_intact: np.ndarray,
    seed: int = 0,
    more: bool = False,
    before: int = 0,
) -> Packed:
    """Put the next longest document into the fullest sequence that has room for it.

    Documents longer than a sequence are first cut by `parts`. The order of the sequences is hashed
    from the seed and their number, which begins at `before`; the pieces in a sequence stay in
    document order. No gap is filled by a cut, so `keep_intact` is met. With `more` documents to
    come, the sequences with the most room wait.
    """
    document, start, length = parts(lengths, seq_len, min_piece)
    bins = best_fit_bins(length, seq_len)
    waits = _with_room(bins, length, seq_len)[bins] if more else np.zeros(len(bins), dtype=bool)
    waiting = Stretches(document[waits], start[waits], length[waits])
    document, start, length = (column[~waits] for column in (document, start, length))
    bins = np.unique(bins[~waits], return_inverse=True)[1] if more else bins
    sizes = np.bincount(bins)
    sort_keys = hash_random.sort_keys(seed, "order of sequences", before + np.arange(len(sizes)))
    order = np.argsort(sort_keys, kind="stable")
    position = np.empty_like(order)
    position[order] = np.arange(len(order))
    by_sequence = np.argsort(position[bins], kind="stable")
    offsets = np.concatenate([[0], np.cumsum(sizes[order])])
    return Packed(document[by_sequence], start[by_sequence], length[by_sequence], offsets, waiting)


def _with_room(bins: np.ndarray, length: np.ndarray, seq_len: int) -> np.ndarray:
    """(bins,) bool: at most HELD_BACK bins with room, those with the most."""
    room = seq_len - np.bincount(bins, length).astype(np.int64)
    most = np.argsort(-room, kind="stable")[:HELD_BACK]
    waits = np.zeros(len(room), dtype=bool)
    waits[most] = room[most] > 0
    return waits


def concat(
    lengths: np.ndarray,
    seq_len: int,
    min_piece: int,
    keep_intact: np.ndarray,
    seed: int = 0,
    more: bool = False,
    before: int = 0,
) -> Packed:
    """Documents end to end in their order, cut at every multiple of `seq_len`.

    Ignores `min_piece` and `keep_intact`. With `more` documents to come, an unfinished sequence
    waits.
    """
    ends = np.cumsum(lengths)
    total = int(lengths.sum())
    rows = np.arange(0, total, seq_len)
    # stable: two sorted runs are merged in one pass
    stops = np.sort(np.concatenate([ends, rows[1:]]), kind="stable")
    stops = stops[np.diff(stops, prepend=0) > 0]
    starts = np.concatenate([rows[:1], stops[:-1]])
    document = np.searchsorted(ends, starts, side="right")
    start, length = starts - (ends - lengths)[document], stops - starts
    offsets = np.append(np.searchsorted(starts, rows), len(starts))
    unfinished = int(more and total % seq_len > 0)
    count = int(offsets[len(offsets) - 1 - unfinished])
    waiting = Stretches(document[count:], start[count:], length[count:])
    offsets = offsets[: len(offsets) - unfinished]
    return Packed(document[:count], start[:count], length[:count], offsets, waiting)


def single(
    lengths: np.ndarray,
    seq_len: int,
    min_piece: int,
    keep_intact: np.ndarray,
    seed: int = 0,
    more: bool = False,
    before: int = 0,
) -> Packed:
    """Each document in its own sequence, in their order; `parts` cuts longer documents."""
    document, start, length = parts(lengths, seq_len, min_piece)
    return Packed(document, start, length, np.arange(len(document) + 1))


PACKERS: dict[str, Packer] = {
    "window_fill": window_fill,
    "best_fit": best_fit,
    "concat": concat,
    "single": single,
}
