"""Token stores for tests: from documents, from token lists and from folders of files."""

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ropewalk.conf.artifacts.manifest import Manifest, publish
from ropewalk.conf.sources import SourceConfig
from ropewalk.data import sources
from ropewalk.data.sources import Document, Refusal
from ropewalk.data.tokens import merge, shards, store, write
from ropewalk.data.tokens.encode import Encode
from ropewalk.data.tokens.locate import Locator
from ropewalk.data.tokens.text_store import TextStore
from ropewalk.data.tokens.write import TokenizeOptions

VOCABULARY = 300


def by_bytes(texts: list[str]) -> list[np.ndarray]:
    """An encoder that is easy to check: a token a byte."""
    return [np.frombuffer(text.encode(), dtype=np.uint8).astype(np.uint32) for text in texts]


def no_progress(_: int) -> None:
    """Report nothing."""


def stored(
    folder: Path,
    *parts: Iterable[Document | Refusal],
    encode: Encode = by_bytes,
    locate: Locator | None = None,
    vocab_size: int = VOCABULARY,
    heldout: float = 0.0,
    on_progress: Callable[[int], Any] = no_progress,
) -> store.Store:
    """A finished store in `folder` with a shard for each of `parts`."""
    options, metadata = TokenizeOptions("mine", encode, vocab_size, locate=locate), []
    for number, items in enumerate(parts):
        (shard := folder.with_suffix(".tmp") / shards.folder_name(number)).mkdir(parents=True)
        metadata.append(write.write_shard(shard, items, options, on_progress))
    return finished(folder, merge.merge(folder.with_suffix(".tmp"), metadata, vocab_size), heldout)


def finished(folder: Path, metadata: dict[str, Any], heldout: float = 0.0) -> store.Store:
    """Publish `folder.tmp` and open the store."""
    manifest = Manifest.for_content("tokens", {})
    manifest.facts = metadata
    publish(folder.with_suffix(".tmp"), folder, manifest)
    return store.load(folder, heldout)


def in_memory(
    documents: Sequence[Sequence[int]], heldout: Sequence[bool] | None = None, fingerprint: str = ""
) -> store.Store:
    """A store of documents 0.txt, 1.txt, ..."""
    lengths = np.array([len(ids) for ids in documents], dtype=np.int64)
    numbers = np.arange(len(documents))
    return store.Store(
        tokens=np.array([token for ids in documents for token in ids], dtype=np.uint16),
        offset=np.cumsum(lengths) - lengths,
        length=lengths,
        heldout=np.array([False] * len(documents) if heldout is None else heldout, dtype=bool),
        key=numbers.astype(np.uint64),
        ids=[f"{number}.txt" for number in numbers],
        metadata={},
        fingerprint=fingerprint,
    )


def texts(folder: Path, lengths: Sequence[int]) -> Path:
    """A folder of files 000.txt, 001.txt, ... of `lengths` bytes."""
    folder.mkdir(parents=True)
    for number, length in enumerate(lengths):
        (folder / f"{number:03}.txt").write_text(
            (f"{number} rope and yarn, " * (length // 16 + 1))[:length]
        )
    return folder


def text_store(folder: Path, cache: Path, encode: Encode = by_bytes, workers: int = 1) -> TextStore:
    """The store of a folder of texts, not yet built."""
    source = SourceConfig(path=str(folder), kind="text")
    options = TokenizeOptions("mine", encode, VOCABULARY, workers)
    return TextStore.from_listing(
        cache, {"format": 0}, source, sources.list_source(source, "mine"), options
    )


def build(target: TextStore) -> Path:
    """Build all shards in this process and publish the store."""
    target.make(target.missing())
    target.publish()
    return target.folder


def content_of(folder: Path) -> dict[str, str]:
    """sha256 of all files, without locks, and in manifests without seconds and what hashes them."""
    paths = [p for p in sorted(folder.rglob("*")) if p.is_file() and not p.name.startswith(".")]
    return {
        p.relative_to(folder).as_posix(): hashlib.sha256(
            _without_seconds(p.read_bytes()) if p.name == "manifest.json" else p.read_bytes()
        ).hexdigest()
        for p in paths
    }


def _without_seconds(text: bytes) -> bytes:
    hashed = rb'"(digest|([^"]*/)?manifest\.json)": "[0-9a-f]{64}"'
    return re.sub(hashed, b"", re.sub(rb'"seconds": [0-9.]+', b"", text))
