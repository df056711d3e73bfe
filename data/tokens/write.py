"""A shard's files tokens.bin and documents.arrow, written one document at a time.

Memory holds a batch of rows.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from ropewalk.conf.errors import DataError
from ropewalk.data import hash_random
from ropewalk.data.sources import Document, Refusal
from ropewalk.data.tokens.arrow_table import to_arrow
from ropewalk.data.tokens.encode import Encode, encode_in_order
from ropewalk.data.tokens.long_texts import LongTextSplitter
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
    """How the documents of a source are tokenized."""

    source: str  # its name, for messages
    encode: Encode
    vocab_size: int
    workers: int = 1  # threads; they change no byte


def write_shard(
    folder: Path,
    items: Iterable[Document | Refusal],
    options: TokenizeOptions,
    on_progress: Callable[[int], Any],
) -> dict[str, Any]:
    """Tokenize documents into `folder`. Returns the shard's metadata for its manifest.

    `on_progress` receives the characters of each document.
    Raises: DataError for a token id outside the vocabulary.
    """
    refused: Counter[str] = Counter()
    splitter = LongTextSplitter(options.encode)
    documents = _count_refusals(items, refused)
    with _open(folder, options.source, options.vocab_size) as writer:
        for document, ids in encode_in_order(
            documents, splitter.split, options.encode, options.workers
        ):
            if len(ids) == 0:
                refused["no tokens"] += 1
            else:
                text_hash = hash_of(document.text.encode())
                writer.add(document.id, ids, len(document.text), text_hash)
            on_progress(len(document.text))
    return {
        **writer.metadata(),
        "refused": dict(sorted(refused.items())),
        "long_texts": splitter.metadata(),
    }


def write_synthetic(
    folder: Path, source: str, documents: Iterable[np.ndarray], vocab_size: int
) -> dict[str, Any]:
    """Write synthetic documents (tokens,) as a shard. Returns the shard's metadata."""
    with _open(folder, source, vocab_size) as writer:
        for number, ids in enumerate(documents):
            writer.add(f"synthetic:{number}", ids, 0, hash_of(ids.astype(np.uint32).tobytes()))
    return {**writer.metadata(), "refused": {}}


def hash_of(content: bytes) -> int:
    """64 bits of BLAKE2b; equal texts have equal hashes."""
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "big")


def _count_refusals(
    items: Iterable[Document | Refusal], refused: Counter[str]
) -> Iterator[Document]:
    """The documents of `items`; refusals are counted in `refused`."""
    for item in items:
        if isinstance(item, Refusal):
            refused[item.reason] += item.count
        else:
            yield item


@contextmanager
def _open(folder: Path, source: str, vocab_size: int) -> Iterator["_ShardWriter"]:
    """Open both files; fsync them at the end, so that a finished shard survives a power cut."""
    with ExitStack() as stack:
        tokens = stack.enter_context((folder / TOKENS).open("wb"))
        table = stack.enter_context((folder / DOCUMENTS).open("wb"))
        with pa.ipc.new_file(table, SCHEMA) as table_writer:
            writer = _ShardWriter(tokens, table_writer, source, vocab_size)
            yield writer
            writer.flush()
        for file in (tokens, table):
            file.flush()
            os.fsync(file.fileno())


class _ShardWriter:
    """Appends documents to the files of a shard."""

    def __init__(
        self, file: BinaryIO, table: pa.RecordBatchFileWriter, source: str, vocab_size: int
    ) -> None:
        self.file = file
        self.table = table
        self.source = source
        self.vocab_size = vocab_size
        self.rows: list[tuple[Any, ...]] = []
        self.sha256 = hashlib.sha256()
        self.documents = 0
        self.tokens = 0

    def add(self, name: str, ids: np.ndarray, characters: int, text_hash: int) -> None:
        """Append a document of token ids (tokens,), at least one. Raises: DataError."""
        if (largest := int(ids.max())) >= self.vocab_size:
            raise DataError(
                f"document {name} of source {self.source} has token id {largest}; ids must be "
                f"below the vocabulary's size, {self.vocab_size}; "
                "give the model the tokenizer that it was trained with"
            )
        content = ids.astype(dtype_for(self.vocab_size)).tobytes()
        self.file.write(content)
        self.sha256.update(content)
        key = hash_random.document_key(name)
        self.rows.append((name, key, self.tokens, len(ids), characters, text_hash))
        self.documents += 1
        self.tokens += len(ids)
        if len(self.rows) == ROWS:
            self.flush()

    def flush(self) -> None:
        """Write the rows so far as a record batch."""
        if self.rows:
            columns = zip(*self.rows, strict=True)
            arrays = [to_arrow(c, kind) for c, kind in zip(columns, SCHEMA.types, strict=True)]
            self.table.write_batch(pa.record_batch(arrays, schema=SCHEMA))
        self.rows = []

    def metadata(self) -> dict[str, Any]:
        return {
            "documents": self.documents,
            "tokens": self.tokens,
            "sha256": self.sha256.hexdigest(),
        }
