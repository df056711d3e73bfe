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
from ropewalk.data.sources.long_text import pieces_of
from ropewalk.data.tokens.arrow_table import to_arrow
from ropewalk.data.tokens.encode import CutDocument, Encode, encode_in_order
from ropewalk.data.tokens.given_ids import GivenIds, IdCheck
from ropewalk.data.tokens.locate import Locator
from ropewalk.data.tokens.long_texts import NO_CUT, NoCutError, find_cuts
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
    locate: Locator | None = None  # finds the cuts of long texts; None: no text is cut
    given: GivenIds | None = None  # the documents have token ids in place of text


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
    if options.given is not None:
        return _write_given(folder, items, options, options.given, on_progress)
    refused: Counter[str] = Counter()
    cuts = 0
    documents = _with_cuts(_count_refusals(items, refused), options.locate, refused)
    with _open(folder, options.source, options.vocab_size) as writer:
        for part, ids in encode_in_order(documents, options.encode, options.workers):
            writer.append(part.document.id, ids)
            if not part.last:
                cuts += 1
            elif not writer.end_document(part.document):
                refused["no tokens"] += 1
            on_progress(part.characters)
    return {
        **writer.metadata(),
        "refused": dict(sorted(refused.items())),
        "long_texts": {"cuts": cuts},
    }


def _write_given(
    folder: Path,
    items: Iterable[Document | Refusal],
    options: TokenizeOptions,
    given: GivenIds,
    on_progress: Callable[[int], Any],
) -> dict[str, Any]:
    """The same for documents of token ids. Raises: DataError for ids of another tokenizer."""
    refused: Counter[str] = Counter()
    check = IdCheck(options.source, given, options.vocab_size)
    with _open(folder, options.source, options.vocab_size) as writer:
        for row in _count_refusals(items, refused):
            assert row.ids is not None, row.id
            parts = given.documents(row.id, row.ids, row.borders)
            refused["no tokens"] += not parts
            for name, ids in parts:
                check.add(name, ids)
                writer.append(name, ids)
                writer.end(name, 0, hash_of([ids.tobytes()]))
            on_progress(4 * len(row.ids))
    counts = {reason: count for reason, count in sorted(refused.items()) if count}
    return {**writer.metadata(), "refused": counts, "given_ids": check.counts()}


def write_synthetic(
    folder: Path, source: str, documents: Iterable[np.ndarray], vocab_size: int
) -> dict[str, Any]:
    """Write synthetic documents (tokens,) as a shard. Returns the shard's metadata."""
    with _open(folder, source, vocab_size) as writer:
        for number, ids in enumerate(documents):
            name = f"synthetic:{number}"
            writer.append(name, ids)
            writer.end(name, 0, hash_of([ids.astype(np.uint32).tobytes()]))
    return {**writer.metadata(), "refused": {}}


def hash_of(pieces: Iterable[bytes]) -> int:
    """64 bits of BLAKE2b; equal texts have equal hashes, however they lie in pieces."""
    digest = hashlib.blake2b(digest_size=8)
    for piece in pieces:
        digest.update(piece)
    return int.from_bytes(digest.digest(), "big")


def _count_refusals(
    items: Iterable[Document | Refusal], refused: Counter[str]
) -> Iterator[Document]:
    """The documents of `items`; refusals are counted in `refused`."""
    for item in items:
        if isinstance(item, Refusal):
            refused[item.reason] += item.count
        else:
            yield item


def _with_cuts(
    documents: Iterable[Document], locate: Locator | None, refused: Counter[str]
) -> Iterator[CutDocument]:
    """Each document with its cuts; one that cannot be cut is counted in `refused`."""
    for document in documents:
        try:
            yield document, [] if locate is None else find_cuts(document.text, locate)
        except NoCutError:
            refused[NO_CUT] += 1


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
        self.first = 0  # the first token of the document in progress

    def append(self, name: str, ids: np.ndarray) -> None:
        """Append token ids (tokens,) to the document in progress. Raises: DataError."""
        if not len(ids):
            return
        if (largest := int(ids.max())) >= self.vocab_size:
            raise DataError(
                f"document {name} of source {self.source} has token id {largest}; ids must be "
                f"below the vocabulary's size, {self.vocab_size}; "
                "give the model the tokenizer that it was trained with"
            )
        content = ids.astype(dtype_for(self.vocab_size)).tobytes()
        self.file.write(content)
        self.sha256.update(content)
        self.tokens += len(ids)

    def end_document(self, document: Document) -> bool:
        """End the document in progress. False for one without tokens, which gets no row."""
        if self.tokens == self.first:
            return False
        pieces = (piece.encode() for piece in pieces_of(document.text))
        self.end(document.id, len(document.text), hash_of(pieces))
        return True

    def end(self, name: str, characters: int, text_hash: int) -> None:
        """Write the row of the document in progress, which has a token at least."""
        key = hash_random.document_key(name)
        self.rows.append((name, key, self.first, self.tokens - self.first, characters, text_hash))
        self.documents += 1
        self.first = self.tokens
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
