"""The plan: which piece of which document stands in which sequence. Some MB; tokens are never written again."""

from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ropewalk.data import hash_random
from ropewalk.data.mixing.shares import Selection
from ropewalk.data.packing.packers import PACKERS, parts
from ropewalk.data.packing.window_fill import Packed
from ropewalk.data.tokens.arrow_table import to_arrow

PIECE = pa.struct([("document", pa.int64()), ("start", pa.int64()), ("length", pa.int32())])


def build(
    shares: dict[str, Selection],
    first: dict[str, int],
    seq_len: int,
    min_piece: int,
    seed: int,
    whole: Container[str] = (),
    packer: str = "window_fill",
    piece_len: Mapping[str, int] | None = None,
) -> Packed:
    """Mix the sources' documents by hash and pack them. `first[name]` is the source's first global document number;
    documents of sources in `whole` are not cut to fill a gap; `piece_len[name]` is the longest piece of a source, where it is
    not `seq_len`.

    Within a sequence, the pieces of one document lie side by side in document order.
    """
    source, document, tokens = _mixed(shares, first, seed)
    most = np.array([(piece_len or {}).get(name, seq_len) for name in shares], dtype=np.int64)[
        source
    ]
    place, start, length = _stretches(tokens, most, seq_len, min_piece)
    kept = np.array([name in whole for name in shares], dtype=bool)[source][place]
    packed = PACKERS[packer](length, seq_len, min_piece, kept, seed)
    if len(place) > len(document):
        packed = _side_by_side(packed, place)
    stretch = packed.document
    return Packed(
        document[place[stretch]], start[stretch] + packed.start, packed.length, packed.offsets
    )


def _mixed(
    shares: dict[str, Selection], first: dict[str, int], seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every taking in the order of its hash: number of its source, global document, tokens; each (takings,) int64."""
    none = np.empty(0, np.int64)
    source = np.repeat(np.arange(len(shares)), [len(share.index) for share in shares.values()])
    document = np.concatenate(
        [none, *(first[name] + share.index for name, share in shares.items())]
    )
    tokens = np.concatenate([none, *(share.taken for share in shares.values())])
    ranks = [
        hash_random.sort_keys(seed, f"mix:{name}", share.key, share.epoch)
        for name, share in shares.items()
    ]
    order = np.lexsort((document, np.concatenate([none.astype(np.uint64), *ranks])))
    return source[order], document[order], tokens[order]


def _stretches(
    tokens: np.ndarray, most: np.ndarray, seq_len: int, min_piece: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What of a document is packed like one, by itself: `(place of its document, start, length)`, each (stretches,).

    What is longer than a sequence, each packer cuts in its own way.
    """
    return parts(tokens, np.where(most < seq_len, most, tokens), min_piece)


def _side_by_side(packed: Packed, place: np.ndarray) -> Packed:
    """Pieces of stretches of one document (`place` of each stretch) moved to the first of them in their sequence."""
    stretch = packed.document
    row = np.repeat(np.arange(len(packed)), np.diff(packed.offsets))
    _, at, group = np.unique(
        row * (place.max(initial=0) + 1) + place[stretch], return_index=True, return_inverse=True
    )
    order = np.lexsort((packed.start, stretch, at[group]))
    return Packed(stretch[order], packed.start[order], packed.length[order], packed.offsets)


def write(folder: Path, packed: Packed) -> None:
    """`plan.arrow`: one row a sequence, `pieces: list<struct<document, start, length>>`."""
    columns = zip((packed.document, packed.start, packed.length), PIECE, strict=True)
    pieces = pa.StructArray.from_arrays(
        [to_arrow(values, pa.int64()).cast(f.type) for values, f in columns], fields=list(PIECE)
    )
    table = pa.table(
        {"pieces": pa.LargeListArray.from_arrays(to_arrow(packed.offsets, pa.int64()), pieces)}
    )
    with (
        pa.OSFile(str(folder / "plan.arrow"), "wb") as sink,
        pa.ipc.new_file(sink, table.schema) as writer,
    ):
        writer.write_table(table)


def describe(packed: Packed, seq_len: int, marks: int = 0) -> dict[str, Any]:
    """What is counted while the plan is made, tokens but for sequences and pieces; the ledger counts the rest of the finished plan.

    `marks` of the tokens stand before and after documents. They fill sequences, and are not among `tokens`.
    """
    filled, room = int(packed.length.sum()), len(packed) * seq_len
    return {
        "sequences": len(packed),
        "seq_len": seq_len,
        "tokens": filled - marks,
        "marks": marks,
        "padding": room - filled,
        "fill": round(filled / room, 6) if room else 0.0,
        "pieces": len(packed.length),
    }
