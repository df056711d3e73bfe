"""The token store of a source: its tokens, flat in shards, under one Arrow table of its documents.

documents.arrow        id, key (a hash of the id), shard, offset (in the shard), tokens, characters, text_hash
NNNNN/tokens.bin       uint16 below 65,536 words, else uint32; documents end to end, no BOS or EOS
NNNNN/                 the shard's own documents.arrow and manifest.json, as it was finished by itself
manifest.json          fingerprint, dtype, counts in all and by shard, what was refused and why
"""

import hashlib
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from math import ceil
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa

from ropewalk.conf.artifacts import manifest
from ropewalk.conf.errors import DataError
from ropewalk.conf.sources import SYNTHETIC
from ropewalk.data import hash_random
from ropewalk.data.tokens import shards

TOKENS, DOCUMENTS = "tokens.bin", "documents.arrow"
OPEN = 256  # shards that are mapped at once; each holds a file descriptor


class Ids(Sequence[str]):
    """A column of ids, read one by one from where it lies."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        self.column = column

    def __len__(self) -> int:
        return len(self.column)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> "Ids": ...
    def __getitem__(self, index: int | slice) -> "str | Ids":
        return Ids(self.column[index]) if isinstance(index, slice) else self.column[index].as_py()


class Tokens:
    """The shards' tokens end to end, mapped when they are asked for. A slice is a view and lies in one shard."""

    def __init__(self, files: Sequence[Path], counts: Sequence[int], dtype: np.dtype[Any]) -> None:
        self.files, self.dtype = list(files), dtype
        self.first: list[int] = np.cumsum([0, *counts], dtype=np.int64).tolist()

    def __len__(self) -> int:
        return self.first[-1]

    def __getitem__(self, span: slice) -> np.ndarray:
        shard = min(bisect_right(self.first, span.start), len(self.files)) - 1
        first, end = self.first[shard], self.first[shard + 1]
        assert span.stop <= end, "a document lies in one shard"
        return _mapped(self.files[shard], self.dtype)[span.start - first : span.stop - first]


@lru_cache(OPEN)
def _mapped(file: Path, dtype: np.dtype[Any]) -> np.ndarray:
    """As a plain array: slicing a memmap takes several times as long."""
    return (
        np.memmap(file, dtype=dtype, mode="r").view(np.ndarray)
        if file.stat().st_size
        else np.empty(0, dtype)
    )


@dataclass(frozen=True)
class Store:
    """A finished token store, memory-mapped."""

    tokens: Tokens | np.ndarray  # (N,) flat, with those of documents that the table does not have
    offset: np.ndarray  # (documents,) first token of each
    length: np.ndarray  # (documents,) tokens of each
    heldout: np.ndarray  # (documents,) bool, by the share that was asked for on loading
    key: np.ndarray  # (documents,) uint64, of the id
    ids: Sequence[str]
    facts: dict[str, Any]
    fingerprint: str
    text_hash: np.ndarray = field(
        default_factory=lambda: np.empty(0, np.uint64)
    )  # (documents,) uint64: equal texts

    def document(self, index: int, start: int = 0, length: int | None = None) -> np.ndarray:
        """Tokens `[start, start + length)` of a document, without a copy."""
        first = int(self.offset[index]) + start
        return self.tokens[
            first : first + (int(self.length[index]) - start if length is None else length)
        ]

    @property
    def held(self) -> str:
        """What tells one choice of held-out documents from another: it decides no token, so it is not in the fingerprint."""
        return hashlib.sha256(np.packbits(self.heldout).tobytes()).hexdigest()[:16]

    def held_counts(self) -> dict[str, int]:
        """The ledger's words."""
        return {
            "heldout_documents": int(self.heldout.sum()),
            "heldout_tokens": int(self.length[self.heldout].sum()),
        }


