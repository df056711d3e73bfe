"""Documents -> token ids on several threads, in the order of the documents. The tokenizer lets go of Python's lock.

A batch holds about 1 MB of text; the parts of a long text may lie in several (`cut.py`).
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from ropewalk.data.sources import Document

BATCH_CHARACTERS = 1 << 20
Encode = Callable[[list[str]], list[np.ndarray]]


def encode_with(tokenizer: Any) -> Encode:
    """Texts -> ids (tokens,) uint32 without special tokens."""

    def encode(texts: list[str]) -> list[np.ndarray]:
        found = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return [np.asarray(e.ids, dtype=np.uint32) for e in found]

    return encode


@dataclass(frozen=True)
class Part:
    """A stretch of a document's text; `last` ends it."""

    document: Document
    text: str
    last: bool


def in_order(
    documents: Iterable[Document], parts: Callable[[str], list[str]], encode: Encode, workers: int
) -> Iterator[tuple[Document, np.ndarray]]:
    """Each document with its ids, whatever the number of `workers` (threads)."""
    found: list[np.ndarray] = []
    for part, ids in _encoded(_batches(_parts(documents, parts)), encode, workers):
        found.append(ids)
        if part.last:
            yield part.document, found[0] if len(found) == 1 else np.concatenate(found)
            found = []


def _parts(documents: Iterable[Document], parts: Callable[[str], list[str]]) -> Iterator[Part]:
    for document in documents:
        texts = parts(document.text)
        yield from (
            Part(document, text, number == len(texts)) for number, text in enumerate(texts, 1)
        )


def _batches(parts: Iterable[Part]) -> Iterator[list[Part]]:
    batch: list[Part] = []
    size = 0
    for part in parts:
        batch.append(part)
        size += len(part.text)
        if size >= BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _encoded(
    batches: Iterable[list[Part]], encode: Encode, workers: int
) -> Iterator[tuple[Part, np.ndarray]]:
    """At most `workers` + 1 batches are in memory: no more is read before the first of them is written."""
    waiting: deque[tuple[list[Part], Future[list[np.ndarray]]]] = deque()
    with _one_thread_a_call(), ThreadPoolExecutor(workers) as pool:
        try:
            for batch in batches:
                waiting.append((batch, pool.submit(encode, [p.text for p in batch])))
                if len(waiting) > workers:
                    yield from _result(*waiting.popleft())
            while waiting:
                yield from _result(*waiting.popleft())
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _result(
    batch: list[Part], future: Future[list[np.ndarray]]
) -> Iterator[tuple[Part, np.ndarray]]:
    return zip(batch, future.result(), strict=True)


@contextmanager
def _one_thread_a_call() -> Iterator[None]:
    """The tokenizer's own threads off: they wait for the longest text of a batch."""
    before = os.environ.get("TOKENIZERS_PARALLELISM")
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    try:
        yield
    finally:
        if before is None:
            del os.environ["TOKENIZERS_PARALLELISM"]
        else:
            os.environ["TOKENIZERS_PARALLELISM"] = before
