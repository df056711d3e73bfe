"""The plan: which piece of which document is in which sequence. It holds no tokens."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ropewalk.data.packing.packed import Packed
from ropewalk.data.packing.packers import PACKERS, parts
from ropewalk.data.tokens.arrow_table import read_table, to_arrow, to_numpy

PIECE = pa.struct([("document", pa.int64()), ("start", pa.int64()), ("length", pa.int32())])


def build(
    document: np.ndarray,
    tokens: np.ndarray,
    max_piece: np.ndarray,
    keep_intact: np.ndarray,
    seq_len: int,
    min_piece: int,
    seed: int,
    packer: str,
) -> Packed:
    """Pack takings in their order.

    Arrays have an entry a taking: the `document` number, its first `tokens`, the longest piece it
    may have, and whether it must not be cut to fill a gap (bool). Within a sequence, the pieces of
    one taking lie side by side in document order.
    """
    # only a `max_piece` below `seq_len` cuts here; the packer cuts longer stretches of a taking
    limit = np.where(max_piece < seq_len, max_piece, tokens)
    taking, start, length = parts(tokens, limit, min_piece)
    packed = PACKERS[packer](length, seq_len, min_piece, keep_intact[taking], seed)
    if len(taking) > len(document):
        packed = _side_by_side(packed, taking)
    stretch = packed.document
    return Packed(
        document[taking[stretch]], start[stretch] + packed.start, packed.length, packed.offsets
    )


def _side_by_side(packed: Packed, taking: np.ndarray) -> Packed:
    """Move the pieces of one taking next to its first piece in their sequence.

    `taking`: (stretches,) the taking of each stretch.
    """
    stretch = packed.document
    row = np.repeat(np.arange(len(packed)), np.diff(packed.offsets))
    groups = row * (taking.max(initial=0) + 1) + taking[stretch]
    _, first, group = np.unique(groups, return_index=True, return_inverse=True)
    order = np.lexsort((packed.start, stretch, first[group]))
    return Packed(stretch[order], packed.start[order], packed.length[order], packed.offsets)


def write(folder: Path, packed: Packed) -> None:
    """`plan.arrow`: one row a sequence, `pieces: list<struct<document, start, length>>`."""
    columns = zip((packed.document, packed.start, packed.length), PIECE, strict=True)
    pieces = pa.StructArray.from_arrays(
        [to_arrow(values, pa.int64()).cast(field.type) for values, field in columns],
        fields=list(PIECE),
    )
    offsets = to_arrow(packed.offsets, pa.int64())
    table = pa.table({"pieces": pa.LargeListArray.from_arrays(offsets, pieces)})
    with (
        pa.OSFile(str(folder / "plan.arrow"), "wb") as sink,
        pa.ipc.new_file(sink, table.schema) as writer,
    ):
        writer.write_table(table)


def read(folder: Path) -> Packed:
    """The pieces of a finished plan, memory-mapped; `length` is int32."""
    column = read_table(folder / "plan.arrow")["pieces"].combine_chunks()
    document, start, length = (to_numpy(column.values.field(field.name)) for field in PIECE)
    return Packed(document, start, length, to_numpy(column.offsets))


def describe(packed: Packed, seq_len: int, boundary_tokens: int = 0) -> dict[str, Any]:
    """Counts for the plan's manifest, in tokens but for `sequences` and `pieces`.

    `boundary_tokens` of the packed tokens are BOS and EOS, which `tokens` does not count.
    """
    filled, room = int(packed.length.sum()), len(packed) * seq_len
    return {
        "sequences": len(packed),
        "seq_len": seq_len,
        "tokens": filled - boundary_tokens,
        "marks": boundary_tokens,
        "padding": room - filled,
        "fill": round(filled / room, 6) if room else 0.0,
        "pieces": len(packed.length),
    }
