"""The plan: which piece of which document stands in which sequence. Some MB; tokens are never written again."""

from collections.abc import Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ropewalk.data import draw
from ropewalk.data.pack import Piece
from ropewalk.data.packers import PACKERS, parts
from ropewalk.data.shares import Share

PIECE = pa.struct([("document", pa.int64()), ("start", pa.int64()), ("length", pa.int32())])

Stretch = tuple[
    int, int, int, int
]  # place of its document in the mixture, document, start, length: packed like a document


def build(
    shares: dict[str, Share],
    first: dict[str, int],
    seq_len: int,
    min_piece: int,
    seed: int,
    whole: Container[int] = (),
    packer: str = "window_fill",
    piece_len: Mapping[str, int] | None = None,
) -> list[list[Piece]]:
    """Mix the sources' documents by hash and pack them. `first[name]` is the source's first global document number;
    documents in `whole` are not cut to fill a gap; `piece_len[name]` is the longest piece of a source, where it is not `seq_len`.

    Within a sequence, the pieces of one document lie side by side in document order.
    """
    most = {name: (piece_len or {}).get(name, seq_len) for name in shares}
    mixed = [
        (rank, first[name] + index, length, most[name])
        for name, share in shares.items()
        for rank, index, length in zip(
            draw.ranks(seed, f"mix:{name}", share.key, share.epoch).tolist(),
            share.index.tolist(),
            share.taken.tolist(),
            strict=True,
        )
    ]
    mixed.sort()
    stretches = [
        (place, document, start, size)
        for place, (_, document, length, longest) in enumerate(mixed)
        for start, size in _stretches(length, longest, seq_len, min_piece)
    ]
    kept = {number for number, (_, document, _, _) in enumerate(stretches) if document in whole}
    given = [(number, size) for number, (_, _, _, size) in enumerate(stretches)]
    rows = PACKERS[packer](given, seq_len, min_piece, kept, seed)
    return [_named(row if len(stretches) == len(mixed) else _side_by_side(row, stretches), stretches) for row in rows]


def _stretches(length: int, most: int, seq_len: int, min_piece: int) -> Iterable[tuple[int, int]]:
    """What of a document is packed by itself. What is longer than a sequence, each packer cuts in its own way."""
    return parts(length, most, min_piece) if length > most and most < seq_len else ((0, length),)


def _named(row: Sequence[Piece], stretches: Sequence[Stretch]) -> list[Piece]:
    """Pieces of stretches -> pieces of documents."""
    return [Piece(stretches[p.document][1], stretches[p.document][2] + p.start, p.length) for p in row]


def _side_by_side(row: list[Piece], stretches: Sequence[Stretch]) -> list[Piece]:
    places: dict[int, int] = {}
    for at, piece in enumerate(row):
        places.setdefault(stretches[piece.document][0], at)
    return sorted(row, key=lambda p: (places[stretches[p.document][0]], p.document, p.start))


def write(folder: Path, sequences: Sequence[Sequence[Piece]]) -> None:
    """`plan.arrow`: one row a sequence, `pieces: list<struct<document, start, length>>`."""
    rows = [[{"document": p.document, "start": p.start, "length": p.length} for p in row] for row in sequences]
    table = pa.table({"pieces": pa.array(rows, type=pa.large_list(PIECE))})
    with pa.OSFile(str(folder / "plan.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def describe(sequences: Sequence[Sequence[Piece]], seq_len: int, marks: int = 0) -> dict[str, Any]:
    """The plan's part of the ledger: fill, padding, own context, piece lengths. All counts are tokens but for pieces.

    `marks` of the tokens stand before and after documents. They fill sequences, and are not among `tokens`.
    """
    lengths = np.array([p.length for row in sequences for p in row], dtype=np.int64)
    filled, room = int(lengths.sum()), len(sequences) * seq_len
    bounds = [b for b in (256, 1024, 4096, 16384, 32768, 65536, 131072, 262144, 524288) if b < seq_len]
    edges = [0, *bounds, seq_len]
    return {
        "sequences": len(sequences),
        "seq_len": seq_len,
        "tokens": filled - marks,
        "marks": marks,
        "padding": room - filled,
        "fill": round(filled / room, 6) if room else 0.0,
        "pieces": len(lengths),
        "own_context_share": {
            str(b): round(float(np.maximum(lengths - b, 0).sum() / filled), 6) if filled else 0.0 for b in bounds
        },
        "piece_lengths": {
            f"{low + 1}-{high}": int(((lengths > low) & (lengths <= high)).sum())
            for low, high in zip(edges, edges[1:], strict=False)
        },
    }
