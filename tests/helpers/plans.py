"""Small plans on disk for the tests of what reads them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pieces import Piece, packed_of, rows_of

from ropewalk.conf.artifacts.manifest import Manifest, publish
from ropewalk.data import planning
from ropewalk.data.loading.packed import DataArtifacts
from ropewalk.data.mixing.shares import Selection
from ropewalk.data.packing import plan
from ropewalk.data.packing.window_fill import Packed
from ropewalk.data.tokens import merge

VOCAB = 70_000


@dataclass(frozen=True)
class RankPosition:
    """A mesh as the loader needs it."""

    dp_rank: int = 0
    dp_size: int = 1
    sp_rank: int = 0
    sp_size: int = 1


def finish(folder: Path, facts: dict[str, Any]) -> Path:
    made = Manifest.for_content("test", {})
    made.facts = facts
    done = folder.with_name(folder.name + ".done")
    publish(folder, done, made)
    return done


def stored(folder: Path, documents: Sequence[np.ndarray]) -> Path:
    folder.mkdir(parents=True)
    return finish(folder, merge.synthetic_store(folder, "made", iter(documents), VOCAB))


def planned(folder: Path, rows: Sequence[Sequence[tuple[int, int, int]]], **facts: Any) -> Path:
    """A finished plan of pieces `(document, start, length)`."""
    folder.mkdir(parents=True)
    plan.write(folder, packed_of([[Piece(*piece) for piece in row] for row in rows]))
    return finish(folder, {"document_mask": True, "positions": "restart", **facts})


def written(
    folder: Path,
    documents: Sequence[np.ndarray],
    rows: Sequence[Sequence[tuple[int, int, int]]],
    **facts: Any,
) -> DataArtifacts:
    """One store and a plan over it."""
    made = {"only": stored(folder / "store", documents)}
    return DataArtifacts(planned(folder / "plan", rows, **facts), made, folder, heldout=0.0)


def packed(
    lengths: Sequence[int],
    seq_len: int,
    *,
    packer: str = "window_fill",
    seed: int = 0,
    marks: int = 0,
) -> list[list[tuple[int, int, int]]]:
    """A packer's own plan of documents of `lengths` stored tokens, each with `marks` more around it."""
    index = np.arange(len(lengths))
    tokens = np.array(lengths, dtype=np.int64) + marks
    epoch = np.zeros(len(index), np.int64)
    selection = Selection(index, tokens, epoch, index.astype(np.uint64), 1.0)
    packed = pack_selections(
        {"only": selection}, {"only": 0}, seq_len, min(2, seq_len), seed, packer=packer
    )
    return [[tuple(piece) for piece in row] for row in rows_of(packed)]


def pack_selections(
    selections: Mapping[str, Selection],
    first: Mapping[str, int],
    seq_len: int,
    min_piece: int,
    seed: int,
    *,
    max_piece: Mapping[str, int] | None = None,
    **kwargs: Any,
) -> Packed:
    """`planning.pack_selections` with pieces of up to `seq_len` tokens where `max_piece` names no other length."""
    limits = dict.fromkeys(selections, seq_len) | dict(max_piece or {})
    return planning.pack_selections(
        selections, first, seq_len, min_piece, seed, max_piece=limits, **kwargs
    )
