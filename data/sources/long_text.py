"""A long text in pieces, sliced as a `str` is. Pure.

Python stores a string at the width of its widest character, so one emoji makes a gigabyte of
English four. In pieces, it widens a megabyte.
"""

import codecs
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate

PIECE = 1 << 20  # bytes of a piece, about
LONG = 4 * PIECE  # characters; a shorter text is a `str`


class LongText:
    """Characters `[a:b]` and `len` are those of the joined pieces."""

    def __init__(self, pieces: Iterable[str]) -> None:
        self.pieces = [piece for piece in pieces if piece]
        self.ends = list(accumulate(map(len, self.pieces)))

    def __len__(self) -> int:
        return self.ends[-1] if self.ends else 0

    def __getitem__(self, span: slice) -> str:
        start, stop, step = span.indices(len(self))
        assert step == 1, "a slice of a text has no step"
        parts = []
        for number in range(bisect_right(self.ends, start), len(self.pieces)):
            first = self.ends[number] - len(self.pieces[number])
            if first >= stop:
                break
            parts.append(self.pieces[number][max(start - first, 0) : stop - first])
        return "".join(parts)

    def __str__(self) -> str:
        return "".join(self.pieces)


Text = str | LongText


def pieces_of(text: Text) -> list[str]:
    return [text] if isinstance(text, str) else text.pieces


def joined(pieces: Sequence[str]) -> Text:
    """The text of the pieces: a `str`, or from LONG characters on the pieces themselves."""
    if sum(map(len, pieces)) < LONG:
        return "".join(pieces)
    return LongText(pieces)


def utf8_size(text: Text) -> int:
    """Bytes. Raises: UnicodeEncodeError for a lone surrogate."""
    return sum(len(piece.encode()) for piece in pieces_of(text))


class Decoder:
    """Bytes, block after block, as a text. `utf-8-sig` leaves out a byte order mark."""

    def __init__(self, encoding: str) -> None:
        self.decoder = codecs.getincrementaldecoder(encoding)()
        self.pieces: list[str] = []

    def add(self, block: bytes | memoryview) -> None:
        """Raises: UnicodeDecodeError."""
        self.pieces.append(self.decoder.decode(block))

    def text(self) -> Text:
        """Raises: UnicodeDecodeError when the last character breaks off."""
        self.pieces.append(self.decoder.decode(b"", final=True))
        return joined(self.pieces)
