"""Pure packing: document lengths in, sequences of pieces out. No I/O, no tokens.

Window fill: documents come in seeded order into a window; each sequence starts with the oldest and is filled by the largest
that fit. Only documents longer than a sequence are cut, unless a gap of more than 1/64 would stay open.
"""

from bisect import bisect_right, insort
from collections import deque
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass

WINDOW = 1024
CUT_FOR_GAP = 64  # a gap above seq_len / 64 is worth cutting a short document


@dataclass(frozen=True, slots=True)
class Piece:
    document: int
    start: int  # first token within the document
    length: int


class _Pool:
    """What waits to be placed: by length for the best fit, by arrival for fairness."""

    def __init__(self, lengths: Sequence[tuple[int, int]]) -> None:
        self.coming = iter(lengths)
        self.by_length: list[tuple[int, int, int, int]] = []  # (remaining, arrival, document, start)
        self.oldest: deque[tuple[int, int, int, int]] = deque()
        self.alive: set[tuple[int, int, int, int]] = set()
        self.arrivals = 0
        self.refill()

    def refill(self) -> None:
        while len(self.by_length) < WINDOW and (item := next(self.coming, None)) is not None:
            self.add(item[0], 0, item[1])

    def add(self, document: int, start: int, remaining: int, front: bool = False) -> None:
        self.arrivals += 1
        entry = (remaining, self.arrivals, document, start)
        insort(self.by_length, entry)
        self.alive.add(entry)
        self.oldest.appendleft(entry) if front else self.oldest.append(entry)

    def take(self, entry: tuple[int, int, int, int]) -> tuple[int, int, int]:
        self.alive.remove(entry)
        del self.by_length[bisect_right(self.by_length, entry) - 1]
        return entry[2], entry[3], entry[0]

    def first(self) -> tuple[int, int, int, int] | None:
        while self.oldest and self.oldest[0] not in self.alive:
            self.oldest.popleft()
        return self.oldest[0] if self.oldest else None

    def largest_within(self, room: int) -> tuple[int, int, int, int] | None:
        at = bisect_right(self.by_length, (room, self.arrivals + 1, 0, 0))
        return self.by_length[at - 1] if at else None


def window_fill(
    lengths: Sequence[tuple[int, int]], seq_len: int, min_piece: int, whole: Container[int] = (), seed: int = 0
) -> Iterator[list[Piece]]:
    """Sequences of at most `seq_len` tokens from `(document, length)` in the order given, which is all that a seed decides here.

    Every token appears once; the pieces of one document come in order; padding is what a sequence lacks. Documents in `whole`
    are never cut to fill a gap.
    """
    pool = _Pool(lengths)
    while (head := pool.first()) is not None:
        pieces: list[Piece] = []
        room = seq_len
        entry: tuple[int, int, int, int] | None = head
        while entry is not None:
            piece = _place(pool, entry, room, min_piece, keep_first=bool(pieces))
            if piece is None:
                break
            pieces.append(piece)
            room -= piece.length
            entry = _next(pool, room, seq_len, min_piece, whole) if room else None
        pool.refill()
        yield pieces


def _next(
    pool: _Pool, room: int, seq_len: int, min_piece: int, whole: Container[int]
) -> tuple[int, int, int, int] | None:
    """The largest that fits whole; else one to cut, if the gap is worth it. What fills a sequence alone is never cut."""
    fits = pool.largest_within(room)
    if fits is not None or room < min_piece:
        return fits
    longest = next((e for e in reversed(pool.by_length) if e[0] != seq_len and e[2] not in whole), None)
    if longest is None or (longest[0] < seq_len and room <= seq_len // CUT_FOR_GAP):
        return None
    return longest


def _place(pool: _Pool, entry: tuple[int, int, int, int], room: int, min_piece: int, keep_first: bool) -> Piece | None:
    """Place the entry, or as much of it as fits; neither part is shorter than `min_piece` where that can be."""
    take = min(entry[0], room)
    left = entry[0] - take
    if 0 < left < min_piece:
        take = max(take - (min_piece - left), 0 if keep_first else 1)
    if take < entry[0] and take < min_piece and keep_first:
        return None
    document, start, remaining = pool.take(entry)
    if take < remaining:
        pool.add(document, start + take, remaining - take, front=not keep_first)
    return Piece(document, start, take)
