"""Encoding on threads: ids in document order for any number of workers."""

import os
import random
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pytest
from stores import by_bytes

from ropewalk.conf.errors import DataError
from ropewalk.data.sources import Document
from ropewalk.data.tokens import encode
from ropewalk.data.tokens.encode import Part
from ropewalk.data.tokens.long_texts import Cut

DOCUMENTS = [Document(str(i), "rope " * (i % 9 + 1)) for i in range(200)]


UNCUT: list[tuple[Document, list[Cut]]] = [(document, []) for document in DOCUMENTS]


def joined(parts: Iterable[tuple[Part, np.ndarray]]) -> list[tuple[str, str]]:
    """Ids of the documents and their bytes, which are the tokens."""
    texts: dict[str, str] = {}
    for part, ids in parts:
        name = part.document.id
        texts[name] = texts.get(name, "") + bytes(ids.astype(np.uint8)).decode()
    return list(texts.items())


def slowly(texts: list[str]) -> list[np.ndarray]:
    """A later batch may finish before an earlier one."""
    time.sleep(random.random() / 200)
    return by_bytes(texts)


@pytest.mark.parametrize("workers", [1, 2, 7])
def test_documents_are_in_order_for_any_number_of_workers(
    workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encode, "BATCH_CHARACTERS", 40)
    encoded = joined(encode.encode_in_order(UNCUT, slowly, workers))
    assert encoded == [(d.id, d.text) for d in DOCUMENTS]


def test_parts_of_a_document_are_joined_over_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encode, "BATCH_CHARACTERS", 8)
    cuts = [Cut(3, 3), Cut(5, 3, tuple(b"e "))]  # DOCUMENTS repeat "rope "
    encoded = joined(encode.encode_in_order(((d, cuts) for d in DOCUMENTS), slowly, 3))
    assert encoded == [(d.id, d.text) for d in DOCUMENTS]


def test_known_ids_are_not_made_again() -> None:
    cuts = [Cut(5, 0, (), np.array([7, 8], dtype=np.uint32))]
    parts = list(encode.encode_in_order([(Document("a", "rope yarn"), cuts)], by_bytes, 1))
    assert [ids.tolist() for _, ids in parts] == [[7, 8], list(b"rope yarn")]


def test_a_context_with_other_tokens_than_its_cut_saw_is_refused() -> None:
    cuts = [Cut(5, 4, tuple(b"x"))]
    with pytest.raises(DataError, match="^document a has other tokens near character 5"):
        list(encode.encode_in_order([(Document("a", "rope yarn"), cuts)], by_bytes, 1))


@pytest.mark.parametrize("workers", [1, 3])
def test_at_most_one_batch_more_than_workers_is_read_ahead(
    workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encode, "BATCH_CHARACTERS", 1)  # a document is a batch
    read = 0

    def documents() -> Iterator[tuple[Document, list[Cut]]]:
        nonlocal read
        for document in UNCUT:
            read += 1
            yield document

    for number, _ in enumerate(encode.encode_in_order(documents(), by_bytes, workers)):
        assert read <= number + workers + 1


def test_workers_encode_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of the first three calls waits for the other two; with fewer threads it times out."""
    monkeypatch.setattr(encode, "BATCH_CHARACTERS", 1)
    barrier = threading.Barrier(3, timeout=20)

    def together(texts: list[str]) -> list[np.ndarray]:
        barrier.wait()
        return by_bytes(texts)

    assert len(list(encode.encode_in_order(UNCUT[:6], together, 3))) == 6


def test_an_error_in_a_worker_is_raised_and_ends_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(encode, "BATCH_CHARACTERS", 1)
    calls = []

    def broken(texts: list[str]) -> list[np.ndarray]:
        calls.append(texts)
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        list(encode.encode_in_order(UNCUT, broken, 2))
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

    list(encode.encode_in_order(UNCUT, look, 2))
    assert (values, os.environ.get("TOKENIZERS_PARALLELISM")) == ({"false"}, previous)


def test_encoder_adds_no_special_tokens_and_decodes_back(tokenizer: Any) -> None:
    texts = ["The rope is laid.", "12345", "é\n\tx"]
    encoded = encode.encode_with(tokenizer.backend_tokenizer)(texts)
    assert [tokenizer.decode(ids) for ids in encoded] == texts
    assert not any(set(ids.tolist()) & set(tokenizer.all_special_ids) for ids in encoded)
