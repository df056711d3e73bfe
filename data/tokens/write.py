"""What lies in a shard's folder: tokens.bin and documents.arrow, written as the documents come. Memory: a batch of rows."""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa

from ropewalk.conf.errors import DataError
from ropewalk.data import hash_random
from ropewalk.data.sources import Document, Refusal
from ropewalk.data.tokens.cut import Cutter
from ropewalk.data.tokens.encode import Encode, in_order
from ropewalk.data.tokens.store import DOCUMENTS, TOKENS, dtype_for

ROWS = 1 << 16  # of a record batch
SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "key": pa.uint64(),
        "offset": pa.int64(),
        "tokens": pa.int64(),
        "characters": pa.int64(),
        "text_hash": pa.uint64(),
    }
)


@dataclass(frozen=True)
class TokenizeOptions:
    """What decides the tokens of a source's documents, and how many threads make them."""

    source: str  # its name
    encode: Encode
    vocab_size: int
    workers: int = 1


def shard(
    folder: Path,
    items: Iterable[Document | Refusal],
    how: TokenizeOptions,
    tell: Callable[[int], Any],
) -> dict[str, Any]:
    """Tokenise documents into `folder`; `tell(characters)` shows progress. Returns the facts for the manifest.

    Raises: DataError for a token id that is not in the vocabulary.
    """
    refused: Counter[str] = Counter()
    cutter = Cutter(how.encode)
    with _open(folder, how.source, how.vocab_size) as out:
        for document, ids in in_order(
            _documents(items, refused), cutter.parts, how.encode, how.workers
        ):
            if len(ids) == 0:
                refused["no tokens"] += 1
            else:
                out.add(document.id, ids, len(document.text), hash_of(document.text.encode()))
            tell(len(document.text))
    return {**out.facts(), "refused": dict(sorted(refused.items())), "long_texts": cutter.facts()}


def ids(
    folder: Path, source: str, documents: Iterable[np.ndarray], vocab_size: int
) -> dict[str, Any]:
    """A shard of made-up documents (synthetic retrieval)."""
    with _open(folder, source, vocab_size) as out:
        for number, found in enumerate(documents):
            out.add(f"synthetic:{number}", found, 0, hash_of(found.astype(np.uint32).tobytes()))
    return {**out.facts(), "refused": {}}


def column(values: Sequence[Any] | np.ndarray, kind: pa.DataType) -> pa.Array:
    """Values in Arrow. `pa.array` would import pandas: half a second of every process that makes a shard."""
    if kind == pa.string():
        texts = [value.encode() for value in values]
        ends = np.cumsum([0, *map(len, texts)], dtype=np.int32)
        return pa.StringArray.from_buffers(
            len(values), pa.py_buffer(ends), pa.py_buffer(b"".join(texts))
        )
    return pa.Array.from_buffers(
        kind, len(values), [None, pa.py_buffer(np.array(values, dtype=str(kind)))]
    )


def hash_of(content: bytes) -> int:
    """64 bits of BLAKE2b: equal texts have equal ones."""
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "big")


def _documents(items: Iterable[Document | Refusal], refused: Counter[str]) -> Iterator[Document]:
    for item in items:
        if isinstance(item, Refusal):
            refused[item.reason] += item.count
        else:
            yield item


@contextmanager
def _open(folder: Path, source: str, vocab_size: int) -> Iterator["_Out"]:
    """Both files of a shard. When it is left they are on the disk, not only on their way: a finished shard outlives a power cut."""
    with ExitStack() as stack:
        tokens, table = (
            stack.enter_context((folder / name).open("wb")) for name in (TOKENS, DOCUMENTS)
        )
        with pa.ipc.new_file(table, SCHEMA) as writer:
            out = _Out(tokens, writer, source, vocab_size)
            yield out
            out.flush()
        for file in (tokens, table):
            file.flush()
            os.fsync(file.fileno())


class _Out:
    """Documents on their way into the files."""

    def __init__(self, tokens: IO[bytes], writer: Any, source: str, vocab_size: int) -> None:
        self.file, self.writer, self.source, self.vocab_size = tokens, writer, source, vocab_size
        self.rows: list[tuple[Any, ...]] = []
        self.sha256 = hashlib.sha256()
        self.documents = self.tokens = 0

    def add(self, name: str, ids: np.ndarray, characters: int, text_hash: int) -> None:
        if (largest := int(ids.max())) >= self.vocab_size:
            raise DataError(
                f"document {name} of source {self.source} has token id {largest}; ids must be below the vocabulary's size, {self.vocab_size}; "
                "give the model the tokenizer that it was trained with"
            )
        written = ids.astype(dtype_for(self.vocab_size)).tobytes()
        self.file.write(written)
        self.sha256.update(written)
        self.rows.append(
            (name, hash_random.document_key(name), self.tokens, len(ids), characters, text_hash)
        )
        self.documents, self.tokens = self.documents + 1, self.tokens + len(ids)
        if len(self.rows) == ROWS:
            self.flush()

    def flush(self) -> None:
        if self.rows:
            columns = zip(zip(*self.rows, strict=True), SCHEMA.types, strict=True)
            self.writer.write_batch(pa.record_batch([column(*of) for of in columns], schema=SCHEMA))
        self.rows = []

    def facts(self) -> dict[str, Any]:
        return {
            "documents": self.documents,
            "tokens": self.tokens,
            "sha256": self.sha256.hexdigest(),
        }
