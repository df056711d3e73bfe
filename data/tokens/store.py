"""The token store of a source: its tokens, flat in shards, under one Arrow table of its documents.

documents.arrow    id, key (a hash of the id), shard, offset in it, tokens, characters, text_hash
NNNNN/tokens.bin   uint16 for vocabularies up to 65,536, else uint32; documents without BOS or EOS
NNNNN/             also the shard's own documents.arrow and manifest.json
manifest.json      fingerprint, dtype, counts in total and by shard, refused documents by reason
"""

import hashlib
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
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
from ropewalk.data.tokens.arrow_table import read_table, to_numpy

FORMAT = 9  # raise when the bytes of a store or plan change for the same settings
TOKENS, DOCUMENTS = "tokens.bin", "documents.arrow"
MAX_MAPPED_SHARDS = 256  # each holds a file descriptor


class IdColumn(Sequence[str]):
    """Document ids, read from the mapped table one by one."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        self.column = column

    def __len__(self) -> int:
        return len(self.column)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> "IdColumn": ...
    def __getitem__(self, index: int | slice) -> "str | IdColumn":
        if isinstance(index, slice):
            return IdColumn(self.column[index])
        return self.column[index].as_py()  # type: ignore[no-any-return]


class ShardedTokens:
    """The shards' tokens end to end, mapped on first use. A slice is a view within one shard."""

    def __init__(self, files: Sequence[Path], counts: Sequence[int], dtype: np.dtype[Any]) -> None:
        self.files = list(files)
        self.dtype = dtype
        self.first: list[int] = np.cumsum([0, *counts], dtype=np.int64).tolist()

    def __len__(self) -> int:
        return self.first[-1]

    def __getitem__(self, span: slice) -> np.ndarray:
        shard = min(bisect_right(self.first, span.start), len(self.files)) - 1
        first, end = self.first[shard], self.first[shard + 1]
        assert span.stop <= end, "a document lies in one shard"
        return _mapped(self.files[shard], self.dtype)[span.start - first : span.stop - first]


class FlatOffsets:
    """The first token of each document in `ShardedTokens`, computed when it is asked for."""

    def __init__(self, offset: np.ndarray, shard: np.ndarray, first: Sequence[int]) -> None:
        self.offset, self.shard, self.first = offset, shard, first

    def __getitem__(self, index: int) -> int:
        return self.first[self.shard[index]] + int(self.offset[index])


@lru_cache(MAX_MAPPED_SHARDS)
def _mapped(file: Path, dtype: np.dtype[Any]) -> np.ndarray:
    """A mapped file as a plain array, which slices several times faster than a memmap."""
    if not file.stat().st_size:
        return np.empty(0, dtype)
    return np.memmap(file, dtype=dtype, mode="r").view(np.ndarray)


@dataclass(frozen=True)
class Store:
    """A finished token store, memory-mapped."""

    tokens: ShardedTokens | np.ndarray  # (N,) flat, also of documents that are not in the table
    offset: "np.ndarray | FlatOffsets"  # (documents,) first token of each
    length: np.ndarray  # (documents,) tokens of each
    heldout: np.ndarray  # (documents,) bool, by the share given to `load`
    key: np.ndarray  # (documents,) uint64, a hash of the id
    ids: Sequence[str]
    metadata: dict[str, Any]  # of the manifest
    fingerprint: str
    text_hash: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint64))
    """(documents,) uint64; equal for equal texts"""

    def document(self, index: int, start: int = 0, length: int | None = None) -> np.ndarray:
        """Tokens `[start, start + length)` of a document, without a copy."""
        first = int(self.offset[index]) + start
        count = int(self.length[index]) - start if length is None else length
        return self.tokens[first : first + count]

    @property
    def cache_name(self) -> str:
        """The name of its folder in the cache."""
        return self.fingerprint[:16]

    @property
    def heldout_digest(self) -> str:
        """Identifies the held-out documents; the fingerprint does not depend on them."""
        return hashlib.sha256(np.packbits(self.heldout).tobytes()).hexdigest()[:16]

    def heldout_counts(self) -> dict[str, int]:
        """For the ledger."""
        return {
            "heldout_documents": int(self.heldout.sum()),
            "heldout_tokens": int(self.length[self.heldout].sum()),
        }


def load(folder: Path, heldout: float) -> Store:
    """Open a finished store; tokens are mapped, not read.

    A share `heldout` of its documents is held out; none of a synthetic source.
    Raises: DataError for a shard file of another size.
    """
    finished = manifest.read(folder)
    assert finished is not None, f"{folder.name} is not finished"
    metadata = finished.facts
    table = read_table(folder / DOCUMENTS)
    key = to_numpy(table["key"])
    share = 0.0 if metadata.get("kind") in SYNTHETIC else heldout
    tokens = _open_tokens(folder, metadata["shards"], np.dtype(metadata["dtype"]))
    return Store(
        tokens=tokens,
        offset=FlatOffsets(to_numpy(table["offset"]), to_numpy(table["shard"]), tokens.first),
        length=to_numpy(table["tokens"]),
        # without a share, no key is read: of a hundred million documents they are 800 MB
        heldout=key < np.uint64(_heldout_below(share)) if share else np.zeros(len(key), bool),
        key=key,
        ids=IdColumn(table["id"]),
        metadata=metadata,
        fingerprint=finished.fingerprint,
        text_hash=to_numpy(table["text_hash"]),
    )


