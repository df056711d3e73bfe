"""Encoding on threads: ids in document order for any number of workers; tokenizer identity."""

import os
import random
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from stores import by_bytes

from ropewalk.data import tokenizer as tokenizers
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
    encoded = encode.encode_with(tokenizers.backend(tokenizer))(texts)
    assert [tokenizer.decode(ids) for ids in encoded] == texts
    assert not any(set(ids.tolist()) & set(tokenizer.all_special_ids) for ids in encoded)


def test_special_words_inside_a_document_are_text(tokenizer: Any) -> None:
    """No BOS or EOS inside: a document that spells one does not end there."""
    ids = encode.encode_with(tokenizers.backend(tokenizer))(["before <|endoftext|> after"])[0]
    assert not set(ids.tolist()) & set(tokenizer.all_special_ids)


def test_padding_and_truncation_of_a_tokenizer_file_change_no_id(tokenizer: Any) -> None:
    import copy

    spoiled = copy.deepcopy(tokenizer)
    spoiled.backend_tokenizer.enable_truncation(3)
    spoiled.backend_tokenizer.enable_padding(length=50)
    text = ["The rope is laid in the long walk."]
    expected = encode.encode_with(tokenizers.backend(tokenizer))(text)[0]
    assert encode.encode_with(tokenizers.backend(spoiled))(text)[0].tolist() == expected.tolist()
    assert tokenizers.encoding_fingerprint(spoiled) == tokenizers.encoding_fingerprint(tokenizer)


def test_vocab_size_is_the_largest_id_plus_one_also_with_gaps() -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    holes = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"a": 0, "b": 9}, unk_token="a"))
    )
    assert (len(holes), tokenizers.vocab_size(holes)) == (2, 10)


def test_tokenizer_training_splits_digits_and_is_the_same_twice(tokenizer: Any) -> None:
    texts = ["yarn 123 yarn 1234", "walk 99"] * 50
    first, second = (tokenizers.train(texts, 280) for _ in range(2))
    assert (
        tokenizers.encoding_fingerprint(first)
        == tokenizers.encoding_fingerprint(second)
        != tokenizers.encoding_fingerprint(tokenizer)
    )
    digits = [word for word in first.get_vocab() if sum(c.isdigit() for c in word) > 1]
    assert digits == []
