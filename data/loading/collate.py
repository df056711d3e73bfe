"""One training sequence from its pieces, or any slice of it; several sequences end to end. Pure.

S tokens of a sequence   P pieces   R runs: stretches in which position minus index is constant
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

IGNORE = -100
ReadPiece = Callable[[int, int, int], np.ndarray]  # piece, first token in it, count -> token ids


@dataclass(frozen=True)
class Row:
    """One sequence, a slice of one, or several end to end."""

    input_ids: np.ndarray  # (S,) int64
    labels: np.ndarray
    """(S,) int64, shifted: the next token; IGNORE at a piece's last token and on padding"""
    position_ids: np.ndarray  # (S,) int64
    cu_seqlens: np.ndarray
    """(documents + 1,) int32, of the whole sequence; attention stays between two borders"""


@dataclass(frozen=True)
class Layout:
    """Where the pieces of a sequence are, and which position each token has."""

    window: int  # positions are below this
    starts: np.ndarray  # (P,) index of each piece's first token
    ends: np.ndarray  # (P,) index after its last token
    cu_seqlens: np.ndarray  # (documents + 1,) int32
    runs: np.ndarray  # (R,) index where each run starts
    shifts: np.ndarray  # (R,) position minus index in the run


def layout(
    lengths: np.ndarray, seq_len: int, *, document_mask: bool = True, restart_positions: bool = True
) -> Layout:
    """Pieces of `lengths` (P,), end to end; the padding after them is a separate document."""
    count = len(lengths)
    borders = np.zeros(count + 2, dtype=np.int64)
    np.cumsum(lengths, out=borders[1:-1])
    assert borders[-2] <= seq_len, f"pieces of {borders[-2]} tokens do not fit into {seq_len}"
    borders[-1] = seq_len
    starts, ends = borders[:count], borders[1 : count + 1]
    if borders[-2] == seq_len:
        borders = borders[:-1]
    runs = borders[:-1] if restart_positions else np.zeros(1, dtype=np.int64)
    cu_seqlens = borders if document_mask else np.array([0, seq_len])
    return Layout(seq_len, starts, ends, cu_seqlens.astype(np.int32), runs, -runs)


def read_span(pieces: Layout, read_piece: ReadPiece, low: int, high: int) -> Row:
    """Tokens `[low, high)` of the sequence, with the borders of all of it.

    Only pieces in that range are read, and one more token when the range ends inside a piece: its
    last label.
    """
    first = int(pieces.ends.searchsorted(low, side="right"))
    last = int(pieces.starts.searchsorted(high))
    starts, ends = pieces.starts[first:last].tolist(), pieces.ends[first:last].tolist()
    # one block: of three, malloc returns the pages to the system each time, and getting them again
    # costs more than everything else here
    ids, labels, positions = np.empty((3, high - low + 1), dtype=np.int64)
    stop = low
    for piece, start, end in zip(range(first, last), starts, ends, strict=True):
        begin, stop = max(start, low), min(end, high + 1)
        ids[begin - low : stop - low] = read_piece(piece, begin - start, stop - begin)
    ids[stop - low :] = 0
    labels[:-1] = ids[1:]
    labels[pieces.ends[first : max(last - 1, first)] - 1 - low] = IGNORE
    labels[max(stop - 1 - low, 0) :] = IGNORE
    _fill_positions(pieces, low, high, positions)
    return Row(ids[:-1], labels[:-1], positions[:-1], pieces.cu_seqlens)


def _fill_positions(pieces: Layout, low: int, high: int, positions: np.ndarray) -> None:
    """Write the positions of tokens `[low, high)` into `positions`."""
    counting = _arange(pieces.window)
    first = int(pieces.runs.searchsorted(low, side="right")) - 1
    last = int(pieces.runs.searchsorted(high))
    begins, shifts = pieces.runs[first:last].tolist(), pieces.shifts[first:last].tolist()
    for begin, end, shift in zip(begins, [*begins[1:], high], shifts, strict=False):
        begin = max(begin, low)
        positions[begin - low : end - low] = counting[begin + shift : end + shift]


@lru_cache(maxsize=2)
def _arange(count: int) -> np.ndarray:
    return np.arange(count)


def concatenate(
    pieces: Sequence[np.ndarray],
    seq_len: int,
    *,
    document_mask: bool = True,
    restart_positions: bool = True,
) -> Row:
    """Pieces end to end, padded to `seq_len` tokens."""
    lengths = np.array([len(piece) for piece in pieces], int)
    spans = layout(
        lengths, seq_len, document_mask=document_mask, restart_positions=restart_positions
    )
    return read_span(
        spans, lambda piece, start, length: pieces[piece][start : start + length], 0, seq_len
    )


def padding(count: int, low: int, high: int) -> Row:
    """Tokens `[low, high)` of `count` tokens of padding."""
    ids = np.zeros(high - low, dtype=np.int64)
    borders = np.array([0, count], dtype=np.int32)
    return Row(ids, np.full_like(ids, IGNORE), np.arange(low, high), borders)


def collate(rows: Sequence[Row]) -> Row:
    """A micro-batch: sequences end to end, which do not attend to one another."""
    shifts = np.cumsum([0, *(row.cu_seqlens[-1] for row in rows)])
    borders = [row.cu_seqlens[1:] + shift for row, shift in zip(rows, shifts, strict=False)]
    return Row(
        np.concatenate([row.input_ids for row in rows]),
        np.concatenate([row.labels for row in rows]),
        np.concatenate([row.position_ids for row in rows]),
        np.concatenate([[0], *borders]).astype(np.int32),
    )
