"""Documents -> token ids on several threads, in input order; the tokenizer releases the GIL.

A batch holds about 1 MB of text; the parts of a long text may lie in several (`long_texts.py`).
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from tokenizers import Tokenizer

from ropewalk.data.sources import Document
from ropewalk.data.sources.units import grouped_by_size

BATCH_CHARACTERS = 1 << 20
Encode = Callable[[list[str]], list[np.ndarray]]


def encode_with(tokenizer: Tokenizer) -> Encode:
    """A function from texts to token ids (tokens,) uint32, without special tokens."""

    def encode(texts: list[str]) -> list[np.ndarray]:
        encodings = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return [np.asarray(encoding.ids, dtype=np.uint32) for encoding in encodings]

    return encode


@dataclass(frozen=True)
class Part:
    """A part of a document's text; `last` ends the document."""

    document: Document
    text: str
    last: bool


def encode_in_order(
    documents: Iterable[Document], split: Callable[[str], list[str]], encode: Encode, workers: int
) -> Iterator[tuple[Document, np.ndarray]]:
    """Each document with its token ids (tokens,), the same for any number of `workers` (threads).

    `split` gives the parts of a text that are encoded separately.
    """
    parts: list[np.ndarray] = []
    for part, ids in _encoded(_batches(_parts(documents, split)), encode, workers):
        parts.append(ids)
        if part.last:
            yield part.document, parts[0] if len(parts) == 1 else np.concatenate(parts)
            parts = []


def _parts(documents: Iterable[Document], split: Callable[[str], list[str]]) -> Iterator[Part]:
    for document in documents:
        texts = split(document.text)
        for number, text in enumerate(texts, 1):
            yield Part(document, text, number == len(texts))


def _batches(parts: Iterable[Part]) -> Iterator[list[Part]]:
    return grouped_by_size(parts, lambda part: len(part.text), BATCH_CHARACTERS)


def _encoded(
    batches: Iterable[list[Part]], encode: Encode, workers: int
) -> Iterator[tuple[Part, np.ndarray]]:
    """At most `workers` + 1 batches are in memory: reading waits until the first is written."""
    pending: deque[tuple[list[Part], Future[list[np.ndarray]]]] = deque()
    with _single_threaded_calls(), ThreadPoolExecutor(workers) as pool:
        try:
            for batch in batches:
                pending.append((batch, pool.submit(encode, [part.text for part in batch])))
                if len(pending) > workers:
                    yield from _result(*pending.popleft())
            while pending:
                yield from _result(*pending.popleft())
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _result(
    batch: list[Part], future: Future[list[np.ndarray]]
) -> Iterator[tuple[Part, np.ndarray]]:
    return zip(batch, future.result(), strict=True)


@contextmanager
def _single_threaded_calls() -> Iterator[None]:
    """Disable the tokenizer's own threads, which wait for the longest text of a batch."""
    previous = os.environ.get("TOKENIZERS_PARALLELISM")
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    try:
        yield
    finally:
        if previous is None:
            del os.environ["TOKENIZERS_PARALLELISM"]
        else:
            os.environ["TOKENIZERS_PARALLELISM"] = previous