def _open_tokens(
    folder: Path, shard_metadata: Sequence[dict[str, Any]], dtype: np.dtype[Any]
) -> ShardedTokens:
    paths = [folder / shards.folder_name(number) for number in range(len(shard_metadata))]
    for shard, metadata in zip(paths, shard_metadata, strict=True):
        way_out = (
            f"delete {folder} and run again, or to keep its other shards: delete {shard}, "
            f"rename {folder} to {folder.name}.tmp, run again"
        )
        verify_size(shard, metadata, dtype, way_out)
    counts = [metadata["tokens"] for metadata in shard_metadata]
    return ShardedTokens([shard / TOKENS for shard in paths], counts, dtype)


def is_heldout(document_id: str, share: float) -> bool:
    """Whether a document is held out: by its id alone, for any order, seed and machine."""
    return hash_random.document_key(document_id) < _heldout_below(share)


def _heldout_below(share: float) -> int:
    """Keys below this are held out; an integer, so that numpy compares as Python does."""
    return ceil(share * 2**64)


def dtype_for(vocab_size: int) -> np.dtype[Any]:
    return np.dtype(np.uint16 if vocab_size <= 1 << 16 else np.uint32)


def verify_size(shard: Path, metadata: dict[str, Any], dtype: np.dtype[Any], way_out: str) -> None:
    """Raises: DataError when tokens.bin has another size than `metadata` says.

    Its offsets would then read the tokens of other documents.
    """
    expected = metadata["tokens"] * dtype.itemsize
    try:
        size = (shard / TOKENS).stat().st_size
    except FileNotFoundError:
        size = 0
    if size != expected:
        raise DataError(
            f"{shard / TOKENS} is {size:,} bytes; by its manifest it must be {expected:,}; "
            f"{way_out}"
        )


def verify_sha256(shard: Path, metadata: dict[str, Any]) -> None:
    """Read all of tokens.bin. Raises: DataError when its sha256 differs from `metadata`."""
    expected = metadata["sha256"]
    with (shard / TOKENS).open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    if sha256 != expected:
        raise DataError(
            f"{shard / TOKENS} has sha256 {sha256[:16]}...; by its manifest it must be "
            f"{expected[:16]}...; {delete_and_rerun(shard)}"
        )


def delete_and_rerun(shard: Path) -> str:
    """The way out for a shard before the merge: only its own tokens are made again."""
    return f"delete {shard} and run again"


@dataclass(frozen=True)
class BoundaryTokens:
    """Ids of the token before a document (BOS) and of the one after it (EOS), or of several (a
    separator that is no token of its own); None: no such token.

    They are a choice of the plan, so no store has them. A plan counts a document's virtual tokens:
    begin + stored tokens + end. A cut document keeps a prefix of them, without the end token.
    """

    begin: int | Sequence[int] | None = None
    end: int | Sequence[int] | None = None

    @cached_property
    def begin_ids(self) -> np.ndarray:
        """(tokens,) int64 before a document."""
        return _ids(self.begin)

    @cached_property
    def end_ids(self) -> np.ndarray:
        """(tokens,) int64 after a document."""
        return _ids(self.end)

    @property
    def before(self) -> int:
        """How many tokens precede a document."""
        return len(self.begin_ids)

    @property
    def count(self) -> int:
        return self.before + len(self.end_ids)

    def with_boundaries(self, lengths: np.ndarray) -> np.ndarray:
        """Virtual tokens of documents of `lengths` stored tokens; no copy without boundaries."""
        return lengths + self.count if self.count else lengths

    def stored(self, virtual: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """How many of the first `virtual` tokens of documents of `lengths` are in the store."""
        return np.clip(virtual - self.before, 0, lengths)

    def read(self, store: Store, index: int, start: int, length: int) -> np.ndarray:
        """Virtual tokens `[start, start + length)` of a document; without boundaries no copy."""
        if not self.count:
            return store.document(index, start, length)
        return self.lay_out(store.document(index), start, length)

    def lay_out(self, text: np.ndarray, start: int = 0, length: int | None = None) -> np.ndarray:
        """Virtual tokens `[start, start + length)` of a text (tokens,); all without a length.

        The one way in which a text stands in a sequence: of training, of eval, of a question.
        """
        size = len(text)
        length = size + self.count - start if length is None else length
        parts, first = [], 0
        for ids in (self.begin_ids, text, self.end_ids):
            low, high = max(start - first, 0), min(start + length - first, len(ids))
            if high > low:
                parts.append(ids[low:high])
            first += len(ids)
        return np.concatenate(parts) if parts else text[:0]


def _ids(boundary: int | Sequence[int] | None) -> np.ndarray:
    """(tokens,) int64 of one side."""
    ids = [] if boundary is None else [boundary] if isinstance(boundary, int) else list(boundary)
    return np.array(ids, dtype=np.int64)
