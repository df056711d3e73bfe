"""Conversions between the arrays of a plan and lists of pieces."""

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

import numpy as np

from ropewalk.data.packing.packed import Packed


class Piece(NamedTuple):
    document: int
    start: int
    length: int


def rows_of(packed: Packed) -> list[list[Piece]]:
    columns = (packed.document.tolist(), packed.start.tolist(), packed.length.tolist())
    pieces = [Piece(*piece) for piece in zip(*columns, strict=True)]
    return [
        pieces[a:b]
        for a, b in zip(packed.offsets.tolist(), packed.offsets[1:].tolist(), strict=False)
    ]


def packed_of(rows: Sequence[Sequence[Piece]]) -> Packed:
    flat = np.array([piece for row in rows for piece in row], dtype=np.int64).reshape(-1, 3)
    document, start, length = flat.T.copy()
    return Packed(document, start, length, np.cumsum([0, *(len(row) for row in rows)]))


def pack(
    packer: Callable[..., Packed],
    lengths: Sequence[int],
    seq_len: int,
    min_piece: int,
    intact: Collection[int] = (),
    seed: int = 0,
) -> list[list[Piece]]:
    """Pack documents of `lengths`; those in `intact` are not cut to fill a gap."""
    keep_intact = np.isin(np.arange(len(lengths)), list(intact))
    return rows_of(packer(np.array(lengths, dtype=np.int64), seq_len, min_piece, keep_intact, seed))
