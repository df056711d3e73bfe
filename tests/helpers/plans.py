"""Small plans on disk for the tests of what reads them."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pieces import Piece, packed_of, rows_of

from ropewalk.conf.artifacts.manifest import Manifest, publish
from ropewalk.data import planning
from ropewalk.data.loading.packed import DataArtifacts
from ropewalk.data.mixing.rounds import SamplingRounds, Selection
from ropewalk.data.mixing.supply import BucketedSource
from ropewalk.data.packing import plan
from ropewalk.data.packing.packed import Packed, join
from ropewalk.data.tokens import merge

VOCAB = 70_000


@dataclass(frozen=True)
class RankPosition:
    """The attributes of a mesh that the loader reads."""

    dp_rank: int = 0
    dp_size: int = 1
    sp_rank: int = 0
    sp_size: int = 1


def finish(folder: Path, metadata: dict[str, Any]) -> Path:
    manifest = Manifest.for_content("test", {})
    manifest.facts = metadata
    done = folder.with_name(folder.name + ".done")
    publish(folder, done, manifest)
    return done


def stored(folder: Path, documents: Sequence[np.ndarray]) -> Path:
    folder.mkdir(parents=True)
    return finish(folder, merge.synthetic_store(folder, "made", iter(documents), VOCAB))


def planned(folder: Path, rows: Sequence[Sequence[tuple[int, int, int]]], **facts: Any) -> Path:
    """A finished plan of pieces `(document, start, length)`."""
    folder.mkdir(parents=True)
    plan.write(folder, [packed_of([[Piece(*piece) for piece in row] for row in rows])])
    return finish(folder, {"document_mask": True, "positions": "restart", **facts})


def written(
    folder: Path,
    documents: Sequence[np.ndarray],
    rows: Sequence[Sequence[tuple[int, int, int]]],
    **facts: Any,
) -> DataArtifacts:
    """One store and a plan over it."""
    stores = {"only": stored(folder / "store", documents)}
    return DataArtifacts(planned(folder / "plan", rows, **facts), stores, folder, heldout=0.0)


def take(source: SamplingRounds | BucketedSource, budget: int | None = None) -> Selection:
    """All parts of the takings as one selection, in the order of the documents."""
    parts = list(source.parts(budget))
    names = ("index", "lengths", "epoch", "key")
    return Selection(*(np.concatenate([getattr(part, n) for part in parts]) for n in names))


def packed(
    lengths: Sequence[int],
    seq_len: int,
    *,
    packer: str = "window_fill",
    seed: int = 0,
    boundary_tokens: int = 0,
) -> list[list[tuple[int, int, int]]]:
    """A packer's plan of documents of `lengths` tokens, plus `boundary_tokens` for each."""
    index = np.arange(len(lengths))
    tokens = np.array(lengths, dtype=np.int64) + boundary_tokens
    epoch = np.zeros(len(index), np.int64)
    selection = Selection(index, tokens, epoch, index.astype(np.uint64))
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
    blocks: int = 1,
    **kwargs: Any,
) -> Packed:
    """`planning.pack_selections`, where `max_piece` is `seq_len` by default; all blocks as one."""
    limits = dict.fromkeys(selections, seq_len) | dict(max_piece or {})
    parts = {name: [selection] for name, selection in selections.items()}
    with tempfile.TemporaryDirectory() as folder:
        packed = planning.pack_selections(
            parts,
            first,
            seq_len,
            min_piece,
            seed,
            Path(folder),
            max_piece=limits,
            blocks=blocks,
            **kwargs,
        )
        return join(list(packed))
