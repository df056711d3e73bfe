"""The token store: a source's tokens, flat in one file, beside an Arrow table of its documents.

tokens.bin         uint16 below 65,536 words, else uint32; documents end to end, no BOS or EOS
documents.arrow    id, key (a hash of the id), offset, tokens, characters, heldout
manifest.json      fingerprint, dtype, counts, what was refused and why
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ropewalk.conf import manifest
from ropewalk.data import draw
from ropewalk.data.sources import Document, Refusal

BATCH_CHARACTERS = 1 << 20
Encode = Callable[[list[str]], list[np.ndarray]]


@dataclass(frozen=True)
class Store:
    """A finished token store, memory-mapped."""

    tokens: np.ndarray  # (N,) flat
    offset: np.ndarray  # (documents,) first token of each
    length: np.ndarray  # (documents,) tokens of each
    heldout: np.ndarray  # (documents,) bool
    key: np.ndarray  # (documents,) uint64, of the id
    ids: list[str]
    facts: dict[str, Any]
    fingerprint: str

    def document(self, index: int, start: int = 0, length: int | None = None) -> np.ndarray:
        """Tokens `[start, start + length)` of a document, without a copy."""
        first = int(self.offset[index]) + start
        return self.tokens[first : first + (int(self.length[index]) - start if length is None else length)]


def is_heldout(document_id: str, share: float) -> bool:
    """By a hash of the id alone: independent of order, seed and machine."""
    return draw.key(document_id) < share * 2**64


def encode_with(tokenizer: Any) -> Encode:
    """Texts -> ids without special tokens, on all cores."""

    def encode(texts: list[str]) -> list[np.ndarray]:
        found = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return [np.asarray(e.ids, dtype=np.uint32) for e in found]

    return encode


def write(
    folder: Path,
    items: Iterable[Document | Refusal],
    encode: Encode,
    vocab_size: int,
    heldout: float,
    tell: Callable[[int], Any],
) -> dict[str, Any]:
    """Tokenise documents into `folder`; `tell(characters)` shows progress. Returns the facts for the manifest."""
    refused: Counter[str] = Counter()
    rows: list[tuple[str, int, int, bool]] = []
    with (folder / "tokens.bin").open("wb") as file:
        for batch in _batches(items, refused):
            for document, ids in zip(batch, encode([d.text for d in batch]), strict=True):
                if len(ids) == 0:
                    refused["no tokens"] += 1
                    continue
                file.write(ids.astype(dtype_for(vocab_size)).tobytes())
                rows.append((document.id, len(ids), len(document.text), is_heldout(document.id, heldout)))
            tell(sum(len(d.text) for d in batch))
    return _finish(folder, rows, vocab_size, dict(sorted(refused.items())))


def write_ids(folder: Path, documents: Iterable[np.ndarray], vocab_size: int) -> dict[str, Any]:
    """A store of made-up documents (synthetic retrieval); none is held out."""
    rows = []
    with (folder / "tokens.bin").open("wb") as file:
        for number, ids in enumerate(documents):
            file.write(ids.astype(dtype_for(vocab_size)).tobytes())
            rows.append((f"synthetic:{number}", len(ids), 0, False))
    return _finish(folder, rows, vocab_size, {})


def dtype_for(vocab_size: int) -> Any:
    return np.uint16 if vocab_size <= 1 << 16 else np.uint32


def _batches(items: Iterable[Document | Refusal], refused: Counter[str]) -> Iterator[list[Document]]:
    batch: list[Document] = []
    size = 0
    for item in items:
        if isinstance(item, Refusal):
            refused[item.reason] += 1
            continue
        batch.append(item)
        size += len(item.text)
        if size >= BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _finish(
    folder: Path, rows: list[tuple[str, int, int, bool]], vocab_size: int, refused: dict[str, int]
) -> dict[str, Any]:
    lengths = np.array([row[1] for row in rows], dtype=np.int64)
    offsets = np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64) if len(rows) else lengths
    held = np.array([row[3] for row in rows], dtype=bool)
    table = pa.table(
        {
            "id": [row[0] for row in rows],
            "key": np.array([draw.key(row[0]) for row in rows], dtype=np.uint64),
            "offset": offsets,
            "tokens": lengths,
            "characters": [row[2] for row in rows],
            "heldout": held,
        }
    )
    with (
        pa.OSFile(str(folder / "documents.arrow"), "wb") as sink,
        pa.ipc.new_file(sink, table.schema) as writer,
    ):
        writer.write_table(table)
    return {
        "dtype": np.dtype(dtype_for(vocab_size)).name,
        "documents": len(rows),
        "tokens": int(lengths.sum()),
        "heldout_documents": int(held.sum()),
        "heldout_tokens": int(lengths[held].sum()),
        "refused": refused,
    }


def numbers(column: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """A column of numbers, as it lies in Arrow. Its `to_numpy` would import pandas: half a second of every start."""
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return np.from_dlpack(whole)


def load(folder: Path) -> Store:
    """Open a finished store; the tokens are mapped, not read."""
    found = manifest.read(folder)
    assert found is not None, f"{folder.name} is not finished"
    table = pa.ipc.open_file(pa.memory_map(str(folder / "documents.arrow"))).read_all()
    empty = found.facts["tokens"] == 0
    dtype = np.dtype(found.facts["dtype"])
    mapped = np.empty(0, dtype) if empty else np.memmap(folder / "tokens.bin", dtype=dtype, mode="r")
    return Store(
        tokens=np.asarray(mapped),  # to slice a memmap costs as much as to copy a piece's tokens
        offset=numbers(table["offset"]),
        length=numbers(table["tokens"]),
        heldout=numbers(table["heldout"].cast(pa.uint8())).astype(bool),
        key=numbers(table["key"]),
        ids=table["id"].to_pylist(),
        facts=found.facts,
        fingerprint=found.fingerprint,
    )
