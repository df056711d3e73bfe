"""The plan: which piece of which document stands in which sequence. Some MB; tokens are never written again."""

import hashlib
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ropewalk.conf.errors import DataError
from ropewalk.data.pack import Piece
from ropewalk.data.packers import PACKERS, parts

PIECE = pa.struct([("document", pa.int64()), ("start", pa.int64()), ("length", pa.int32())])

Stretch = tuple[
    int, int, int, int
]  # place of its document in the mixture, document, start, length: packed like a document


@dataclass(frozen=True)
class Share:
    """What the mixture takes of one source: whole documents, the last one cut to the budget."""

    documents: list[tuple[int, int]]  # (index in the source, tokens taken)
    tokens: int
    epochs: float


def _rank(seed: int, name: str, epoch: int, index: int) -> bytes:
    return hashlib.blake2b(f"{seed}:{name}:{epoch}:{index}".encode(), digest_size=8).digest()


def choose(name: str, lengths: np.ndarray, usable: np.ndarray, budget: int | None, seed: int) -> Share:
    """Documents of one source in an order hashed from `(seed, name, epoch, index)`, repeated until `budget` tokens.

    Without a budget: each usable document once. Raises: DataError when nothing is usable.
    """
    indices = np.flatnonzero(usable)
    total = int(lengths[indices].sum())
    if total == 0:
        raise DataError(f"data.sources.{name} has no tokens to train on; it must hold at least one document; add some")
    taken: list[tuple[int, int]] = []
    left, epoch = total if budget is None else budget, 0
    while left > 0:
        for index in sorted(indices.tolist(), key=lambda i: _rank(seed, name, epoch, i)):  # noqa: B023
            length = min(int(lengths[index]), left)
            taken.append((index, length))
            left -= length
            if left == 0:
                break
        epoch += 1
    tokens = sum(length for _, length in taken)
    return Share(taken, tokens, tokens / total)


def budgets(
    weights: dict[str, float | None], available: dict[str, int | None], tokens: int | None
) -> dict[str, int | None]:
    """Tokens each source gives. `available` is None for a synthetic source, which gives whatever is asked.

    With weights and no total, the total is what the first source to run out allows; without weights, all there is.
    """
    if all(w is None for w in weights.values()):
        if tokens is None:
            return dict.fromkeys(weights)
        sizes = {name: float(size or 0) for name, size in available.items()}
    else:
        sizes = {name: float(w or 0) for name, w in weights.items()}
    total_weight = sum(sizes.values()) or 1.0
    if tokens is None:
        limits = [a * total_weight / sizes[n] for n, a in available.items() if a is not None and sizes[n] > 0]
        tokens = int(min(limits)) if limits else 0
    return {name: round(tokens * size / total_weight) for name, size in sizes.items()}


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
        (_rank(seed, f"mix:{name}", occurrence, index), first[name] + index, length, most[name])
        for name, share in shares.items()
        for occurrence, (index, length) in enumerate(share.documents)
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
