"""Documents -> token ids on several threads, in input order; the tokenizer releases the GIL.

A batch holds about BATCH_CHARACTERS of text; a long text lies in several (`long_texts.py`).
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from tokenizers import Tokenizer

from ropewalk.conf.errors import ConfigError, DataError
from ropewalk.data.sources import Document
from ropewalk.data.sources.units import grouped_by_size
from ropewalk.data.tokenizer.failures import is_refusal
from ropewalk.data.tokens.long_texts import Cut

BATCH_CHARACTERS = 1 << 18  # its tokens take some 200 bytes each while they are encoded
Encode = Callable[[list[str]], list[np.ndarray]]


def encode_with(tokenizer: Tokenizer) -> Encode:
    """A function from texts to token ids (tokens,) uint32, without special tokens.

    It raises ConfigError for a text that the tokenizer cannot encode.
    """

    def encode(texts: list[str]) -> list[np.ndarray]:
        try:
            encodings = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        except BaseException as error:
            if not is_refusal(error):
                raise
            raise ConfigError(
                f"model.path has a tokenizer that cannot encode every document ({error}); it must "
                "have a token for unknown text; give the model's own tokenizer, or one with byte "
                "fallback"
            ) from error
        return [np.asarray(encoding.ids, dtype=np.uint32) for encoding in encodings]

    return encode


@dataclass(frozen=True)
class Part:
    """Characters `[cut.position, stop)` of a document, encoded behind the cut's context."""

    document: Document
    cut: Cut
    stop: int
    ids: np.ndarray | None = None  # its tokens, where the cut after it made them known

    @property
    def last(self) -> bool:
        return self.stop == len(self.document.text)

    @property
    def characters(self) -> int:
        return self.stop - self.cut.position


CutDocument = tuple[Document, list[Cut]]


def encode_in_order(
    documents: Iterable[CutDocument], encode: Encode, workers: int
) -> Iterator[tuple[Part, np.ndarray]]:
    """The parts of each document with their token ids (tokens,), for any number of `workers`.

    `workers` are threads. The ids of a document's parts join to those of the document.
    Raises: DataError when a part's context has other tokens than its cut saw.
    """
    for part, ids in _encoded(_batches(_parts(documents)), encode, workers):
        context = part.cut.context_ids
        if part.ids is None and tuple(ids[: len(context)].tolist()) != context:
            raise DataError(
                f"document {part.document.id} has other tokens near character {part.cut.position} "
                "when it is split; the parts of a document must have the tokens of the full text; "
                "leave the document out, or split it into shorter ones"
            )
        yield part, ids[len(context) :] if part.ids is None else part.ids


def _parts(documents: Iterable[CutDocument]) -> Iterator[Part]:
    for document, cuts in documents:
        for cut, after in zip([Cut(), *cuts], [*cuts, None], strict=True):
            if after is None:
                yield Part(document, cut, len(document.text))
            else:
                yield Part(document, cut, after.position, after.ids_before)


def _batches(parts: Iterable[Part]) -> Iterator[list[Part]]:
    return grouped_by_size(parts, lambda part: part.characters, BATCH_CHARACTERS)


def _encoded(
    batches: Iterable[list[Part]], encode: Encode, workers: int
) -> Iterator[tuple[Part, np.ndarray]]:
    """At most `workers` + 1 batches are in memory: reading waits until the first is written."""
    pending: deque[tuple[list[Part], Future[list[np.ndarray]]]] = deque()
    with _single_threaded_calls(), ThreadPoolExecutor(workers) as pool:
        try:
            for batch in batches:
                pending.append((batch, pool.submit(_encode_batch, batch, encode)))
                if len(pending) > workers:
                    yield from _result(*pending.popleft())
            while pending:
                yield from _result(*pending.popleft())
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _encode_batch(batch: list[Part], encode: Encode) -> list[np.ndarray]:
    """The ids of each part and its context; none for a part whose ids are known."""
    texts = [_text(part) if part.ids is None else "" for part in batch]
    return encode(texts)


def _text(part: Part) -> str:
    return part.document.text[part.cut.context : part.stop]


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
