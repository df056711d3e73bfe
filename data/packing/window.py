"""The window of window fill: the documents that wait, and the sequences that they fill. Pure.

A waiting document is one number, its key: length x UNIT + number. Keys are sorted, so the largest
document that fits, and the newest among equal ones, is the last key below a limit. Numbers count
arrivals, CUTS to a document: a document that was cut comes back between two others. A sum of the
numbers of WINDOW documents is below UNIT / 2, so a limit may have them subtracted with the lengths.

Keys are floats while these are exact, up to sequences of two million tokens: Python sorts floats
three times as fast as large integers.
"""

from bisect import bisect_left, insort

import numpy as np

from ropewalk.data.packing.packed import Packed, Stretches

WINDOW = 1024  # documents that wait to be placed
CUT_FOR_GAP = 64  # a gap above seq_len / 64 is worth cutting a short document
UNIT = 1 << 32  # of a key for each token
CUTS = 1 << 5  # numbers for each document that arrives
CANDIDATES = 64  # oldest documents that are looked up at a time


class Window:
    """Packs `stretches`, at most UNIT / 2 / WINDOW / CUTS of them, in their order."""

    def __init__(
        self, stretches: Stretches, keep_intact: np.ndarray, seq_len: int, min_piece: int
    ) -> None:
        self.stretches, self.keep_intact = stretches, keep_intact
        self.seq_len, self.min_piece = seq_len, min_piece
        self.is_exact = (seq_len + 2) * UNIT < 1 << 53
        self.merge_from = 16 if self.is_exact else 64  # arrivals from which on sorting is faster
        self.incoming = self._number(stretches.length)
        self.arrived = 0
        self.too_long = (seq_len + 1) * UNIT  # the keys of documents that no sequence holds
        self.long_ahead = np.flatnonzero(stretches.length > seq_len)[::-1].tolist()
        self.long: list[int] = []  # of those that arrived, ascending: size x UNIT + number
        self.keys: list[float] = []  # ascending
        self.returned: dict[int, tuple[int, int]] = {}  # number of a rest -> its stretch and start
        self.last_number = 0  # of a rest
        self.front: tuple[int, int] | None = None  # the rest of a long document, next in turn
        self.placed: list[float] = []  # keys; 0 for a part of a document
        self.parts: dict[int, tuple[int, int, int]] = {}  # index in `placed` -> its piece
        self.offsets = [0]
        self.is_placed = np.zeros(len(stretches), dtype=bool)
        self.marked = self.looked_up = 0  # of `placed`; of the arrivals
        self.candidates: list[float] = []  # waiting documents, the oldest last
        self.rests: list[float] = []  # keys of rests that are no candidate yet

    def _number(self, lengths: np.ndarray) -> list[float]:
        """Keys; a document that no sequence holds counts as one token too long."""
        keys = np.minimum(lengths, self.seq_len + 1) * UNIT + np.arange(len(lengths)) * CUTS
        return (keys.astype(np.float64) if self.is_exact else keys).tolist()  # type: ignore[no-any-return]

    def _as_array(self, keys: list[float]) -> np.ndarray:
        dtype = np.float64 if self.is_exact else np.int64
        return np.array(keys, dtype=dtype).astype(np.int64, copy=False)

    def pack(self, more: bool) -> Packed:
        """Sequences while the window is full, or with no `more` documents to come, while any wait.

        Stops early when there are no more numbers.
        """
        # written out: a call for each document would double the time
        keys, placed, shortest = self.keys, self.placed, self.min_piece * UNIT
        while self._is_ready(more):
            limit = self._place_first()
            while limit > UNIT:
                end = bisect_left(keys, limit)
                while end:
                    first = end
                    while first and (key := keys[first - 1]) < limit:
                        limit -= key
                        first -= 1
                    placed += keys[first:end][::-1]
                    del keys[first:end]
                    end = bisect_left(keys, limit, 0, first)
                limit = self._cut_for_gap(limit) if limit > shortest else 0
            self.offsets.append(len(placed))
        return self._packed()

    def _is_ready(self, more: bool) -> bool:
        """Let documents arrive; whether a sequence can be filled."""
        room = WINDOW - len(self.keys) - (self.front is not None)
        if room > 0:
            arrivals = self.incoming[self.arrived : self.arrived + room]
            if more and len(arrivals) < room:
                return False
            self.arrived += len(arrivals)
            if len(arrivals) < self.merge_from:
                for key in arrivals:
                    insort(self.keys, key)
            else:
                self.keys += arrivals
                self.keys.sort()
            while self.long_ahead and self.long_ahead[-1] < self.arrived:
                stretch = self.long_ahead.pop()
                insort(self.long, self._size(stretch, 0) * UNIT + stretch * CUTS)
        # a sequence cuts two documents at most
        has_numbers = self.last_number + 2 < self.arrived * CUTS
        return has_numbers and (self.front is not None or bool(self.keys))

    def _place_first(self) -> float:
        """Begin a sequence with the oldest document. Returns the limit of keys that fit."""
        limit = self.seq_len * UNIT + UNIT // 2
        if self.front is not None:
            (stretch, start), self.front = self.front, None
        else:
            key = self.keys.pop(self._oldest())
            if key < self.too_long:
                self.placed.append(key)
                return limit - key
            stretch, start = self._origin(key)
            self._remove_long(key, stretch, start)
        return limit - self._place_part(stretch, start, self.seq_len, keep_first=False) * UNIT

    def _oldest(self) -> int:
        """The index of the oldest document in `keys`."""
        while True:
            while self.candidates:
                key = self.candidates.pop()
                index = bisect_left(self.keys, key)
                if index < len(self.keys) and self.keys[index] == key:
                    return index
            self._find_candidates()

    def _find_candidates(self) -> None:
        """The next of the arrivals that wait, with the rests that came back among them."""
        keys = self._as_array(self.placed[self.marked :])
        numbers = keys[keys > 0] % UNIT
        self.is_placed[numbers[numbers % CUTS == 0] // CUTS] = True
        self.marked = len(self.placed)
        waiting = np.flatnonzero(~self.is_placed[self.looked_up : self.arrived])[:CANDIDATES]
        candidates = [self.incoming[self.looked_up + index] for index in waiting.tolist()]
        before = self.arrived * CUTS
        if len(candidates) == CANDIDATES:
            self.looked_up += int(waiting[-1]) + 1
            before = self.looked_up * CUTS
        else:
            self.looked_up = self.arrived
        count = sum(key % UNIT < before for key in self.rests)
        candidates += self.rests[:count]
        del self.rests[:count]
        self.candidates = sorted(candidates, key=lambda key: key % UNIT, reverse=True)

    def _origin(self, key: float) -> tuple[int, int]:
        """The stretch of a key, and the start of the rest in it."""
        number = int(key % UNIT)
        return self.returned.get(number, (number // CUTS, 0))

    def _place_part(self, stretch: int, start: int, room: int, keep_first: bool) -> int:
        """Place a stretch from `start` on, or the part that fits, and return the rest.

        The rest comes first in the next sequence, or as the newest (`keep_first`).
        Returns the tokens placed; 0 when the part would be too short.
        """
        size = self._size(stretch, start)
        count = size if size <= room else part(size, room, self.min_piece, keep_first)
        if count:
            self.is_placed[stretch] = True
            self.parts[len(self.placed)] = stretch, start, count
            self.placed.append(0)
            if count < size:
                self._put_back(stretch, start + count, keep_first)
        return count

    def _put_back(self, stretch: int, start: int, newest: bool) -> None:
        if not newest:
            self.front = stretch, start
            return
        number = max(self.last_number, (self.arrived - 1) * CUTS) + 1
        size = self._size(stretch, start)
        if size > self.seq_len:
            insort(self.long, size * UNIT + number)
        key: float = min(size, self.seq_len + 1) * UNIT + number
        key = float(key) if self.is_exact else key
        self.last_number, self.returned[number] = number, (stretch, start)
        insort(self.keys, key)
        self.rests.append(key)

    def _cut_for_gap(self, limit: float) -> float:
        """Cut a document for the room that is left. Returns the new limit; 0 without a cut."""
        room = int(limit // UNIT)
        key = self._to_cut(room)
        if key is None:
            return 0
        stretch, start = self._origin(key)
        count = self._place_part(stretch, start, room, keep_first=True)
        if not count:
            return 0
        del self.keys[bisect_left(self.keys, key)]
        if key >= self.too_long:
            self._remove_long(key, stretch, start)
        return limit - count * UNIT

    def _to_cut(self, room: int) -> float | None:
        """The largest document that may be cut, the newest among equal ones.

        One that fills a sequence alone is never cut; one that fits a sequence, only for a large
        gap.
        """
        for entry in reversed(self.long):
            if not self._is_intact(key := self.too_long + entry % UNIT):
                return key
        if room <= self.seq_len // CUT_FOR_GAP:
            return None
        short = self.keys[: bisect_left(self.keys, self.seq_len * UNIT)]
        return next((key for key in reversed(short) if not self._is_intact(key)), None)

    def _remove_long(self, key: float, stretch: int, start: int) -> None:
        entry = self._size(stretch, start) * UNIT + int(key % UNIT)
        del self.long[bisect_left(self.long, entry)]

    def _size(self, stretch: int, start: int) -> int:
        return int(self.stretches.length[stretch]) - start

    def _is_intact(self, key: float) -> bool:
        return bool(self.keep_intact[self._origin(key)[0]])

    def _packed(self) -> Packed:
        keys = self._as_array(self.placed)
        stretch, start = self._origins(keys)
        length = keys // UNIT
        if self.parts:
            index, pieces = np.array([*self.parts]), np.array([*self.parts.values()])
            stretch[index], start[index], length[index] = pieces.T
        first, all_of = self.stretches.start[stretch], self.stretches.document[stretch]
        return Packed(all_of, first + start, length, np.array(self.offsets), self._waiting())

    def _origins(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The stretch of each key, and the start of the rest in it."""
        numbers = keys % UNIT
        stretch, start = numbers // CUTS, np.zeros_like(keys)
        for index in np.flatnonzero(numbers % CUTS).tolist():
            stretch[index], start[index] = self.returned[int(numbers[index])]
        return stretch, start

    def _waiting(self) -> Stretches:
        """In the order in which their turn comes, then what has not arrived."""
        numbers = np.sort(self._as_array(self.keys) % UNIT)
        stretch, start = self._origins(numbers)
        later = np.arange(self.arrived, len(self.stretches))
        front = [] if self.front is None else [self.front]
        ahead = np.array(front, dtype=np.int64).reshape(-1, 2)
        stretch = np.concatenate([ahead[:, 0], stretch, later])
        start = np.concatenate([ahead[:, 1], start, np.zeros_like(later)])
        return Stretches(
            self.stretches.document[stretch],
            self.stretches.start[stretch] + start,
            self.stretches.length[stretch] - start,
        )


def part(size: int, room: int, min_piece: int, keep_first: bool) -> int:
    """Tokens to place of a document longer than `room`; both parts get `min_piece` if possible."""
    missing = max(min_piece - (size - room), 0)  # tokens that the rest lacks
    count = max(room - missing, 0 if keep_first else 1)
    return 0 if keep_first and count < min_piece else count