def is_heldout(document_id: str, share: float) -> bool:
    """By a hash of the id alone: independent of order, seed and machine."""
    return hash_random.document_key(document_id) < _below(share)


def _below(share: float) -> int:
    """Keys under this are held out. A whole number, so that numpy compares as Python does."""
    return ceil(share * 2**64)


def dtype_for(vocab_size: int) -> np.dtype[Any]:
    return np.dtype(np.uint16 if vocab_size <= 1 << 16 else np.uint32)


def numbers(column: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """A column of numbers, as it lies in Arrow. Its `to_numpy` would import pandas: half a second of every start."""
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return np.from_dlpack(whole)


def table_of(folder: Path) -> pa.Table:
    """documents.arrow of a store or a shard, mapped."""
    return pa.ipc.open_file(pa.memory_map(str(folder / DOCUMENTS))).read_all()


def refuse_other_size(
    shard: Path, facts: dict[str, Any], dtype: np.dtype[Any], way_out: str
) -> None:
    """Hold a shard's folder against its `facts`. Raises: DataError: read by wrong offsets, it would give other documents' tokens."""
    try:
        size = (shard / TOKENS).stat().st_size
    except FileNotFoundError:
        size = 0
    if size != (wanted := facts["tokens"] * dtype.itemsize):
        raise DataError(
            f"{shard / TOKENS} is {size:,} bytes; by its manifest it must be {wanted:,}; {way_out}"
        )


def refuse_other_bytes(shard: Path, facts: dict[str, Any]) -> None:
    """All of a shard's tokens are read. Raises: DataError when their sha256 is not that of its `facts`."""
    with (shard / TOKENS).open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != facts["sha256"]:
        raise DataError(
            f"{shard / TOKENS} has sha256 {found[:16]}...; by its manifest it must be {facts['sha256'][:16]}...; "
            f"{delete_it(shard)}"
        )


def delete_it(shard: Path) -> str:
    """The way out for a shard of a store that is not merged yet: of that one alone the tokens are made again."""
    return f"delete {shard} and run again"


def _keep_others(shard: Path) -> str:
    """The way out for a shard of a finished store."""
    store = shard.parent
    return f"delete {store} and run again, or to keep its other shards: delete {shard}, rename {store} to {store.name}.tmp, run again"


def load(folder: Path, heldout: float) -> Store:
    """Open a finished store with a share of its documents held out, none of made-up ones; the tokens are mapped, not read.

    Raises: DataError for a shard whose file has another size.
    """
    found = manifest.read(folder)
    assert found is not None, f"{folder.name} is not finished"
    table = table_of(folder)
    key, share = numbers(table["key"]), 0.0 if found.facts.get("kind") in SYNTHETIC else heldout
    tokens = _tokens(folder, found.facts["shards"], np.dtype(found.facts["dtype"]))
    return Store(
        tokens=tokens,
        offset=_flat(numbers(table["offset"]), numbers(table["shard"]), tokens),
        length=numbers(table["tokens"]),
        heldout=key < np.uint64(_below(share)),
        key=key,
        ids=Ids(table["id"]),
        facts=found.facts,
        fingerprint=found.fingerprint,
        text_hash=numbers(table["text_hash"]),
    )


def _tokens(folder: Path, made: Sequence[dict[str, Any]], dtype: np.dtype[Any]) -> Tokens:
    parts = [folder / shards.name(number) for number in range(len(made))]
    for shard, facts in zip(parts, made, strict=True):
        refuse_other_size(shard, facts, dtype, _keep_others(shard))
    return Tokens([shard / TOKENS for shard in parts], [facts["tokens"] for facts in made], dtype)


def _flat(offset: np.ndarray, shard: np.ndarray, tokens: Tokens) -> np.ndarray:
    """Offsets in the shards -> offsets in all of them. One shard's stay where they lie."""
    return (
        offset if len(tokens.first) <= 2 else offset + np.array(tokens.first, dtype=np.int64)[shard]
    )
