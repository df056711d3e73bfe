"""Encoding on threads: ids in document order for any number of workers."""

import os
import random
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from stores import by_bytes

from ropewalk.data.sources import Document
from ropewalk.data.tokens import encode

DOCUMENTS = [Document(str(i), "rope " * (i % 9 + 1)) for i in range(200)]


def unsplit(text: str) -> list[str]:
    return [text]


def slowly(texts: list[str]) -> list[np.ndarray]:
    """A later batch may finish before an earlier one."""
    time.sleep(random.random() / 200)
    return by_bytes(texts)


@pytest.mark.parametrize("workers", [1, 2, 7])
def test_documents_are_in_order_for_any_number_of_workers(
    workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encode, "BATCH_CHARACTERS", 40)
    encoded = list(encode.encode_in_order(DOCUMENTS, unsplit, slowly, workers))
    assert [(d, bytes(ids.astype(np.uint8)).decode()) for d, ids in encoded] == [
        (d, d.text) for d in DOCUMENTS
    ]


def test_parts_of_a_document_are_joined_over_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encode, "BATCH_CHARACTERS", 8)
    halves = lambda text: [text[:7], text[7:20], text[20:]]  # noqa: E731
    encoded = list(encode.encode_in_order(DOCUMENTS, halves, slowly, 3))
    assert [bytes(ids.astype(np.uint8)).decode() for _, ids in encoded] == [
        d.text for d in DOCUMENTS
    ]


@pytest.mark.parametrize("workers", [1, 3])
def test_at_most_one_batch_more_than_workers_is_read_ahead(
    workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encode, "BATCH_CHARACTERS", 1)  # a document is a batch
    read = 0

    def documents() -> Iterator[Document]:
        nonlocal read
        for document in DOCUMENTS:
            read += 1
            yield document

    for number, _ in enumerate(encode.encode_in_order(documents(), unsplit, by_bytes, workers)):
        assert read <= number + workers + 1


def test_workers_encode_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of the first three calls waits for the other two; with fewer threads it times out."""
    monkeypatch.setattr(encode, "BATCH_CHARACTERS", 1)
    barrier = threading.Barrier(3, timeout=20)

    def together(texts: list[str]) -> list[np.ndarray]:
        barrier.wait()
        return by_bytes(texts)

    assert len(list(encode.encode_in_order(DOCUMENTS[:6], unsplit, together, 3))) == 6


def test_an_error_in_a_worker_is_raised_and_ends_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(encode, "BATCH_CHARACTERS", 1)
    calls = []

    def broken(texts: list[str]) -> list[np.ndarray]:
        calls.append(texts)
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        list(encode.encode_in_order(DOCUMENTS, unsplit, broken, 2))
    assert len(calls) <= 4
    assert not [t for t in threading.enumerate() if "ThreadPool" in t.name]


@pytest.mark.parametrize("previous", [None, "true"])
def test_the_tokenizers_own_threads_are_off_while_encoding(
    previous: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TOKENIZERS_PARALLELISM", raising=False)
    if previous:
        monkeypatch.setenv("TOKENIZERS_PARALLELISM", previous)
    values = set()

    def look(texts: list[str]) -> list[np.ndarray]:
        values.add(os.environ["TOKENIZERS_PARALLELISM"])
        return by_bytes(texts)

    list(encode.encode_in_order(DOCUMENTS, unsplit, look, 2))
    assert (values, os.environ.get("TOKENIZERS_PARALLELISM")) == ({"false"}, previous)


def test_encoder_adds_no_special_tokens_and_decodes_back(tokenizer: Any) -> None:
    texts = ["The rope is laid.", "12345", "é\n\tx"]
    encoded = encode.encode_with(tokenizer.backend_tokenizer)(texts)
    assert [tokenizer.decode(ids) for ids in encoded] == texts
    assert not any(set(ids.tolist()) & set(tokenizer.all_special_ids) for ids in encoded)
