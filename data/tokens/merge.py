"""The shards of a store under one table. A document whose id was seen before is left out of it, and counted."""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ropewalk.data.sources import REPEATED_ID
from ropewalk.data.tokens import shards, write
from ropewalk.data.tokens.store import (
    DOCUMENTS,
    delete_it,
    dtype_for,
    numbers,
    refuse_other_size,
    table_of,
)


def merge(folder: Path, made: Sequence[dict[str, Any]], vocab_size: int) -> dict[str, Any]:
    """Write `folder`/documents.arrow over its shards, of which `made` are the facts. Returns the store's facts.

    Raises: DataError for a shard whose file has another size than its facts say.
    """
    for number, facts in enumerate(made):
        shard = folder / shards.name(number)
        refuse_other_size(shard, facts, dtype_for(vocab_size), delete_it(shard))
    parts = [
        _numbered(table_of(folder / shards.name(number)), number) for number in range(len(made))
    ]
    table = pa.concat_tables(parts)
    again = seen_before(numbers(table["key"]), table["id"])
    if again:
        table = table.take(write.column(np.delete(np.arange(len(table)), again), pa.int64()))
    _write(folder / DOCUMENTS, table.combine_chunks())
    refused = sum(
        (Counter(facts["refused"]) for facts in made),
        Counter({REPEATED_ID: len(again)} if again else {}),
    )
    return {
        **_counts(table, vocab_size),
        "refused": dict(sorted(refused.items())),
        **_of_shards(made),
    }


def one_shard(
    folder: Path, source: str, documents: Iterable[np.ndarray], vocab_size: int
) -> dict[str, Any]:
    """A store of made-up documents (synthetic retrieval) in `folder`: one shard. Returns the store's facts."""
    shard = folder / shards.name(0)
    shard.mkdir()
    return merge(folder, [write.ids(shard, source, documents, vocab_size)], vocab_size)


def seen_before(keys: np.ndarray, ids: Any) -> list[int]:
    """Rows whose id an earlier row has. Only rows that share a key, a hash of the id, are looked at."""
    order = np.argsort(keys, kind="stable")
    twin = np.flatnonzero(keys[order][1:] == keys[order][:-1])
    names: set[str] = set()
    found = []
    for row in np.unique(order[np.concatenate([twin, twin + 1])]).tolist():
        name = ids[row].as_py()
        if name in names:
            found.append(row)
        names.add(name)
    return found


def _numbered(table: pa.Table, number: int) -> pa.Table:
    return table.add_column(2, "shard", write.column(np.full(len(table), number), pa.uint32()))


def _write(path: Path, table: pa.Table) -> None:
    with path.open("wb") as sink:
        with pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        sink.flush()
        os.fsync(sink.fileno())


def _counts(table: pa.Table, vocab_size: int) -> dict[str, Any]:
    tokens = int(numbers(table["tokens"]).sum())
    return {"dtype": dtype_for(vocab_size).name, "documents": len(table), "tokens": tokens}


def _of_shards(made: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What each holds, and what became of long texts in all of them. Synthetic shards have no text to cut."""
    cuts = [facts["long_texts"] for facts in made if "long_texts" in facts]
    verdicts = [cut["same_ids"] for cut in cuts if cut["same_ids"] is not None]
    joined = {
        "compared": sum(cut["compared"] for cut in cuts),
        "same_ids": all(verdicts) if verdicts else None,
        "cuts": sum(cut["cuts"] for cut in cuts),
    }
    rows = [{key: facts[key] for key in ("documents", "tokens", "sha256")} for facts in made]
    return {**({"long_texts": joined} if cuts else {}), "shards": rows}
