"""One sequence as the trainer takes it: pieces laid end to end, whole or any stretch of it. Pure.

Legend: S tokens of one sequence, P pieces, R runs: stretches in which position minus place is constant.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

IGNORE = -100
Read = Callable[[int, int, int], np.ndarray]  # piece, first token in it, how many -> their ids


@dataclass(frozen=True)
class Row:
    """One sequence, a stretch of one, or several laid end to end."""

    input_ids: np.ndarray  # (S,) int64
    labels: (
        np.ndarray
    )  # (S,) int64, already shifted: the next token, IGNORE at a piece's last token and on padding
    position_ids: np.ndarray  # (S,) int64
    cu_seqlens: (
        np.ndarray
    )  # (documents + 1,) int32, of the whole: attention stays between two neighbours


@dataclass(frozen=True)
class Layout:
    """Where the pieces of a sequence stand, and which position each token has."""

    window: int  # positions are below this
    starts: np.ndarray  # (P,) place of each piece's first token
    ends: np.ndarray  # (P,) place after its last
    cu_seqlens: np.ndarray  # (documents + 1,) int32
    runs: np.ndarray  # (R,) place where each run starts
    shifts: np.ndarray  # (R,) position minus place in it


def layout(
    lengths: np.ndarray, seq_len: int, *, document_mask: bool = True, restart: bool = True
) -> Layout:
    """Pieces of `lengths` (P,) from the start of the sequence on; what is left is padding, a document of its own."""
    count = len(lengths)
    borders = np.zeros(count + 2, dtype=np.int64)
    np.cumsum(lengths, out=borders[1:-1])
    assert borders[-2] <= seq_len, f"pieces of {borders[-2]} tokens do not fit into {seq_len}"
    borders[-1] = seq_len
    starts, ends = borders[:count], borders[1 : count + 1]
    if borders[-2] == seq_len:
        borders = borders[:-1]
    runs = borders[:-1] if restart else np.zeros(1, dtype=np.int64)
    kept = borders if document_mask else np.array([0, seq_len])
    return Layout(seq_len, starts, ends, kept.astype(np.int32), runs, -runs)


def read_span(at: Layout, read: Read, low: int, high: int) -> Row:
    """Places `[low, high)` of the sequence, with the borders of all of it. Only pieces that stand there are read, and one token
    more where the stretch ends inside a piece: its last label."""
    first, last = int(at.ends.searchsorted(low, side="right")), int(at.starts.searchsorted(high))
    starts, ends = at.starts[first:last].tolist(), at.ends[first:last].tolist()
    # one block: of three, malloc gives the pages back to the system each time, and getting them again costs more than all the rest
    line, labels, positions = np.empty((3, high - low + 1), dtype=np.int64)
    stop = low
    for piece, start, end in zip(range(first, last), starts, ends, strict=True):
        begin, stop = max(start, low), min(end, high + 1)
        line[begin - low : stop - low] = read(piece, begin - start, stop - begin)
    line[stop - low :] = 0
    labels[:-1] = line[1:]
    labels[at.ends[first : max(last - 1, first)] - 1 - low] = IGNORE
    labels[max(stop - 1 - low, 0) :] = IGNORE
    _count(at, low, high, positions)
    return Row(line[:-1], labels[:-1], positions[:-1], at.cu_seqlens)


def _count(at: Layout, low: int, high: int, found: np.ndarray) -> None:
    """The positions of places `[low, high)`, into `found`."""
    places = _places(at.window)
    first, last = int(at.runs.searchsorted(low, side="right")) - 1, int(at.runs.searchsorted(high))
    begins, shifts = at.runs[first:last].tolist(), at.shifts[first:last].tolist()
    for begin, end, shift in zip(begins, [*begins[1:], high], shifts, strict=False):
        begin = max(begin, low)
        found[begin - low : end - low] = places[begin + shift : end + shift]


@lru_cache(maxsize=2)
def _places(count: int) -> np.ndarray:
    return np.arange(count)


def concatenate(
    pieces: Sequence[np.ndarray], seq_len: int, *, document_mask: bool = True, restart: bool = True
) -> Row:
    """Pieces end to end -> one Row of `seq_len` tokens."""
    at = layout(
        np.array([len(p) for p in pieces], int),
        seq_len,
        document_mask=document_mask,
        restart=restart,
    )
    return read_span(
        at, lambda piece, start, length: pieces[piece][start : start + length], 0, seq_len
    )


def padding(count: int, low: int, high: int) -> Row:
    """Places `[low, high)` of `count` tokens that are no text."""
    ids = np.zeros(high - low, dtype=np.int64)
    return Row(
        ids, np.full_like(ids, IGNORE), np.arange(low, high), np.array([0, count], dtype=np.int32)
    )


def collate(rows: Sequence[Row]) -> Row:
    """A micro-batch laid end to end: its sequences never see each other."""
    shifts = np.cumsum([0, *(r.cu_seqlens[-1] for r in rows)])
    borders = [r.cu_seqlens[1:] + shift for r, shift in zip(rows, shifts, strict=False)]
    return Row(
        np.concatenate([r.input_ids for r in rows]),
        np.concatenate([r.labels for r in rows]),
        np.concatenate([r.position_ids for r in rows]),
        np.concatenate([[0], *borders]).astype(np.int32),
    )
