"""The window-fill packer: document lengths in, sequences of pieces out. Pure.

Documents enter a window in their order. Each sequence starts with the oldest document and is filled
with the largest that fit. Only documents longer than a sequence are cut, unless a gap of more than
1/64 of the sequence would stay open.

Documents are packed in chunks, each with a numbering of its own. What waits at the end of a chunk
are the first documents of the next one, so neither chunks nor blocks change a sequence.
"""

from collections.abc import Iterator

import numpy as np

from ropewalk.data.packing.packed import Packed, Stretches, join
from ropewalk.data.packing.window import Window

CHUNK = 1 << 15  # documents that are numbered at a time


def window_fill(
    lengths: np.ndarray,
    seq_len: int,
    min_piece: int,
    keep_intact: np.ndarray,
    seed: int = 0,
    more: bool = False,
    before: int = 0,
) -> Packed:
    """Sequences of at most `seq_len` tokens from `lengths` (documents,), in their order.

    `seed` and `before` are not used. Every token appears once, and the pieces of one document in
    order. Documents of `keep_intact` (documents,) bool are never cut to fill a gap. With `more`
    documents to come, what still waits for its sequence is in `waiting` of the result.
    """
    return join(list(_chunks(lengths, seq_len, min_piece, keep_intact, more)))


def _chunks(
    lengths: np.ndarray, seq_len: int, min_piece: int, keep_intact: np.ndarray, more: bool
) -> Iterator[Packed]:
    """The sequences chunk by chunk, numbered as `lengths`; the last one says what still waits."""
    waiting, first = Stretches.of(lengths[:0]), 0
    while True:
        end = min(first + max(CHUNK - len(waiting), 0), len(lengths))
        stretches = waiting.followed_by(Stretches.of(lengths[first:end], first))
        to_come = more or end < len(lengths)
        window = Window(stretches, keep_intact[stretches.document], seq_len, min_piece)
        packed = window.pack(to_come)
        waiting, first = packed.waiting, end
        yield packed
        if end == len(lengths) and (to_come or not len(waiting)):
            return
