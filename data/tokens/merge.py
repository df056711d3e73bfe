"""A store's shards under one table, in which each document id occurs once."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ropewalk.data.sources import REPEATED_ID
from ropewalk.data.tokens import shards
from ropewalk.data.tokens.arrow_table import read_table, to_arrow, to_numpy, write_table
from ropewalk.data.tokens.given_ids import COUNTS
from ropewalk.data.tokens.store import DOCUMENTS, delete_and_rerun, dtype_for, verify_size
from ropewalk.data.tokens.write import write_synthetic


def merge(
    folder: Path, shard_metadata: Sequence[dict[str, Any]], vocab_size: int
) -> dict[str, Any]:
    """Write `folder`/documents.arrow over the shards in it. Returns the store's metadata.

    A document whose id an earlier one has is left out of the table and counted.
    Raises: DataError for a shard file whose size differs from its metadata.
    """
    tables = []
    for number, metadata in enumerate(shard_metadata):
        shard = folder / shards.folder_name(number)
        verify_size(shard, metadata, dtype_for(vocab_size), delete_and_rerun(shard))
        tables.append(_with_shard(read_table(shard / DOCUMENTS), number))
    table = pa.concat_tables(tables)
    repeated = rows_of_repeated_ids(to_numpy(table["key"]), table["id"])
    if repeated:
        table = table.take(to_arrow(np.delete(np.arange(len(table)), repeated), pa.int64()))
    write_table(folder / DOCUMENTS, table.combine_chunks())
    refused = sum((Counter(m["refused"]) for m in shard_metadata), Counter())
    if repeated:
        refused[REPEATED_ID] += len(repeated)
    return {
        "dtype": dtype_for(vocab_size).name,
        "documents": len(table),
        "tokens": int(to_numpy(table["tokens"]).sum()),
        "refused": dict(sorted(refused.items())),
        **_long_texts(shard_metadata),
        **_given_ids(shard_metadata),
        "shards": [{k: m[k] for k in ("documents", "tokens", "sha256")} for m in shard_metadata],
    }


def synthetic_store(
    folder: Path, source: str, documents: Iterable[np.ndarray], vocab_size: int
) -> dict[str, Any]:
    """Write a store of synthetic documents (tokens,) as one shard. Returns the store's metadata."""
    shard = folder / shards.folder_name(0)
    shard.mkdir()
    return merge(folder, [write_synthetic(shard, source, documents, vocab_size)], vocab_size)


def rows_of_repeated_ids(keys: np.ndarray, ids: pa.ChunkedArray) -> list[int]:
    """Rows whose id an earlier row has. Only rows with equal keys, hashes of the ids, are read."""
    order = np.argsort(keys, kind="stable")
    equal_to_next = np.flatnonzero(keys[order][1:] == keys[order][:-1])
    candidates = np.unique(order[np.concatenate([equal_to_next, equal_to_next + 1])])
    names: set[str] = set()
    rows = []
    for row in candidates.tolist():
        name = ids[row].as_py()
        if name in names:
            rows.append(row)
        names.add(name)
    return rows


def _with_shard(table: pa.Table, number: int) -> pa.Table:
    column = to_arrow(np.full(len(table), number), pa.uint32())
    return table.add_column(2, "shard", column)


def _long_texts(shard_metadata: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The shards' counts of cuts, added. Synthetic shards have no text to cut."""
    counts = [m["long_texts"]["cuts"] for m in shard_metadata if "long_texts" in m]
    return {"long_texts": {"cuts": sum(counts)}} if counts else {}


def _given_ids(shard_metadata: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The shards' counts of token ids that were given, added."""
    counts = sum((Counter(m["given_ids"]) for m in shard_metadata if "given_ids" in m), Counter())
    return {"given_ids": {key: counts[key] for key in COUNTS}} if counts else {}
